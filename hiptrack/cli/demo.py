"""The whole job on data the project makes itself: sequences, the branch trained in two stages on nano, evaluation beside baselines."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from hiptrack.data.sequences import FolderDataset
from hiptrack.data.synthetic import write_dataset
from hiptrack.errors import HiptrackError
from hiptrack.report.write import write_report
from hiptrack.tracking.baselines import MIL, StillBox
from hiptrack.tracking.demo_report import describe, picture_of, table
from hiptrack.tracking.evaluate import evaluate_sequences
from hiptrack.tracking.pictures import plot_curves
from hiptrack.tracking.tracker import Tracker
from hiptrack.training.log import read_metrics

SPLITS = {"train": (120, 40), "val": (6, 60), "heldout": (24, 60)}  # sequences, frames
SIZE, SEED = (320, 240), 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--data", type=Path, default=Path("data/synthetic"))
    args = parser.parse_args()

    print(f"making synthetic sequences in {args.data}", flush=True)
    for split, (sequences, frames) in SPLITS.items():
        write_dataset(str(args.data), split, sequences, frames, SIZE, SEED)
    annotations = args.data / "annotations"
    train(args.run, f"DATA_ROOT={args.data}", f"ANNOTATIONS={annotations}")

    print("tracking the held-out sequences", flush=True)
    heldout = FolderDataset(str(args.data), "heldout", str(annotations)).sequences
    weights = args.run / "model.safetensors"
    trackers = {
        f"HIPTrack, branch {branch}": Tracker.from_checkpoint(weights, branch=branch)
        for branch in ("on", "off", "folded")
    }
    reports = {
        name: evaluate_sequences(tracker, heldout)
        for name, tracker in {
            **trackers,
            "nano, as it came": Tracker.nano(),
            "MIL": MIL(),
            "still box": StillBox(),
        }.items()
    }
    failures = [failure for report in reports.values() for failure in report.failures]
    if failures:
        raise HiptrackError(
            f"{len(failures)} sequences could not be tracked; the first is {failures[0][0]}: {failures[0][1]}"
        )
    on = reports["HIPTrack, branch on"]
    print(table(reports))
    print(describe(on.classification))
    picture_of(heldout, on, args.run / "sheet.png")
    write_report(reports, heldout, args.run, "held-out synthetic sequences")
    plot_curves(read_metrics(args.run), args.run / "curves.png")
    print(f"report: {args.run}/report.html; pictures: sheet.png, success.png, curves.png; weights: {weights}")
    return 0


def train(run, *overrides):
    """The training run, as a user would start it. Raises HiptrackError when it fails."""
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.accelerate_cli",
        "launch",
        "--num_processes",
        "1",
        "--num_machines",
        "1",
    ]
    launch += ["--num_cpu_threads_per_process", str(os.cpu_count())]  # the launcher's default is one
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "hiptrack.cli", "train"]
    code = subprocess.call([*launch, "--gin", "experiments/demo.gin", "--run", str(run), *overrides])
    if code:
        raise HiptrackError(f"the training run failed (exit code {code}); its message stands above.")
