"""Writes scenes of the procedural world with challenge labels, in GOT-10k layout: at sea, or of things of any kind."""

import argparse
import os

import numpy as np

from hiptrack.data.folders import FolderDataset
from hiptrack.data.labels import draw_fixed
from hiptrack.extras.world.files import ANNOTATIONS, write_world
from hiptrack.taxonomy import CLASSES

SEQUENCES = {"train": 0, "val": 24, "test": 24}  # training draws its scenes itself
SIZE = (640, 360)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="folder that gets a folder a split and annotations/"
    )
    parser.add_argument(
        "--sea", metavar="SHARE", type=float, default=1.0, help="share of the scenes that are at sea (default 1)"
    )
    for split, count in SEQUENCES.items():
        parser.add_argument(
            f"--{split}", metavar="N", type=int, default=count, help=f"sequences (default {count}; 0: none)"
        )
    parser.add_argument("--frames", metavar="N", type=int, default=60, help="frames a sequence (default 60)")
    parser.add_argument("--size", metavar="WxH", type=_size, default=SIZE, help="pixels (default 640x360)")
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="the same seed gives the same files (default 0)"
    )
    arguments = parser.parse_args()
    for split in SEQUENCES:
        count = getattr(arguments, split)
        if count:
            write_world(arguments.out, split, count, arguments.frames, arguments.size, arguments.seed, arguments.sea)
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
