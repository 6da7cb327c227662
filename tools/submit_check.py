"""Check a zip before it is handed in to GOT-10k's server: `python tools/submit_check.py submission.zip --root data/got10k`."""

import argparse
from pathlib import Path

from hiptrack.config import run_main
from hiptrack.data.sequences import FolderDataset
from hiptrack.tracking.submission import Expected, check_zip, listed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zip", type=Path)
    parser.add_argument("--root", help="folder of the data: also check names, frame counts and first boxes against it")
    parser.add_argument("--split", default="test", help="split below --root (test)")
    args = parser.parse_args()
    expected = None
    if args.root:
        sequences = FolderDataset(args.root, args.split).sequences
        expected = {s.name: Expected(len(s), tuple(s.boxes_xywh[0])) for s in sequences}
    problems = check_zip(args.zip, expected)
    if problems:
        print(f"{args.zip}: {len(problems)} problems:{listed(problems, 50)}")
        return 1
    print(f"{args.zip}: in order" + ("" if args.root else " in itself (--root checks it against the data, too)"))
    return 0


if __name__ == "__main__":
    run_main(main)
