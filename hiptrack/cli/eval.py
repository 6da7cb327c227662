"""Evaluate a checkpoint: `python tools/eval.py --checkpoint runs/demo/model.safetensors --root data/got10k --split val`."""

import argparse
import logging
from pathlib import Path

from hiptrack import config
from hiptrack.data.benchmarks import BENCHMARKS, open_benchmark
from hiptrack.errors import DataError
from hiptrack.evaluation.evaluate import EvaluationOptions, evaluate
from hiptrack.evaluation.submission import SUBMISSION, expected_of, write_submission
from hiptrack.evaluation.table import format_table
from hiptrack.extras.report.write import write_report
from hiptrack.processes import on_main
from hiptrack.tracking.checkpoints import checkpoint_name, checkpoint_path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    config.add_arguments(parser)
    parser.add_argument(
        "--checkpoint",
        required=True,
        type=checkpoint_path,
        help="weights file (.safetensors), tracker's folder, or nano",
    )
    parser.add_argument(
        "--dataset", choices=BENCHMARKS, default="got10k", help="layout of the data, and the benchmark's own metrics"
    )
    parser.add_argument("--root", required=True, help="folder of the data set")
    parser.add_argument(
        "--split",
        help="train, val or test; without it test, or for got10k, folder and tnl2k the sequences in the root itself",
    )
    parser.add_argument("--annotations", help="folder of challenge annotations, to report the branch's accuracy")
    parser.add_argument("--out", type=Path, help="folder for the result files")
    args = config.parse_args(parser)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config.load(["gin/eval/tracker.gin", *args.gin], args.overrides, root="evaluate")
    dataset = open_benchmark(args.dataset, args.root, args.split, args.annotations)
    if args.annotations and not dataset.labelled_frames:
        raise DataError(
            f"{args.annotations} annotates no frame of {dataset.name}. Expected a folder of <sequence>/<sequence>.jsonl files, or no "
            "--annotations."
        )
    found = evaluate(EvaluationOptions(args.checkpoint, dataset, args.out))
    # the others wait: the first to exit with 1 has all of them killed
    on_main(found.accelerator, lambda: show(found, args.checkpoint, dataset), f"The report in {found.folder}")
    found.accelerator.end_training()
    return 1 if found.report.failures else 0


def show(found, checkpoint, dataset):
    """Print an Evaluation's table and write its page; for a test split that a server scores, the zip to hand in too."""
    print(format_table(found.report))
    write_report({checkpoint_name(checkpoint): found.report}, found.sequences, found.folder, dataset.name)
    print(f"results: {found.folder} (report.html shows them)")
    if dataset.is_handed_in and not found.report.failures:
        write_submission(found.folder, expected_of(found.sequences), found.folder / SUBMISSION)
        print(f"to hand in: {found.folder / SUBMISSION}")
