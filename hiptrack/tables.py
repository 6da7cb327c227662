"""Tables of results as CSV, Markdown or aligned text. pandas, which is slow to load, is loaded when a table is made."""

import csv
import io
from collections.abc import Iterable, Sequence

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A head line and a line for each row; None is an empty cell.

    Text is quoted, numbers are not. A text that a spreadsheet would take for a formula, because it begins with one of
    FORMULA_STARTS, gets a `'` before it (OWASP, CSV Injection).
    """
    import pandas

    cells = [[_no_formula(cell) for cell in row] for row in rows]
    table = pandas.DataFrame(cells, columns=[_no_formula(name) for name in columns], dtype=object)
    text = io.StringIO()
    # Python before 3.13 leaves a lone carriage return unquoted where it quotes only what it must.
    table.to_csv(text, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    return text.getvalue()


def _no_formula(cell):
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell


def as_markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown (GitHub's form); a bar inside a cell is escaped, a line break a space."""
    lines = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in row] for row in (columns, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], ["---"] * len(columns), *lines[1:]))


def as_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns, two spaces apart: numbers to the right, the first column and those without a number to the left."""
    aligned = []
    for place, column in enumerate(zip(columns, *rows)):
        cells = [str(cell) for cell in column]
        width = max(map(len, cells))
        has_number = any(cell.lstrip("+-.")[:1].isdigit() for cell in cells[1:])
        aligned.append([cell.rjust(width) if place and has_number else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*aligned))
