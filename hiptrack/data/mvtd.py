"""MVTD, the Maritime Visual Tracking Dataset."""

import math
import os
import zlib

import gin

from hiptrack.data.protocol import Protocol
from hiptrack.data.sequences import FolderDataset
from hiptrack.errors import ConfigError

HELD_OUT = 0.1  # share of the training sequences that validate where no names are given


@gin.register
class MVTDDataset(FolderDataset):
    """MVTD (Bakht et al., arXiv 2506.02866): 182 maritime videos, in GOT-10k layout with the parts train/ and test/.

    One folder a sequence, with frames of any name in natural order and groundtruth.txt; in train also the three label files.
    The paper has two protocols: I, trackers as they are on test; II, trackers fine-tuned on train, again on test. There is no
    part for validation, so that some sequences of train are held out by their names.

    Args:
        root: the folder of train and test.
        split: 'train' without the sequences held out, 'val' (those), 'train_full' (both) or 'test'.
        held_out: names of the sequences of train that validate; None takes the tenth of them whose names have the lowest
            CRC-32, which is the same tenth whatever other sequences there are, but for its rounding; [] holds out none.
        annotations: folder of `<sequence>/<sequence>.jsonl` files with challenge labels, if any.
        include, exclude: names of the sequences to take, to leave out.
        name: what logs call the set.
    """

    LAYOUT = "the folders train and test with a folder for each sequence (images and groundtruth.txt)"
    SPLITS = ("train", "val", "train_full", "test")
    # Which normalised precision the paper means it does not say in what we could read of it: both are reported.
    PROTOCOL = Protocol(("AUC", "OP50", "OP75", "P", "P_norm", "P_norm0.2"))

    def __init__(
        self,
        root: str,
        split: str = "test",
        annotations: str | None = None,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        name: str | None = None,
        held_out: list[str] | None = None,
    ):
        super().__init__(root, split, annotations, include, exclude, name)
        self.held_out = held_out
        if split == "val" and held_out == []:
            raise ConfigError(
                "MVTDDataset.held_out = [] leaves nothing for the split 'val'; name sequences of train, or None."
            )

    def _folder(self):
        return os.path.join(self.root, "test" if self.split == "test" else "train")

    def _names(self):
        names = super()._names()
        if self.split in ("test", "train_full"):
            return names
        held_out = set(_tenth(names) if self.held_out is None else self.held_out)
        self._require_names("held_out", held_out, names)
        return [name for name in names if (name in held_out) == (self.split == "val")]


def _tenth(names):
    """The tenth of some names (one at least) with the lowest CRC-32."""
    return sorted(names, key=lambda name: zlib.crc32(name.encode()))[: math.ceil(HELD_OUT * len(names))]
