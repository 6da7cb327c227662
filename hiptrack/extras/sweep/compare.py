"""Runs set side by side: what differs between them, and means and spreads over seeds."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from matplotlib.figure import Figure

from hiptrack import tables
from hiptrack.errors import ConfigError, DataError, HiptrackError, NotFoundError, nearest
from hiptrack.extras.sweep.challenges import ChallengeTable, by_challenge, with_spread
from hiptrack.extras.sweep.plan import PLAN, read_plan
from hiptrack.extras.sweep.records import (
    EVALUATION,
    ON_TEST_DATA,
    RESULTS,
    SPEEDS,
    UNBOUND,
    RunRecord,
    read_run,
    short_names,
)
from hiptrack.files import encoded, excerpt, write_atomically
from hiptrack.pictures import chart_style
from hiptrack.screen import shown
from hiptrack.training.log import METRICS, number_or_text


@dataclass(frozen=True)
class Variant:
    """Runs that differ in the seed alone; values: {name: gin text} of the bindings that differ between the variants.

    Of the settings of an evaluation the name begins with "evaluation: ".
    """

    values: dict[str, str]
    runs: list[RunRecord]

    @property
    def source(self) -> str:
        return self.runs[0].source

    @property
    def state(self) -> str:
        """What is unfinished or out of date; "" for nothing."""
        return self.runs[0].state

    def numbers(self, name: str) -> list[float]:
        """The number of this name of each run; [] unless all of them have it."""
        found = [run.numbers[name] for run in self.runs if name in run.numbers]
        return found if len(found) == len(self.runs) else []

    def mean(self, name: str) -> float | None:
        numbers = self.numbers(name)
        return mean(numbers) if numbers else None

    def spread(self, name: str) -> float | None:
        """Sample standard deviation over the runs; None below two."""
        numbers = self.numbers(name)
        return stdev(numbers) if len(numbers) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """The variants, best first; names of the bindings that differ and of the numbers there are; what must be told.

    by_challenge: of those whose evaluation is complete and up to date; None where they have no such numbers.
    """

    variants: list[Variant]
    bindings: list[str]
    numbers: list[str]
    notes: list[str]
    by_challenge: ChallengeTable | None


def read_runs(paths: Sequence[Path]) -> tuple[list[RunRecord], list[str], list[str]]:
    """(the runs in folders of runs and of sweeps, each once; the planned runs that have logged nothing yet; why others,
    which are damaged, are left out).

    Raises NotFoundError for a folder that is missing, DataError for one that holds no run, and what is wrong with the first
    damaged run where there is no other.
    """
    records, idle, damaged = {}, [], []
    for path in paths:
        if not path.is_dir():
            close = nearest(path.name, (folder.name for folder in path.absolute().parent.glob("*") if folder.is_dir()))
            hint = f'; the nearest folder there is "{close}"' if close else ""
            raise NotFoundError(f"not found: {path} (the folder of a run or a sweep){hint}.", str(path))
        planned = list(read_plan(path).runs) if (path / PLAN).exists() else None
        for folder in [path] if planned is None else [path / name for name in planned]:
            try:
                record = read_run(folder) if folder.is_dir() else None
            except (ConfigError, DataError) as error:
                damaged.append(error)
                continue
            if record is not None:
                records[folder.resolve()] = record
            elif planned is not None:
                idle.append(folder.name)
            else:
                raise DataError(
                    f"{folder} is no folder of a run that has logged something ({METRICS} beside config.gin), nor of a sweep "
                    f"({PLAN})."
                )
    if damaged and not records:
        raise damaged[0]
    return list(records.values()), idle, [f"left out: {error}" for error in damaged]


def compare(runs: Sequence[RunRecord], idle: Sequence[str] = (), left_out: Sequence[str] = ()) -> Comparison:
    """Set runs side by side, sorted by the first of RESULTS that a finished run has; those without it come last.

    idle: names of runs that have logged nothing; left_out: lines on others.

    Runs that differ in the seed alone are one variant; an unfinished run is one of its own.
    Raises DataError for no runs, and where none has a result.
    """
    finished = [run for run in runs if not run.state]
    found = (name for some in (finished, runs) for name in RESULTS if any(name in run.numbers for run in some))
    first = next(found, None)
    if first is None:
        has = "none of the runs has a result" if runs else "there are no runs yet"
        raise DataError(
            f"{has}, of {', '.join(RESULTS)}. Train with a validation (train.validation), or evaluate each run into its own "
            "folder: hiptrack sweep --evaluate, or hiptrack eval --out RUN/evaluation."
        )
    names = sorted({name for run in runs for name in run.bindings})
    different = [name for name in names if len({run.value(name) for run in runs}) > 1]
    tracked = _tracked_otherwise(runs)
    columns = [*different, *(f"{EVALUATION}: {name}" for name in tracked)]
    groups: dict[tuple, list[RunRecord]] = {}
    for run in runs:
        values = (*map(run.value, different), *(run.tracking.get(name, UNBOUND) for name in tracked))
        groups.setdefault((values, run.source, run.state and run.folder), []).append(run)
    variants = [Variant(dict(zip(columns, values)), group) for (values, _, _), group in groups.items()]
    variants.sort(key=lambda variant: -variant.mean(first) if variant.numbers(first) else 1)
    shown = [name for name in (*RESULTS, *SPEEDS) if any(variant.numbers(name) for variant in variants)]
    shown.sort(key=lambda name: name != first)
    short = short_names(columns)
    table, told = by_challenge([(_told(variant, short), variant.runs) for variant in variants if not variant.state])
    return Comparison(variants, columns, shown, [*_notes(variants, idle, tracked), *told, *left_out], table)


def _tracked_otherwise(runs):
    """Names of what differs between the evaluations, save where it differs just as the runs' own configurations do."""
    runs = [run for run in runs if run.tracking]
    names = sorted({name for run in runs for name in run.tracking})
    different = [name for name in names if len({run.tracking.get(name) for run in runs}) > 1]
    return [name for name in different if any(run.tracking.get(name, UNBOUND) != run.value(name) for run in runs)]


