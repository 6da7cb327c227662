"""Writes synthetic maritime sequences, or scenes of the procedural world, with challenge labels, in GOT-10k layout."""

import argparse
import os

import numpy as np

from hiptrack.data.folders import FolderDataset
from hiptrack.data.labels import CLASSES, draw_fixed
from hiptrack.extras.world.files import write_world
from hiptrack.extras.world.sea_files import ANNOTATIONS, write_dataset

SEQUENCES = {"train": 120, "val": 12, "test": 20}
WORLD_SEQUENCES = {"train": 0, "val": 24, "test": 24}  # training draws its scenes itself
SIZE, WORLD_SIZE = (320, 240), (640, 360)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="folder that gets a folder a split and annotations/"
    )
    parser.add_argument("--world", action="store_true", help="scenes of the world instead of seas (docs/world.md)")
    for split, count in SEQUENCES.items():
        parser.add_argument(
            f"--{split}",
            metavar="N",
            type=int,
            help=f"sequences (default {count}, with --world {WORLD_SEQUENCES[split]}; 0: none)",
        )
    parser.add_argument("--frames", metavar="N", type=int, default=60, help="frames a sequence (default 60)")
    parser.add_argument("--size", metavar="WxH", type=_size, help="pixels (default 320x240, with --world 640x360)")
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="the same seed gives the same files (default 0)"
    )
    arguments = parser.parse_args()
    write, counts, size = (
        (write_world, WORLD_SEQUENCES, WORLD_SIZE) if arguments.world else (write_dataset, SEQUENCES, SIZE)
    )
    for split in SEQUENCES:
        count = counts[split] if getattr(arguments, split) is None else getattr(arguments, split)
        if count:
            write(arguments.out, split, count, arguments.frames, arguments.size or size, arguments.seed)
            print(describe(arguments.out, split))
    return 0


def describe(out, split):
    """One paragraph: where the split lies, and how many frames of each class it has."""
    sequences = FolderDataset(out, split, annotations=os.path.join(out, ANNOTATIONS)).sequences
    drawn = [draw_fixed(item.labels, item.name, frame) for item in sequences for frame in range(len(item))]
    counts = np.bincount(drawn, minlength=len(CLASSES))
    classes = ", ".join(f"{name} {count}" for name, count in zip(CLASSES, counts, strict=True))
    return f"{os.path.join(out, split)}: {len(sequences)} sequences, {len(drawn)} frames ({classes})"


def _size(text):
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 320x240, got {text!r}")
    return int(width), int(height)
