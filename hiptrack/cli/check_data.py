"""Check a data set's images and boxes before they are trained on: `hiptrack check-data data/got10k --split train`."""

import argparse
import logging
import sys

from hiptrack.cli.options import add_sequences
from hiptrack.data.benchmarks import BENCHMARKS, open_benchmark
from hiptrack.data.detection import DETECTION


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", metavar="ROOT", help="folder of the data set")
    parser.add_argument("--dataset", choices=[*BENCHMARKS, *DETECTION], default="got10k", help="layout of the data")
    parser.add_argument("--split", help="train, val, test or another; without it as for hiptrack eval")
    add_sequences(parser)
    args = parser.parse_args()

    from tqdm import tqdm

    from hiptrack.data.image_report import check_images
    from hiptrack.files import excerpt

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    dataset = open_benchmark(args.dataset, args.root, args.split, None, args.include, args.exclude)
    report = check_images(dataset, lambda problem: tqdm.write(excerpt(problem, 1000), file=sys.stdout))
    print(report)
    return 1 if report.problems else 0
