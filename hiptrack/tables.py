"""Tables of results as CSV, Markdown, LaTeX or aligned text. pandas, which is slow to load, is loaded when a table is made."""

import csv
import io
import math
from collections.abc import Iterable, Sequence

from hiptrack.screen import shown

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        # At the start of a line both would be taken for arguments of the command that ends the line before it.
        "[": "{[}",
        "*": "{*}",
    }
)


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
    lines = [[shown(" ".join(str(cell).split())).replace("|", "\\|") for cell in row] for row in (columns, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], ["---"] * len(columns), *lines[1:]))


def as_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns, two spaces apart: numbers to the right, the first column and those without a number to the left.

    A cell is one line of characters that can be seen (`screen.shown`).
    """
    aligned = []
    for place, column in enumerate(zip(columns, *rows)):
        cells = [shown(cell) for cell in column]
        width = max(map(len, cells))
        has_number = any(cell.lstrip("+-.")[:1].isdigit() for cell in cells[1:])
        aligned.append([cell.rjust(width) if place and has_number else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*aligned))


def as_latex(columns: Sequence[str], blocks: Iterable[Sequence[Sequence[object]]], best: Sequence[str] = ()) -> str:
    """A tabular of the package booktabs, for `\\input` in a document, with a rule between the blocks of rows.

    Text is escaped. The first column and those with text are aligned to the left, those of numbers ("-": none) to the
    right. best: the columns whose highest number is bold in each block, unless all of its numbers are equal. The number
    of a cell "0.540 ± 0.046" is its mean.
    """
    blocks = [[[str(cell) for cell in row] for row in block] for block in blocks]
    cells = list(zip(columns, *(row for block in blocks for row in block)))
    numeric = [
        place > 0 and all(cell == "-" or _number(cell) is not None for cell in column[1:])
        for place, column in enumerate(cells)
    ]
    bold = [place for place, name in enumerate(columns) if name in best]
    lines = [
        f"\\begin{{tabular}}{{{''.join('r' if right else 'l' for right in numeric)}}}",
        r"\toprule",
        _latex_line(map(_latex, columns)),
    ]
    for block in blocks:
        highest = {place: _highest([row[place] for row in block]) for place in bold}
        lines.append(r"\midrule")
        for row in block:
            texts = [_latex(cell) for cell in row]
            for place, most in highest.items():
                if most is not None and _number(row[place]) == most:
                    texts[place] = f"\\textbf{{{texts[place]}}}"
            lines.append(_latex_line(texts))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex(cell):
    return shown(" ".join(str(cell).split())).translate(LATEX)


def _latex_line(texts):
    return " & ".join(texts) + r" \\"


def _highest(cells):
    """The highest number of some cells, None where fewer than two differ."""
    numbers = {_number(cell) for cell in cells} - {None}
    return max(numbers) if len(numbers) > 1 else None


def _number(cell):
    """The number that a cell begins with, or None."""
    try:
        number = float(cell.partition(" ± ")[0])
    except ValueError:
        return None
    return number if math.isfinite(number) else None
