"""A comparison as text, Markdown, CSV and a picture."""

import csv
import io
from pathlib import Path

from matplotlib.figure import Figure

from hiptrack.bounded import excerpt
from hiptrack.comparing.names import short_names
from hiptrack.comparing.table import Comparison, Variant
from hiptrack.errors import HiptrackError
from hiptrack.files import write_atomically

MOST_ROWS = 60  # of the picture
_WIDE = 50  # characters of a cell


def rows(comparison: Comparison) -> list[list[str]]:
    """The table, its head first: bindings that differ (the runs' names where none does), number of runs, numbers, source, state."""
    short = short_names(comparison.bindings)
    head = [short[name] for name in comparison.bindings] or ["run"]
    head += ["n", *comparison.numbers, "results of"]
    table = [head]
    for variant in comparison.variants:
        cells = [excerpt(value, _WIDE) for value in variant.values.values()] or [_run_names(variant)]
        cells += [
            str(len(variant.runs)),
            *(_number(variant, name) for name in comparison.numbers),
            variant.source or "-",
        ]
        table.append(cells)
    if any(variant.state for variant in comparison.variants):
        for line, state in zip(table, ["state", *(variant.state for variant in comparison.variants)]):
            line.append(state)
    return table


def as_text(comparison: Comparison) -> str:
    """The table in aligned columns, and the notes."""
    table = rows(comparison)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in table]
    return "\n".join([*lines, *comparison.notes])


def as_markdown(comparison: Comparison) -> str:
    """The table, the picture and the notes."""
    head, *body = ([cell.replace("|", "\\|") for cell in line] for line in rows(comparison))
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]
    return "\n".join([*lines, "", "![the results](compare.png)", "", *(f"- {note}" for note in comparison.notes), ""])


def as_csv(comparison: Comparison) -> str:
    """A line for each variant, with whole names and numbers; the spread of a number stands beside its mean."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [column for name in comparison.numbers for column in (name, f"{name} std")]
    writer.writerow([*comparison.bindings, "n", *names, "results of", "state", "runs"])
    for variant in comparison.variants:
        numbers = [value for name in comparison.numbers for value in (variant.mean(name), variant.spread(name))]
        runs = " ".join(str(run.folder) for run in variant.runs)
        writer.writerow([*variant.values.values(), len(variant.runs), *numbers, variant.source, variant.state, runs])
    return text.getvalue()


def as_picture(comparison: Comparison) -> bytes:
    """PNG: the first number of each variant, with its spread, and of each run; the best on top."""
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
        axes.set_title(f"the best {MOST_ROWS} of {len(variants)}", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def write(comparison: Comparison, folder: Path) -> None:
    """Write compare.csv, compare.md and compare.png. Raises HiptrackError where that cannot be done."""
    contents = {
        "compare.csv": as_csv(comparison).encode(),
        "compare.md": as_markdown(comparison).encode(),
        "compare.png": as_picture(comparison),
    }
    try:
        for name, content in contents.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise HiptrackError(f"{folder} cannot be written: {error}; choose another folder with --out DIR.") from error


def _number(variant: Variant, name: str) -> str:
    value, spread, digits = variant.mean(name), variant.spread(name), 1 if name == "frames/s" else 3
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _run_names(variant: Variant) -> str:
    return excerpt(", ".join(run.folder.name for run in variant.runs), _WIDE)


def _label(variant: Variant, short: dict[str, str]) -> str:
    told = ", ".join(f"{short[name]}={excerpt(value, 30)}" for name, value in variant.values.items())
    text = f"{told or _run_names(variant)} (n={len(variant.runs)})"
    return f"{text}\n{variant.state}" if variant.state else text
