"""Check a zip before it is handed in to a benchmark's server: `hiptrack submit-check submission.zip --root data/got10k`."""

import argparse
from pathlib import Path

from hiptrack.cli.options import add_sequences
from hiptrack.data.benchmarks import open_benchmark
from hiptrack.errors import ConfigError
from hiptrack.evaluation.submission import FORMS, check_zip, expected_of, listed
from hiptrack.screen import shown


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zip", type=Path)
    parser.add_argument("--dataset", choices=FORMS, default="got10k", help="whose server (got10k)")
    parser.add_argument("--root", help="folder of the data: also check names, frame counts and first boxes against it")
    parser.add_argument("--split", default="test", help="split below --root (test)")
    add_sequences(parser)
    args = parser.parse_args()
    if not args.root and (args.include or args.exclude):
        raise ConfigError("--include and --exclude choose sequences of the data at --root, which is missing.")
    expected = None
    if args.root:
        expected = expected_of(
            open_benchmark(args.dataset, args.root, args.split, None, args.include, args.exclude).sequences
        )
    problems = check_zip(args.zip, FORMS[args.dataset], expected)
    if problems:
        print("\n  ".join(map(shown, [f"{args.zip}: {len(problems)} problems:", *listed(problems, 50)])))
        return 1
    print(f"{shown(args.zip)}: in order" + ("" if args.root else " in itself (--root checks it against the data, too)"))
    return 0
