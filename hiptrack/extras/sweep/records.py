"""What a run's folder tells of the run: its configuration, its log, its evaluation, whether it is finished."""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hiptrack.config.meaning import Key, changes_no_result, format_value, implied_values, label
from hiptrack.config.syntax import named, read_file
from hiptrack.errors import CheckpointError, DataError, HiptrackError, NotFoundError
from hiptrack.files import encoded, excerpt, file_hash, read_text
from hiptrack.models.weights import content_hash, read_metadata
from hiptrack.training.log import METRICS, read_metrics
from hiptrack.training.run_folder import WARNINGS
from hiptrack.training.selection import SELECTION

BRANCH = ("accuracy", "balanced accuracy", "mean average precision", "macro f1")
RESULTS = ("AO", "SR0.5", "SR0.75", "AUC", "OP50", "OP75", "P", "P_norm", "P_norm0.2", *BRANCH)
SPEEDS = ("frames/s", "s/step")
EVALUATION = "evaluation"  # folder of the evaluation, in the run's own
REPORT = Path(EVALUATION) / "report.json"
ON_TEST_DATA = "validation on test data"
UNBOUND = "-"
MAX_BYTES = 2**26
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells of it.

    bindings: {name: value as gin text}, without the seed and what changes no result; implied: {name: value} that holds
    where a name is not bound; numbers: of RESULTS and SPEEDS, those there are; source: where the RESULTS are from;
    tracking: {name: value} with which they were tracked, {} where they are of a validation; by_challenge: {class:
    {"frames", "sequences", the benchmark's own numbers}}, {} for none; state: what is unfinished or out of date, "" for
    nothing; versions: of versions.json.
    """

    folder: Path
    bindings: dict[str, str]
    implied: dict[str, str]
    seed: str
    numbers: dict[str, float]
    source: str
    tracking: dict[str, str]
    by_challenge: dict[str, dict]
    state: str
    versions: dict[str, object]

    def value(self, name: str) -> str:
        """Of a name, as gin text: bound or not; UNBOUND where the run does not use it."""
        return self.bindings.get(name) or self.implied.get(name, UNBOUND)


def read_run(folder: Path) -> RunRecord | None:
    """The record of a run's folder; None where the run has logged nothing yet.

    Raises DataError or ConfigError for a file that is damaged.
    """
    if not (folder / METRICS).is_file() or not (config := _newest_bindings(folder)):
        return None
    curves = read_metrics(folder)
    if not curves:
        return None
    results, source, tracking, by_challenge, state = _evaluation(folder)
    if not results:
        results, source = _validation(curves)
        if source and is_on_test_data(folder):
            source = ON_TEST_DATA
    speeds = {"s/step": _seconds_per_step(curves), **results}
    if not is_finished(folder):
        state = f"unfinished, step {_last_step(curves)}"
    bindings = _texts(config)
    return RunRecord(
        folder=folder,
        bindings={name: value for name, value in bindings.items() if name != SEED and not changes_no_result(name)},
        implied=implied_values(config, named("train", str(folder))),
        seed=bindings.get(SEED, "0"),
        numbers={name: value for name, value in speeds.items() if value is not None and math.isfinite(value)},
        source=source,
        tracking=tracking,
        by_challenge=by_challenge,
        state=state,
        versions=_versions(folder),
    )


def is_finished(folder: Path) -> bool:
    """Whether the run has come to its end: its last weights are of the last step in its log."""
    try:
        step = int(read_metadata(folder / _WEIGHTS)["step"])
        return step == _last_step(read_metrics(folder))
    except (NotFoundError, CheckpointError, DataError, FileNotFoundError, KeyError, ValueError):
        return False  # damaged weights are written anew by the run, as missing ones are; it tells of a damaged log


def is_evaluated(folder: Path) -> bool:
    weights = folder / _WEIGHTS
    try:
        made_with = _read_report(folder)["made_with"]["weights"]
        return any(made_with == hash_of(weights) for hash_of in (content_hash, file_hash))  # the latter: as once
    except (HiptrackError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return False  # a damaged report is written anew by the evaluation


def is_on_test_data(folder: Path) -> bool:
    """Whether the start of a run warned that its validation is. Raises DataError for a damaged warnings.json."""
    return SELECTION in _read_json(folder / WARNINGS)


def newest_config(folder: Path) -> dict[str, str]:
    """{name: value} of a run's newest config-N.gin, {} where there is none. Raises ConfigError for a damaged one."""
    return _texts(_newest_bindings(folder))


def _newest_bindings(folder: Path) -> dict[Key, object]:
    path = _newest(folder, "config", ".gin")
    return {} if path is None else {binding.key: binding.value for binding in read_file(str(path.absolute()))}


def _texts(bindings):
    return {label(key): format_value(value) for key, value in bindings.items()}


def _newest(folder, stem, suffix):
    """The last of stem.suffix, stem-2.suffix, ..., or None."""
    pattern = re.compile(rf"{stem}(?:-(\d+))?{re.escape(suffix)}")
    found = {int(match[1] or 1): path for path in folder.glob("*") if (match := pattern.fullmatch(path.name))}
    return found[max(found)] if found else None


def _last_step(curves):
    return max((points[-1][0] for points in curves.values()), default=None)


def _results(values):
    named = {name if name in RESULTS else name.replace("_", " "): value for name, value in values.items()}
    return {name: named[name] for name in RESULTS if named.get(name) is not None}


def _validation(curves):
    """(numbers, source) of the last validation."""
    prefix = "Validation/"
    last = {name.removeprefix(prefix): points[-1][1] for name, points in curves.items() if name.startswith(prefix)}
    values = _results(last)
    return values, "validation" if values else ""


def _read_report(folder):
    return json.loads(read_text(folder / REPORT, MAX_BYTES))


def _evaluation(folder):
    """(numbers, source, tracking, by challenge, state) of evaluation/report.json, all empty where there is none."""
    path = folder / REPORT
    if not path.exists():
        return {}, "", {}, {}, ""
    try:
        report = _read_report(folder)
        metrics = report.get("metrics", RESULTS)  # an older hiptrack names none
        parts = (report["classification"], report.get("multi_label"))
        numbers = {name: value for name, value in (report["overall"] or {}).items() if name in metrics}
        numbers = _results({name: value for part in (numbers, *parts) for name, value in (part or {}).items()})
        numbers = {name: _finite(value) for name, value in numbers.items()}
        if not numbers:  # frames without ground truth
            return {}, "", {}, {}, ""
        by_challenge = {
            name: {
                **{count: int(row[count]) for count in ("frames", "sequences")},
                **{metric: _finite(row[metric]) for metric in metrics},
            }
            for name, row in (report.get("by_challenge") or {}).items()
        }
        numbers["frames/s"] = _finite(report["speed"]["fps_model"])
        made_with = report.get("made_with", {"data": "unknown", "tracking": {}})  # of an older hiptrack
        frames = sum(sequence["frames"] for sequence in report["sequences"].values())
        source = f"evaluation ({len(report['sequences'])} sequences, {frames} frames, data {made_with['data'][:8]})"
        if not report["complete"]:
            state = "evaluation incomplete"
        elif "weights" not in made_with:
            state = "evaluation of unknown weights"
        else:
            state = "" if is_evaluated(folder) else "evaluation of other weights"
        tracking = {name: str(value) for name, value in made_with["tracking"].items()}
        return numbers, source, tracking, by_challenge, state
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DataError(
            f"{path} is no report of hiptrack eval: {excerpt(repr(error))}. Move it away, or evaluate again."
        ) from error


def _finite(value):
    """A number of a report, or None; ValueError for anything else, NaN included."""
    if value is None:
        return None
    if type(value) not in (int, float) or not abs(value) < 1e300:
        raise ValueError(f"{value!r} is no finite number")
    return float(value)


def _seconds_per_step(curves):
    reading, computing = curves.get("Time/data", []), curves.get("Time/compute", [])
    return median(a + b for (_, a), (_, b) in zip(reading, computing)) if reading and computing else None


def _versions(folder):
    path = _newest(folder, "versions", ".json")
    return {} if path is None else _read_json(path)


def _read_json(path):
    """The object in a file of a run's folder; {} where there is no file."""
    try:
        return dict(json.loads(read_text(path, MAX_BYTES)))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {excerpt(str(error))}. Move it away.") from error


SEED = "train.seed"
_MOST = 40  # characters of a value in a file name


def short_names(labels: Sequence[str]) -> dict[str, str]:
    """Each label and its parameter alone (ChallengeLoss.weight: weight); the label itself where two end alike."""
    ends = [label.rpartition(".")[2] for label in labels]
    return {label: end if ends.count(end) == 1 else label for label, end in zip(labels, ends)}


def value_names(texts: Sequence[str]) -> list[str]:
    """What the values of an axis, as gin text, are called in file names: different, short, of harmless characters."""
    plain = [re.sub(r"[^\w.+-]+", "+", re.sub(r"""[@%()\[\]{}'"\s]""", "", text), flags=re.ASCII) for text in texts]
    return [
        name if 0 < len(name) <= _MOST and plain.count(name) == 1 else _with_digest(name, text, _MOST)
        for name, text in zip(plain, texts)
    ]


def shortened(name: str, text: str, most: int) -> str:
    """The name; where it is longer than `most`, its beginning and a digest of the text that it stands for."""
    return name if len(name) <= most else _with_digest(name, text, most)


def _with_digest(name, text, most):
    return f"{name[: most - 10]}~{hashlib.sha256(encoded(text)).hexdigest()[:8]}"
