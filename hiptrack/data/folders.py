"""Data sets of sequences in folders (GOT-10k layout)."""

import logging
import math
import os
import zlib
from dataclasses import dataclass, field, replace

import gin
import numpy as np

from hiptrack.data.listing import FramePaths, files, image_names, subfolders
from hiptrack.data.reading import nearest_name, packaged_list, read_boxes, read_marks, read_names, require_pixels, show
from hiptrack.data.sequence import FULL_COVER, GOT10K, Protocol, Sequence, SequenceDataset
from hiptrack.errors import ConfigError, DataError

PARTS = ("train", "val", "test")  # what splits are called
EXCLUSIONS = ("defective", "vot")  # lists/got10k_*.txt

logger = logging.getLogger(__name__)


@gin.register
@dataclass(eq=False)
class FolderDataset(SequenceDataset):
    """Sequences in folders, in GOT-10k layout.

    `root/split` (or `root` itself where `split` is None) holds one folder a sequence, with its images,
    groundtruth.txt (`x,y,w,h` a line) and, optionally, absence.label, cover.label and cut_by_image.label.
    `list.txt` beside the folders names those that belong to the set; without it all do, in natural order.
    A folder with a groundtruth.txt of its own is the one sequence of the set.
    In the split "test" groundtruth.txt may hold the first box alone.

    Args:
        split: a folder in the root; None where the sequences lie in the root itself.
        exclude_known: lists of GOT-10k's training sequences that are left out too where the set has them: 'defective'
            (images or boxes known to be wrong) and 'vot' (those that VOT's rules forbid); see lists/got10k_*.txt.
    """

    exclude_known: list[str] | None = None

    LAYOUT = (
        "a folder of sequences (one for each, named in list.txt where there is one, with images and groundtruth.txt), "
        "one with the splits train, val and test, or a sequence"
    )
    SPLITS = None
    PLACE = ("root", "split")
    PROTOCOL = GOT10K

    def __post_init__(self):
        super().__post_init__()
        for known in self.exclude_known or ():
            if known not in EXCLUSIONS:
                raise ConfigError(
                    f"{self._kind}.exclude_known names {known!r}, expected names of {', '.join(map(repr, EXCLUSIONS))}. "
                    f"{nearest_name(str(known), EXCLUSIONS)}"
                )

    def _folder(self):
        return self.root if self.split is None else os.path.join(self.root, self.split)

    def _folders(self):
        return [self._folder()]

    def _names(self):
        folder = self._folder()
        if self._is_sequence():
            return [os.path.basename(os.path.abspath(folder))]
        found = subfolders(folder)
        listing = os.path.join(folder, "list.txt")
        if os.path.lexists(listing):
            return read_names(listing, found, "folder beside list.txt")
        if self.split is None:
            self._require_no_splits(folder, found)
        logger.info("%s: no list.txt, taking all %d folders in natural order", folder, len(found))
        return found

    def _require_no_splits(self, folder, found):
        """Raise DataError where the folders of a root are splits, not sequences."""
        splits = [name for name in found if name in PARTS and not files(os.path.join(folder, name))]
        if splits and len(splits) == len(found):
            other = " In a command that has --dataset, `--dataset mvtd` reads MVTD." if self.is_of_command else ""
            raise DataError(
                f"{folder}: holds the folders {', '.join(splits)}, which are splits and no sequences. Set "
                f"{self._called('split')} to one of them, as in {splits[-1]!r}.{other}"
            )

    def _left_out(self, names):
        left_out = super()._left_out(names)
        for known in self.exclude_known or ():
            listed = set(names).intersection(packaged_list(f"got10k_{known}"))
            logger.info("%s: exclude_known %r leaves out %d sequences", self.name, known, len(listed))
            left_out |= listed
        return left_out

    def _is_sequence(self):
        return os.path.isfile(os.path.join(self._folder(), "groundtruth.txt"))

    def _read_sequence(self, name):
        folder = self._folder() if self._is_sequence() else os.path.join(self._folder(), name)
        hint = ""
        if self.split is None:
            hint = f" Where the folder is a split that holds sequences, set {self._called('split')}."
        sequence = read_sequence(folder, name, self.split == "test", hint)
        return replace(sequence, labels=self._labels(name, sequence.frames))


