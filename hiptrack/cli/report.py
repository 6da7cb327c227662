"""Set evaluations side by side on one page: `hiptrack report results/a results/b --root data/got10k --split val`."""

import argparse
from pathlib import Path

from hiptrack.cli.options import add_benchmark, attribute_sequences
from hiptrack.data.benchmarks import open_benchmark
from hiptrack.errors import ConfigError


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", metavar="RESULTS", nargs="+", type=Path, help="folders that hiptrack eval wrote")
    add_benchmark(parser, annotations="folder of challenge annotations: results by challenge")
    parser.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="folder of the files (report)")
    args = parser.parse_args()
    choice = attribute_sequences(args)

    from hiptrack.evaluation.score import read_back
    from hiptrack.evaluation.table import challenge_table, compare_table
    from hiptrack.extras.report.write import left_out, write_report

    dataset = open_benchmark(args.dataset, args.root, args.split, args.annotations, args.include, args.exclude)
    reports = {}
    for folder, name in zip(args.results, names_of(args.results), strict=True):
        if name in reports:
            raise ConfigError(f"{folder} is named twice.")
        reports[name] = read_back(folder, dataset, choice)
        if reports[name].taxonomy != next(iter(reports.values())).taxonomy:
            raise ConfigError(
                f"{folder} and {args.results[0]} have other classes ({', '.join(reports[name].taxonomy.classes)}; "
                f"{', '.join(next(iter(reports.values())).taxonomy.classes)}): they do not go into one report."
            )
    files = write_report(reports, dataset.sequences, args.out, dataset.name)
    print(compare_table(reports))
    if any(report.by_challenge for report in reports.values()):
        print(f"\n{challenge_table(reports)}")
    print(f"{left_out(reports, files)}written: {', '.join(files)} in {args.out}")
    return 0


def names_of(folders):
    """What tells the folders apart: their paths without the parts that all of them begin and end with."""
    if len(folders) == 1:
        return [folders[0].absolute().name for folder in folders]
    paths = [folder.absolute().parts for folder in folders]
    first = _common(paths)
    last = _common([path[first:][::-1] for path in paths])
    return ["/".join(path[first : len(path) - last]) or path[-1] for path in paths]


def _common(paths):
    """How many parts all paths begin with."""
    return next((place for place, parts in enumerate(zip(*paths)) if len(set(parts)) > 1), min(map(len, paths)))
