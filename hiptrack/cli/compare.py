"""Set runs side by side: `hiptrack compare runs/sweep-demo`, or the folders of several runs."""

import argparse
from pathlib import Path

from hiptrack.cli.extras import with_extras


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folder of a run or of a sweep")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="for compare.csv, .md, .tex and .png (default: the sweep, or beside the first run)",
    )
    args = parser.parse_args()

    import hiptrack.training.train  # noqa: F401  registers the names in the runs' configurations
    from hiptrack.extras.sweep.compare import as_text, compare, read_runs, write
    from hiptrack.extras.sweep.plan import PLAN

    runs, idle, left_out = with_extras(read_runs, args.runs)
    comparison = compare(runs, idle, left_out)
    first = args.runs[0]
    out = args.out or (first if (first / PLAN).exists() else first.absolute().parent)
    files = write(comparison, out)
    print(as_text(comparison))
    print(f"written: {', '.join(files)} in {out}")
    return 1 if left_out else 0