def _notes(variants, idle, tracked):
    notes = []
    if idle:
        notes.append(f"nothing logged yet: {'; '.join(idle)}")
    if tracked:
        notes.append(f"the evaluations do not track alike: {', '.join(tracked)}")
    tested = [str(run.folder) for variant in variants for run in variant.runs if run.source == ON_TEST_DATA]
    if tested:
        notes.append(f"their validation is on test data, by which nothing should be chosen: {'; '.join(tested)}")
    sources = sorted({variant.source for variant in variants if variant.source})
    if len(sources) > 1:
        notes.append(f"the results are not of the same frames: {'; '.join(sources)}")
    for variant in variants:
        for seed, count in Counter(run.seed for run in variant.runs).items():
            if count > 1:
                same = "; ".join(str(run.folder) for run in variant.runs if run.seed == seed)
                notes.append(f"the same configuration and seed {seed}: {same}")
    runs = [run for variant in variants for run in variant.runs]
    for name in sorted({name for run in runs for name in run.versions}):
        counts = Counter(str(run.versions.get(name, "unknown")) for run in runs)
        if len(counts) > 1:
            notes.append(f"{name} differs: {', '.join(f'{value} ({n} runs)' for value, n in counts.most_common())}")
    return notes


MOST_ROWS = 60  # of the picture
_WIDE = 50  # characters of a cell


def rows(comparison: Comparison) -> list[list[str]]:
    """The table, head first: bindings that differ (else the runs' names), number of runs, numbers, source, state."""
    short = short_names(comparison.bindings)
    head = [short[name] for name in comparison.bindings] or ["run"]
    table = [[*head, "n", *comparison.numbers, "results of", "state"]]
    for variant in comparison.variants:
        first = [excerpt(value, _WIDE) for value in variant.values.values()] or [_run_names(variant)]
        numbers = [_number(variant, name) for name in comparison.numbers]
        table.append([*first, str(len(variant.runs)), *numbers, variant.source or "-", variant.state])
    return table if any(variant.state for variant in comparison.variants) else [line[:-1] for line in table]


def as_text(comparison: Comparison) -> str:
    """The table in aligned columns, the one by challenge, and the notes."""
    head, *body = rows(comparison)
    parts = [tables.as_text(head, body)]
    if comparison.by_challenge:
        parts += ["", tables.as_text(*comparison.by_challenge.lines()), ""]
    return "\n".join([*parts, *map(shown, comparison.notes)])


