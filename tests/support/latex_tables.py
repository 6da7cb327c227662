"""Reads the LaTeX tables that hiptrack writes, strictly: whatever is not escaped or does not fit the columns fails."""

import re

WORDS = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">"}
WORDS["textbar"] = "|"
TOKEN = re.compile(r"\\(text[a-z]+)\{\}|\\([&%$#_{}])|\{([\[*])\}|(\$\\pm\$)|([^\\&%$#_{}~^<>|\[*±])")


def read_latex(text):
    """(alignments, blocks of rows of (text, whether it is bold), the head first) of one tabular of booktabs."""
    first, *lines, last = text.removesuffix("\n").split("\n")
    alignments = re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", first)[1]
    assert last == r"\end{tabular}" and lines[0] == r"\toprule" and lines[-1] == r"\bottomrule"
    blocks = [[]]
    for line in lines[1:-1]:
        if line == r"\midrule":
            blocks.append([])
            continue
        cells = re.split(r"(?<!\\)&", line.removesuffix(r" \\"))
        assert line.endswith(r" \\") and len(cells) == len(alignments), line
        blocks[-1].append([_read_cell(cell.strip()) for cell in cells])
    assert all(blocks)
    return alignments, blocks


def _read_cell(cell):
    bold = re.fullmatch(r"\\textbf\{(.*)\}", cell)
    cell = bold[1] if bold else cell
    assert re.fullmatch(f"(?:{TOKEN.pattern})*", cell), cell
    found = (match.groups() for match in TOKEN.finditer(cell))
    text = "".join(
        WORDS[word] if word else "±" if pm else sign or guarded or plain for word, sign, guarded, pm, plain in found
    )
    return text, bool(bold)


def plain_rows(text):
    """The rows of a table as lists of texts, the head first."""
    return [[cell for cell, _ in row] for block in read_latex(text)[1] for row in block]


def bold_cells(text):
    """{(row, column): text} of what is bold, rows from 0 without the head."""
    rows = [row for block in read_latex(text)[1] for row in block][1:]
    return {(y, x): cell for y, row in enumerate(rows) for x, (cell, bold) in enumerate(row) if bold}
