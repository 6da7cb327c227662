"""Evaluate a checkpoint: `hiptrack eval --checkpoint runs/demo/model.safetensors --root data/got10k --split val`."""

import argparse
import logging
from pathlib import Path

from hiptrack import config
from hiptrack.cli.options import add_benchmark, add_checkpoint, attribute_sequences
from hiptrack.data.benchmarks import open_benchmark
from hiptrack.nano import checkpoint_name, checkpoint_path
from hiptrack.screen import shown


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    config.add_arguments(parser)
    add_checkpoint(parser, "weights file (.safetensors), tracker's folder, or nano", path=checkpoint_path)
    add_benchmark(
        parser, annotations="folder of challenge annotations: results by challenge, and the branch's accuracy"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the result files")
    args = config.parse_args(parser)
    choice = attribute_sequences(args)

    from hiptrack.evaluation.evaluate import EvaluationOptions, evaluate
    from hiptrack.processes import on_main

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config.load([config.packaged("gin/eval/tracker.gin"), *args.gin], args.overrides, root="evaluate")
    dataset = open_benchmark(args.dataset, args.root, args.split, args.annotations, args.include, args.exclude)
    found = evaluate(EvaluationOptions(args.checkpoint, dataset, args.out, choice))
    # the others wait: the first to exit with 1 has all of them killed
    on_main(
        found.accelerator, lambda: show(found, args.checkpoint, dataset, args.dataset), f"The report in {found.folder}"
    )
    found.accelerator.end_training()
    return 1 if found.report.failures else 0


def show(found, checkpoint, dataset, benchmark):
    """Write an Evaluation's page, and for a test split that a server scores the zip to hand in; then print its table."""
    from hiptrack.evaluation.submission import FORMS, SUBMISSION, expected_of, write_submission
    from hiptrack.evaluation.table import format_table
    from hiptrack.extras.report.write import left_out, write_report

    reports = {checkpoint_name(checkpoint): found.report}
    files = write_report(reports, found.sequences, found.folder, dataset.name)
    is_handed_in = benchmark in FORMS and dataset.split == "test" and not found.report.failures
    if is_handed_in:
        write_submission(found.folder, expected_of(found.sequences), found.folder / SUBMISSION, FORMS[benchmark])
    print(format_table(found.report))
    print(f"{left_out(reports, files)}results: {shown(found.folder)} (report.html shows them)")
    if is_handed_in:
        print(f"to hand in: {shown(found.folder / SUBMISSION)}")