def as_markdown(comparison: Comparison) -> str:
    head, *body = rows(comparison)
    parts = [tables.as_markdown(head, body), "", "![the results](compare.png)", ""]
    if comparison.by_challenge:
        parts += [tables.as_markdown(*comparison.by_challenge.lines()), ""]
    return "\n".join([*parts, *(f"- {shown(note)}" for note in comparison.notes), ""])


def as_latex(comparison: Comparison) -> str:
    """The table for a paper; the best numbers are bold where all results are of the same frames."""
    head, *body = rows(comparison)
    alike = len({variant.source for variant in comparison.variants}) == 1
    return tables.as_latex(head, [body], [name for name in comparison.numbers if alike and name != "s/step"])


def as_csv(comparison: Comparison) -> str:
    """A line for each variant, with whole names and numbers; the spread of a number stands beside its mean."""
    names = [column for name in comparison.numbers for column in (name, f"{name} std")]
    lines = []
    for variant in comparison.variants:
        values = (None if value == UNBOUND else number_or_text(value) for value in variant.values.values())
        numbers = (value for name in comparison.numbers for value in (variant.mean(name), variant.spread(name)))
        runs = " ".join(str(run.folder) for run in variant.runs)
        lines.append([*values, len(variant.runs), *numbers, variant.source, variant.state, runs])
    return tables.as_csv([*comparison.bindings, "n", *names, "results of", "state", "runs"], lines)


def as_picture(comparison: Comparison) -> bytes:
    """PNG: the first number of each variant, with its spread, and of each run; the best on top."""
    with chart_style():
        buffer = io.BytesIO()
        _figure(comparison).savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def _figure(comparison):
    name, variants = comparison.numbers[0], [v for v in comparison.variants if v.numbers(comparison.numbers[0])]
    figure = Figure(figsize=(8, 1.2 + 0.4 * min(len(variants), MOST_ROWS)), layout="constrained")
    axes = figure.add_subplot()
    short = short_names(comparison.bindings)
    for place, variant in enumerate(variants[:MOST_ROWS]):
        colour = "tab:gray" if variant.state else "tab:blue"
        axes.errorbar(variant.mean(name), place, xerr=variant.spread(name), fmt="o", capsize=4, color=colour)
        axes.plot(variant.numbers(name), [place] * len(variant.runs), "|", color="black", markersize=7)
    axes.set_yticks(range(len(variants[:MOST_ROWS])), [_label(v, short) for v in variants[:MOST_ROWS]], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"{name}: mean and sample standard deviation; each run a stroke", fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    if len(variants) > MOST_ROWS:
        axes.set_title(f"the first {MOST_ROWS} of {len(variants)}", fontsize=8)
    return figure


def write(comparison: Comparison, folder: Path) -> list[str]:
    """Write compare.csv, .md, .tex and .png, and where there is a table by challenge, compare_by_challenge.csv and .tex.

    Returns the files' names. Raises HiptrackError where they cannot be written.
    """
    texts = {
        "compare.csv": as_csv(comparison),
        "compare.md": as_markdown(comparison),
        "compare.tex": as_latex(comparison),
    }
    if comparison.by_challenge:
        texts["compare_by_challenge.csv"] = comparison.by_challenge.as_csv()
        texts["compare_by_challenge.tex"] = comparison.by_challenge.as_latex()
    files = {name: encoded(text) for name, text in texts.items()} | {"compare.png": as_picture(comparison)}
    try:
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise HiptrackError(f"{folder} cannot be written: {error}; choose another folder with --out DIR.") from error
    return list(files)


def _number(variant: Variant, name: str) -> str:
    return with_spread(variant.mean(name), variant.spread(name), 1 if name == "frames/s" else 3)


def _run_names(variant: Variant) -> str:
    return excerpt(", ".join(run.folder.name for run in variant.runs), _WIDE)


def _label(variant: Variant, short: dict[str, str]) -> str:
    text = _told(variant, short, 30)
    return f"{text}\n{variant.state}" if variant.state else text


def _told(variant: Variant, short: dict[str, str], most: int | None = None) -> str:
    """What a variant is called: its values, each cut after `most` characters; without any the names of its runs."""
    told = ", ".join(f"{short[name]}={excerpt(value, most or len(value))}" for name, value in variant.values.items())
    return f"{told or _run_names(variant)} (n={len(variant.runs)})"
