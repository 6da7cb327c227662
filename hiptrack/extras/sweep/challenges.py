"""Runs side by side by challenge: means and spreads over seeds of what their evaluations' reports say."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from hiptrack import tables
from hiptrack.evaluation.table import challenge_rows
from hiptrack.extras.sweep.records import RunRecord


def with_spread(value: float | None, spread: float | None, digits: int = 3) -> str:
    """A cell: mean ± spread; the mean alone where there is no spread, "-" where there is no mean."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


@dataclass(frozen=True)
class ChallengeTable:
    """rows: {variant: {class: {"frames", "sequences", number: (mean, sample standard deviation)}}}, over a variant's runs.

    numbers: the names of the numbers; (None, None) stands for a class without frames or sequences.
    """

    rows: dict[str, dict[str, dict]]
    numbers: list[str]

    def blocks(self):
        """(columns, blocks of rows) as `evaluation.table.challenge_rows` has them."""
        return challenge_rows(self.rows, self.numbers, lambda number: with_spread(*number))

    def lines(self):
        """The same as (columns, rows)."""
        columns, blocks = self.blocks()
        return columns, [row for block in blocks for row in block]

    def as_latex(self) -> str:
        """The table for a paper; the best variant of each class is bold."""
        return tables.as_latex(*self.blocks(), self.numbers if len(self.rows) > 1 else ())

    def as_csv(self) -> str:
        """A line for each variant and class, with whole numbers."""
        lines = [
            [variant, name, row["frames"], row["sequences"], *(cell for number in self.numbers for cell in row[number])]
            for variant, classes in self.rows.items()
            for name, row in classes.items()
        ]
        names = [column for number in self.numbers for column in (number, f"{number} std")]
        return tables.as_csv(["variant", "challenge", "frames", "sequences", *names], lines)


def by_challenge(variants: Sequence[tuple[str, Sequence[RunRecord]]]) -> tuple[ChallengeTable | None, list[str]]:
    """(the table of variants, each (what it is called, its runs); what must be told of it).

    None where no variant has such numbers, and where they are not of the same frames and sequences.
    """
    having = [(name, runs) for name, runs in variants if all(run.by_challenge for run in runs)]
    if not having:
        return None, []
    found = [run for _, runs in having for run in runs]
    if any(run.by_challenge.keys() != found[0].by_challenge.keys() for run in found):
        return None, ["no table by challenge: the evaluations have other classes"]
    if any(_counted(run) != _counted(found[0]) for run in found):
        note = "no table by challenge: the evaluations do not count the same frames and sequences; evaluate the runs on the same data"
        return None, [f"{note}, with the same --annotations and --attribute-sequences"]
    without = [name for name, runs in variants if not all(run.by_challenge for run in runs)]
    notes = [f"without numbers by challenge: {'; '.join(without)}"] if without else []
    numbers = list(next(iter(found[0].by_challenge.values())))[2:]
    return ChallengeTable({name: _means(runs, numbers) for name, runs in having}, numbers), notes


def _counted(run):
    """What two runs must have in common to stand in one table."""
    return run.source, {name: [*row, row["frames"], row["sequences"]] for name, row in run.by_challenge.items()}


def _means(runs, numbers):
    means = {}
    for name, first in runs[0].by_challenge.items():
        means[name] = {"frames": first["frames"], "sequences": first["sequences"]}
        for number in numbers:
            values = [run.by_challenge[name][number] for run in runs]
            if None in values:
                means[name][number] = (None, None)
            else:
                means[name][number] = (mean(values), stdev(values) if len(values) > 1 else None)
    return means
