"""Set a tracker beside OpenCV's and a box that keeps still: `make compare-opencv ROOT=data/got10k/val`."""

import argparse
import tempfile
from pathlib import Path

from hiptrack.cli.options import add_checkpoint
from hiptrack.data.folders import FolderDataset
from hiptrack.nano import FOLDER, checkpoint_name, checkpoint_path

CONTRIB = ("KCF", "CSRT")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="folder of sequences: images and groundtruth.txt in one folder each")
    what = "weights file (.safetensors) or tracker's folder; by default nano, which comes with the package"
    add_checkpoint(parser, what, FOLDER, checkpoint_path)
    parser.add_argument(
        "--python", required=True, type=Path, metavar="FILE", help="an interpreter that has opencv-contrib-python 4"
    )
    args = parser.parse_args()

    from hiptrack.evaluation.baselines import MIL, StillBox, evaluate_contrib
    from hiptrack.evaluation.score import evaluate_sequences
    from hiptrack.evaluation.table import compare_table
    from hiptrack.tracking.tracker import Tracker, parts_of

    dataset = FolderDataset(args.root)
    weights_file, settings = parts_of(args.checkpoint)
    tracker = Tracker.from_checkpoint(weights_file, **settings)
    with tempfile.TemporaryDirectory() as folder:
        contrib = {name: evaluate_contrib(name, args.python, dataset, Path(folder, name)) for name in CONTRIB}
    reports = {
        "still box": evaluate_sequences(StillBox(), dataset.sequences),
        "MIL": evaluate_sequences(MIL(), dataset.sequences),
        **contrib,
        checkpoint_name(args.checkpoint): evaluate_sequences(tracker, dataset.sequences),
    }
    print(compare_table(reports))
    return int(any(report.failures for report in reports.values()))
