"""Set a tracker beside OpenCV's and a box that keeps still: `hiptrack compare-opencv data/got10k/val`."""

import argparse

from hiptrack.cli.options import add_checkpoint, add_sequences
from hiptrack.data.benchmarks import open_benchmark
from hiptrack.nano import FOLDER, checkpoint_name, checkpoint_path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="folder of sequences: images and groundtruth.txt in one folder each")
    what = "weights file (.safetensors) or tracker's folder; by default nano, which comes with the package"
    add_checkpoint(parser, what, FOLDER, checkpoint_path)
    add_sequences(parser)
    args = parser.parse_args()

    from hiptrack.evaluation.baselines import MIL, OpenCVTracker, StillBox
    from hiptrack.evaluation.score import evaluate_sequences
    from hiptrack.evaluation.table import compare_table
    from hiptrack.tracking.tracker import Tracker, parts_of

    sequences = open_benchmark("folder", args.root, include=args.include, exclude=args.exclude).sequences
    weights_file, settings = parts_of(args.checkpoint)
    trackers = {
        "still box": StillBox(),
        "MIL": MIL(),
        "KCF": OpenCVTracker("KCF"),
        "CSRT": OpenCVTracker("CSRT"),
        checkpoint_name(args.checkpoint): Tracker.from_checkpoint(weights_file, **settings),
    }
    reports = {name: evaluate_sequences(tracker, sequences) for name, tracker in trackers.items()}
    print(compare_table(reports))
    return int(any(report.failures for report in reports.values()))
