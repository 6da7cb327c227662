"""The lines of the soak's table: what is tried, how often, and how it ended."""

import functools
import logging
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from soak import fuzz, kills

COLUMNS = ("", "tried", "right", "clear errors", "seconds", "")
CASES = {
    fuzz.fuzz_annotations: 5_000,
    fuzz.fuzz_overrides: 5_000,
    fuzz.fuzz_configurations: 2_000,
    fuzz.fuzz_boxes: 3_000,
    fuzz.fuzz_crops: 5_000,
    fuzz.fuzz_sequences: 3_000,
    fuzz.fuzz_results: 3_000,
    fuzz.fuzz_weights: 1_000,
    fuzz.fuzz_checkpoints: 1_000,
    fuzz.fuzz_images: 1_200,
    fuzz.fuzz_names: 600,
    fuzz.fuzz_zips: 700,
    fuzz.fuzz_disks: 500,
    fuzz.fuzz_foreign: 300,
    fuzz.fuzz_streams: 500,
}


@dataclass(frozen=True)
class Line:
    """One line of the table, and what the killed were doing."""

    cells: tuple[str, ...]
    right: bool
    moments: Counter = field(default_factory=Counter)


def plan(ground, seed, until):
    """Lists of calls, each of which returns a Tally; the lists are for processes of their own."""
    one = [
        functools.partial(kills.kill_training, ground, 1, 27, seed, until),
        functools.partial(kills.kill_saves, ground, 12, seed, until),
        functools.partial(kills.kill_evaluation, ground, 22, seed, until),
        functools.partial(kills.kill_keeps, ground, 12, seed, until),
    ]
    two = [functools.partial(kills.kill_training, ground, 2, 24, seed, until)]
    return one, two, [functools.partial(fuzz_one, count, seed) for fuzz_one, count in CASES.items()]


def lines_of(calls):
    """Do the calls one after the other; returns their Lines, each of which is printed when it is there."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every resumed run
    lines = []
    for call in calls:
        lines.append(_line(call))
        print("  ".join(lines[-1].cells), flush=True)
    return lines


def _line(call):
    began = time.monotonic()
    try:
        tally = call()
    except AssertionError as error:
        print(f"{call.func.__name__}: {error}", file=sys.stderr, flush=True)
        return Line((call.func.__name__, "", "", "", f"{time.monotonic() - began:.0f}", "FAILED"), False)
    right = tally.right + tally.clear_errors == tally.tried
    numbers = (tally.tried, tally.right, tally.clear_errors, f"{time.monotonic() - began:.0f}")
    cells = (tally.name, *map(str, numbers), "" if right else "FAILED")
    return Line(cells, right, getattr(tally, "moments", Counter()))


def table(lines):
    """The lines below each other, and below them the moments of the kills."""
    rows = [COLUMNS, *(line.cells for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    aligned = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    for line in lines:
        if line.moments:
            moments = ", ".join(f"{moment} {number}" for moment, number in line.moments.most_common())
            aligned.append(f"{line.cells[0]}, at: {moments}")
    return "\n".join(aligned)
