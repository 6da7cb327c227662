"""The result of a benchmark: rows as a table for the terminal, as Markdown, and as JSON.

`python -m hiptrack.benchmark.table FILE.json` prints the Markdown of a result that `--json` wrote.

A row is a dict {column: text, number or None}; the columns of a table are all names that its rows have, in order of first appearance.
A result is {"benchmark": name, "machine": describe_machine(), "settings": {...}, "rows": [...]}.
"""

import json
import sys
from pathlib import Path

from hiptrack.errors import HiptrackError
from hiptrack.files import write_atomically


def shown(value):
    """A value as a table shows it: numbers with three digits."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def columns_of(rows):
    """All column names of some rows."""
    return list(dict.fromkeys(name for row in rows for name in row))


def format_rows(rows):
    """A table for the terminal."""
    names = columns_of(rows)
    lines = [names, *([shown(row.get(name)) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(rows):
    """A table for docs/."""
    names = columns_of(rows)
    lines = [names, ["---"] * len(names), *([shown(row.get(name)) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_result(result):
    """Machine, settings and rows as text."""
    said = {**result["machine"], **result["settings"]}
    width = max(map(len, said))
    return "\n".join(
        [*(f"{name:<{width}}  {shown(value)}" for name, value in said.items()), "", format_rows(result["rows"])]
    )


def write_result(result, path):
    """Write a result as JSON, whole or not at all. Raises HiptrackError where it cannot be written."""
    try:
        write_atomically(Path(path), (json.dumps(result, indent=2, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise HiptrackError(f"{path} cannot be written: {error} (--json: a file)") from error


def main():
    print(markdown(json.loads(Path(sys.argv[1]).read_text())["rows"]))


if __name__ == "__main__":
    main()
