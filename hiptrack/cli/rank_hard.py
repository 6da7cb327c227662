"""List the frames most worth labelling: `hiptrack rank-hard --checkpoint runs/two_stage/model.safetensors --root data/got10k --split train`."""

import argparse
import sys
from pathlib import Path

from hiptrack import config
from hiptrack.cli.options import add_checkpoint, add_data
from hiptrack.data.benchmarks import open_benchmark
from hiptrack.errors import ConfigError, HiptrackError, NotFoundError
from hiptrack.files import encoded, write_atomically
from hiptrack.screen import shown
from hiptrack.tables import as_text

MEASURES = ("confidence", "margin", "entropy")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    config.add_arguments(parser)
    add_checkpoint(parser, "weights file with a challenge branch, or nano")
    add_data(parser, annotations="folder of the annotations there are; frames with a line are left out")
    parser.add_argument("--by", choices=MEASURES, default="confidence", help="measure of uncertainty")
    parser.add_argument("--gap", type=int, default=10, metavar="N", help="frames between two of a sequence (10)")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="so many are printed (20)")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="write all of them")
    args = config.parse_args(parser)
    if args.top < 1:
        raise ConfigError(f"--top {args.top}: at least 1 was expected.")

    from hiptrack.evaluation.evaluate import configured_tracker
    from hiptrack.evaluation.rank import candidates_csv, rank_frames
    from hiptrack.models.challenge import taxonomy_of
    from hiptrack.models.weights import load_model

    implied = [config.packaged(f"gin/eval/{name}.gin") for name in ("tracker", "branch_on")]
    config.load([*implied, *args.gin], args.overrides, root="evaluate")
    if not args.checkpoint.is_file():
        raise NotFoundError(f"not found: {args.checkpoint} (--checkpoint: a weights file)", str(args.checkpoint))
    model = load_model(args.checkpoint)
    dataset = open_benchmark("folder", args.root, args.split, args.annotations, args.include, args.exclude)
    dataset.label_by(taxonomy_of(model))
    tracker = configured_tracker()(model=model)
    if tracker.branch != "on":
        raise ConfigError(
            f"Tracker.branch = '{tracker.branch}': only 'on' predicts the challenges that frames are ranked by."
        )
    ranking = rank_frames(tracker, dataset.sequences, args.by, args.gap)
    if args.out:
        try:
            write_atomically(args.out, encoded(candidates_csv(ranking.candidates)))
        except OSError as error:
            raise HiptrackError(f"{args.out} cannot be written: {error} (--out: a file)") from error
    rows = [
        (found.file, f"{found.uncertainty:.3f}", found.challenge, f"{found.probability:.3f}")
        for found in ranking.candidates[: args.top]
    ]
    print(as_text(["frame", f"uncertainty ({args.by})", "challenge", "its probability"], rows))
    print(
        f"{len(ranking.candidates)} frames at least {args.gap} apart; left out: {ranking.labelled} that have labels, "
        f"{ranking.lost} in which the tracker had lost the target"
    )
    if args.out:
        print(f"written: {args.out}")
    for failure in ranking.failures:
        print(f"failed: {shown(failure)}", file=sys.stderr)
    return 1 if ranking.failures else 0
