"""What a run's folder tells of the run: its configuration, its log, its evaluation, whether it is finished."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hiptrack.bounded import excerpt, read_text
from hiptrack.comparing.names import SEED
from hiptrack.config_parse import read_file
from hiptrack.config_walk import format_value, label
from hiptrack.errors import CheckpointError, DataError, NotFoundError
from hiptrack.models.weights import read_metadata
from hiptrack.training.log import METRICS, read_metrics
from hiptrack.training.resume import FREE

RESULTS = ("AO", "SR0.5", "SR0.75", "accuracy", "balanced accuracy", "mean average precision", "macro f1")
SPEEDS = ("frames/s", "s/step")
EVALUATION = "evaluation"  # folder of the evaluation, in the run's own
MAX_BYTES = 2**26


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells of it.

    bindings: {name: value as gin text}, without the seed and what changes no result; numbers: of RESULTS and SPEEDS,
    those there are; source: where the RESULTS are from; state: what is unfinished, "" for nothing; versions: of versions.json.
    """

    folder: Path
    bindings: dict[str, str]
    seed: str
    numbers: dict[str, float]
    source: str
    state: str
    versions: dict[str, object]


def read_run(folder: Path) -> RunRecord | None:
    """The record of a run's folder; None where the run has logged nothing yet.

    Raises DataError or ConfigError for a file that is damaged.
    """
    if not (folder / METRICS).is_file() or not (bindings := newest_config(folder)):
        return None
    curves = _curves(folder)
    if not curves:
        return None
    results, source, state = _evaluation(folder)
    if not results:
        results, source = _validation(curves)
    speeds = {"s/step": _seconds_per_step(curves), **results}
    if not is_finished(folder):
        state = f"unfinished, step {_last_step(curves)}"
    seed = bindings.pop(SEED, "0")
    return RunRecord(
        folder=folder,
        bindings={name: value for name, value in bindings.items() if name not in FREE},
        seed=seed,
        numbers={name: value for name, value in speeds.items() if value is not None},
        source=source,
        state=state,
        versions=_versions(folder),
    )


def is_finished(folder: Path) -> bool:
    """Whether the run has come to its end: its last weights are of the last step in its log."""
    try:
        step = int(read_metadata(folder / "model.safetensors")["step"])
        return step == _last_step(_curves(folder))
    except (NotFoundError, CheckpointError, DataError, FileNotFoundError, KeyError, ValueError):
        return False  # damaged weights are written anew by the run, as missing ones are; it tells of a damaged log


def newest_config(folder: Path) -> dict[str, str]:
    """{name: value} of the newest config-N.gin of a run, {} where there is none. Raises ConfigError for a damaged one."""
    path = _newest(folder, "config", ".gin")
    return {} if path is None else {label(b.key): format_value(b.value) for b in read_file(str(path.absolute()))}


def _newest(folder, stem, suffix):
    """The last of stem.suffix, stem-2.suffix, ..., or None."""
    pattern = re.compile(rf"{stem}(?:-(\d+))?{re.escape(suffix)}")
    found = {int(match[1] or 1): path for path in folder.glob("*") if (match := pattern.fullmatch(path.name))}
    return found[max(found)] if found else None


def _curves(folder):
    try:
        return read_metrics(folder)
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f'{folder / METRICS}: no log of a run; lines of {{"step": 1, ...}} were expected.') from error


def _last_step(curves):
    return max((points[-1][0] for points in curves.values()), default=None)


def _results(values):
    """Those of RESULTS among {name: number}."""
    named = {name.replace("_", " "): value for name, value in values.items()}
    return {name: named[name] for name in RESULTS if named.get(name) is not None}


def _validation(curves):
    """(numbers, source) of the last validation."""
    prefix = "Validation/"
    last = {name.removeprefix(prefix): points[-1][1] for name, points in curves.items() if name.startswith(prefix)}
    values = _results(last)
    return values, "validation" if values else ""


def _evaluation(folder):
    """(numbers, source, state) of evaluation/report.json, ({}, "", "") where there is none."""
    path = folder / EVALUATION / "report.json"
    if not path.exists():
        return {}, "", ""
    try:
        report = json.loads(read_text(path, MAX_BYTES))
        parts = (report["overall"], report["classification"], report.get("multi_label"))
        numbers = _results({name: value for part in parts for name, value in (part or {}).items()})
        if not numbers:  # frames without ground truth
            return {}, "", ""
        numbers["frames/s"] = report["speed"]["fps_model"]
        frames = sum(sequence["frames"] for sequence in report["sequences"].values())
        source = f"evaluation ({len(report['sequences'])} sequences, {frames} frames)"
        return numbers, source, "" if report["complete"] else "evaluation incomplete"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is no report of tools/eval.py: {excerpt(repr(error))}. Move it away, or evaluate again."
        ) from error


def _seconds_per_step(curves):
    """The median over the logged steps of reading and computing."""
    reading, computing = curves.get("Time/data", []), curves.get("Time/compute", [])
    return median(a + b for (_, a), (_, b) in zip(reading, computing)) if reading and computing else None


def _versions(folder):
    path = _newest(folder, "versions", ".json")
    if path is None:
        return {}
    try:
        return dict(json.loads(read_text(path, MAX_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {excerpt(str(error))}. Move it away.") from error