def read_sequence(folder: str, name: str, first_box_only: bool, hint: str = "") -> Sequence:
    """Reads one sequence folder without annotations; DataError names the file and line at fault.

    `first_box_only`: groundtruth.txt may hold the first frame's box alone. `hint`: what to say besides where there are
    no images.
    """
    images = image_names(folder, hint)
    truth = os.path.join(folder, "groundtruth.txt")
    boxes = read_boxes(truth, len(images), first_box_only)
    absence = read_marks(os.path.join(folder, "absence.label"), len(images), 1)
    cover = read_marks(os.path.join(folder, "cover.label"), len(images), FULL_COVER)
    read_marks(os.path.join(folder, "cut_by_image.label"), len(images), 1)

    present = np.ones(len(images), bool)
    if absence is not None:
        present &= absence == 0
    if cover is not None:
        present &= cover > 0
    has_marks = absence is not None or cover is not None
    _check_sizes(truth, boxes, present, has_marks)
    require_pixels(truth, boxes)
    visible = np.zeros(len(images), bool)
    visible[: len(boxes)] = present[: len(boxes)] & (boxes[:, 2:] > 0).all(1)
    if cover is None:
        cover = np.full(len(images), FULL_COVER)
    return Sequence(name, FramePaths(folder, images), boxes, visible, cover)


def _check_sizes(path, boxes, present, has_marks):
    """A box without area stands for an absent target only where the label files do not contradict it."""
    flat = (boxes[:, 2:] <= 0).any(1)
    wrong = flat & present[: len(boxes)] if has_marks else (boxes[:, 2:] < 0).any(1)
    wrong[0] = flat[0]
    if wrong.any():
        index = int(wrong.argmax())
        why = "the first frame, where tracking starts" if index == 0 else "a frame that counts as visible"
        raise DataError(
            f"{path}:{index + 1}: the box {show(boxes[index])} has no area in {why}. Expected w and h above "
            "0; correct the line, or mark the frame absent in absence.label (not the first)."
        )


HELD_OUT = 0.1  # share of the training sequences that validate where no names are given


@gin.register
@dataclass(eq=False)
class MVTDDataset(FolderDataset):
    """MVTD (Bakht et al., arXiv 2506.02866): 182 maritime videos, in GOT-10k layout with the parts train/ and test/.

    One folder a sequence, with frames of any name in natural order and groundtruth.txt; in train also the three label
    files. The paper has two protocols: I, trackers as they are on test; II, trackers fine-tuned on train, again on
    test. There is no part for validation, so that some sequences of train are held out by their names.

    Args:
        split: 'train' without the sequences held out, 'val' (those), 'train_full' (both) or 'test'.
        held_out: names of the sequences of train that validate; None takes the tenth of them whose names have the
            lowest CRC-32, which is the same tenth whatever other sequences there are, but for its rounding; [] holds
            out none.
    """

    split: str = "test"
    exclude_known: None = field(default=None, init=False)
    held_out: list[str] | None = None

    LAYOUT = "the folders train and test with a folder for each sequence (images and groundtruth.txt)"
    SPLITS = ("train", "val", "train_full", "test")
    # Which normalised precision the paper means it does not say in what we could read of it: both are reported.
    PROTOCOL = Protocol(("AUC", "OP50", "OP75", "P", "P_norm", "P_norm0.2"))

    def __post_init__(self):
        super().__post_init__()
        if self.split == "val" and self.held_out == []:
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
    sums = {name: zlib.crc32(name.encode("utf-8", "surrogateescape")) for name in names}
    return sorted(names, key=sums.get)[: math.ceil(HELD_OUT * len(names))]
