"""The whole job on data the project makes itself: sequences, the branch trained in two stages on nano, evaluation beside baselines."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from hiptrack.config import packaged
from hiptrack.data.folders import FolderDataset
from hiptrack.data.reading import read_image_rgb
from hiptrack.errors import HiptrackError
from hiptrack.extras.world.files import write_world
from hiptrack.pictures import Shot, picture_sheet, plot_curves, write_png

SPLITS = {"val": (6, 60), "heldout": (24, 60)}  # sequences, frames
SIZE, SEED = (320, 240), 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--data", type=Path, default=Path("data/demo"))
    args = parser.parse_args()

    from hiptrack.evaluation.baselines import MIL, StillBox
    from hiptrack.evaluation.score import evaluate_sequences
    from hiptrack.evaluation.table import classification_table, compare_table
    from hiptrack.extras.report.write import write_report
    from hiptrack.tracking.tracker import Tracker
    from hiptrack.training.log import read_metrics

    print(f"writing scenes at sea to {args.data}", flush=True)
    for split, (sequences, frames) in SPLITS.items():
        write_world(str(args.data), split, sequences, frames, SIZE, SEED, sea=1.0)
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
    picture_of(heldout, on, args.run / "sheet.png")
    write_report(reports, heldout, args.run, "held-out scenes at sea")
    plot_curves(read_metrics(args.run), args.run / "curves.png")
    print(compare_table(reports))
    print(classification_table(on.classification))
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
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "hiptrack", "train"]
    code = subprocess.call([*launch, "--gin", packaged("experiments/demo.gin"), "--run", str(run), *overrides])
    if code:
        raise HiptrackError(f"the training run failed (exit code {code}); its message stands above.")


def picture_of(sequences, report, path, rows=6, columns=6):
    """Write a picture sheet: some sequences of a Report, some frames of each, with true and predicted boxes."""
    sheet = []
    for number in np.linspace(0, len(sequences) - 1, min(rows, len(sequences))).round().astype(int):
        sequence, result = sequences[number], report.scores[number].result
        row = []
        for frame in np.linspace(0, len(sequence) - 1, columns).round().astype(int):
            caption = f"{sequence.name} {frame + 1}"
            if result.challenges is not None and not np.isnan(result.challenges[frame]).any():
                caption = f"{frame + 1}: {report.taxonomy.classes[int(result.challenges[frame].argmax())]}"
            image = read_image_rgb(sequence.frames[frame])
            row.append(Shot(image, sequence.boxes_xywh[frame], result.boxes_xywh[frame], caption))
        sheet.append(row)
    write_png(picture_sheet(sheet), path)
