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
    """A table of Markdown (GitHub's form); a bar inside a cell is escaped."""
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in (columns, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], ["---"] * len(columns), *lines[1:]))


def as_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns, two spaces apart: the first to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in (columns, *rows)]
    first, *others = (max(map(len, column)) for column in zip(*lines))
    return "\n".join(
        "  ".join([line[0].ljust(first), *(cell.rjust(width) for cell, width in zip(line[1:], others))])
        for line in lines
    )
