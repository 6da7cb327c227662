"""LaSOT and its extension."""

import logging
import os

import gin
import numpy as np

from hiptrack.data.reading import (
    FramePaths,
    image_names,
    natural_key,
    nearest_name,
    parse_boxes,
    read_lines,
    read_names,
    require_boxes,
    subfolders,
)
from hiptrack.data.sequence import Protocol, SequenceDataset
from hiptrack.errors import DataError

logger = logging.getLogger(__name__)


class _ClassFolders(SequenceDataset):
    """Sequences in folders of their class: `root/airplane/airplane-1/` with img/, groundtruth.txt (`x,y,w,h` a line), and
    full_occlusion.txt and out_of_view.txt (0 or 1 for each frame, all in one line, separated by commas).

    A frame with one of the two marks has no visible target. LaSOT's toolkit (github.com/HengLan/LaSOT_Evaluation_Toolkit,
    utils/eval_tracker.m) takes such frames out of the successes but divides by the number of all frames, and reports
    precision and normalised precision at the thresholds 20 and 0.2.
    """

    LAYOUT = "folders of classes with the sequences in them (airplane/airplane-1/img/, groundtruth.txt, ...)"
    PROTOCOL = Protocol(("AUC", "P_norm0.2", "P"), counts_absent=True)
    IS_CACHED = True

    def _found(self):
        """Names of all sequences under the root."""
        found = []
        for group in subfolders(self.root):
            own = subfolders(os.path.join(self.root, group))
            found += [name for name in own if name.rpartition("-")[0] == group]
        return found

    def _read_sequence(self, name):
        folder = os.path.join(self.root, name.rpartition("-")[0], name)
        truth = os.path.join(folder, "groundtruth.txt")
        images = image_names(os.path.join(folder, "img"))
        require_boxes(truth, len(images))
        boxes = parse_boxes(truth)
        if not 0 < len(boxes) <= len(images):
            raise DataError(
                f"{truth}: {len(boxes)} boxes for {len(images)} images in {os.path.join(folder, 'img')}. Expected one line "
                "a frame; complete the file or the images."
            )
        if len(boxes) < len(images):  # monkey-17, by the toolkit's calc_seq_err_robust.m
            logger.info("%s: %d images have no box and are left out", name, len(images) - len(boxes))
        hidden = [_read_marks(os.path.join(folder, f"{mark}.txt"), len(boxes)) for mark in _MARKS]
        frames = FramePaths(os.path.join(folder, "img"), images[: len(boxes)])
        return self._make_sequence(name, frames, boxes, truth, ~np.any(hidden, 0))


_MARKS = ("full_occlusion", "out_of_view")


@gin.register
class LaSOTDataset(_ClassFolders):
    """LaSOT (Fan et al., CVPR 2019): 1400 videos of 70 classes, 280 of which are the testing set.

    `root/airplane/airplane-1/` and so on, each with img/, groundtruth.txt (`x,y,w,h` a line), full_occlusion.txt and
    out_of_view.txt (0 or 1 for each frame in one line). A frame with one of these marks has no visible target.

    Args:
        root: the folder of the classes.
        split: 'test' is what testing_set.txt in the root lists, or the 280 names of the published set without that file;
            'train' is training_set.txt, or without it all other sequences.
        annotations: folder of `<sequence>/<sequence>.jsonl` files with challenge labels, if any.
        include, exclude: names of the sequences to take, to leave out.
        name: what logs call the set.
    """

    SPLITS = ("train", "test")

    def __init__(
        self,
        root: str,
        split: str = "test",
        annotations: str | None = None,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(root, split, annotations, include, exclude, name)

    def _names(self):
        found = self._found()
        listing = os.path.join(self.root, f"{self.split}ing_set.txt")
        if os.path.lexists(listing):
            return _listed(listing, found)
        if self.split == "train":
            return [name for name in found if name not in set(self._names_of_test(found))]
        return self._names_of_test(found)

    def _names_of_test(self, found):
        listing = os.path.join(self.root, "testing_set.txt")
        if os.path.lexists(listing):
            return _listed(listing, found)
        there = set(found)
        names = [name for name in TESTING_SET if name in there]
        logger.info("%s: no testing_set.txt, %d of the 280 published names are there", self.root, len(names))
        return names


@gin.register
class LaSOTExtensionDataset(_ClassFolders):
    """LaSOT's extension (Fan et al., arXiv 2009.03465): 150 videos of 15 further classes, all of them for testing.

    Laid out and scored like LaSOT: `root/atv/atv-1/` and so on.

    Args:
        root: the folder of the classes.
        annotations: folder of `<sequence>/<sequence>.jsonl` files with challenge labels, if any.
        include, exclude: names of the sequences to take, to leave out.
        name: what logs call the set.
    """

    def __init__(
        self,
        root: str,
        annotations: str | None = None,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(root, None, annotations, include, exclude, name)

    def _names(self):
        return sorted(self._found(), key=natural_key)


def _listed(path, found):
    """The names in a list, each of which must be one of the sequences `found`."""
    there = set(found)
    line_of_name = read_names(path)
    for name, number in line_of_name.items():
        if name not in there:
            raise DataError(
                f"{path}:{number}: names {name[:80]!r}, but there is no such sequence in a folder of its class. "
                f"{nearest_name(name, found)} Restore the folder or remove the line."
            )
    return list(line_of_name)


def _read_marks(path, frames):
    """A file of 0 and 1, separated by commas or line ends -> [frames] bool."""
    if not os.path.lexists(path):
        raise DataError(f"{path}: not found. Expected 0 or 1 for each of the {frames} frames in one line; restore it.")
    marks = []
    for number, line in enumerate(read_lines(path), 1):
        for mark in line.strip().strip(",").split(","):
            if mark.strip() not in ("0", "1"):
                raise DataError(
                    f"{path}:{number}: {mark[:80]!r} is no mark. Expected 0 or 1 for each frame, separated by commas; "
                    "correct the line."
                )
            marks.append(mark.strip() == "1")
    if len(marks) != frames:
        raise DataError(
            f"{path}: {len(marks)} marks for {frames} boxes in groundtruth.txt. Expected one a frame; complete the file."
        )
    return np.array(marks)


_NUMBERS = """
airplane 1 9 13 15, basketball 1 6 7 11, bear 2 4 6 17, bicycle 2 7 9 18, bird 2 3 15 17, boat 3 4 12 17,
book 3 10 11 19, bottle 1 12 14 18, bus 2 5 17 19, car 2 6 9 17, cat 1 3 18 20, cattle 2 7 12 13, spider 14 16 18 20,
coin 3 6 7 18, crab 3 6 12 18, surfboard 12 4 5 8, cup 1 4 7 17, deer 4 8 10 14, dog 1 7 15 19, guitar 3 8 10 16,
person 1 5 10 12, pig 2 10 13 18, rubicCube 1 6 14 19, swing 10 14 17 20, drone 13 15 2 7, pool 12 15 3 7,
rabbit 10 13 17 19, racing 10 15 16 20, robot 1 19 5 8, sepia 13 16 6 8, sheep 3 5 7 9, skateboard 16 19 3 8,
tank 14 16 6 9, tiger 12 18 4 6, train 1 11 20 7, truck 16 3 6 7, turtle 16 5 8 9, umbrella 17 19 2 9, yoyo 15 17 19 7,
zebra 10 14 16 17, elephant 1 12 16 18, goldfish 3 7 8 10, hat 1 2 5 18, kite 4 6 10 15, motorcycle 1 3 9 18,
mouse 1 8 9 17, flag 3 9 5 2, frog 3 4 20 9, gametarget 1 2 7 13, hand 2 3 9 16, helmet 5 11 19 13,
licenseplate 6 12 13 15, electricfan 1 10 18 20, chameleon 3 6 11 20, crocodile 3 4 10 14, gecko 1 5 16 19,
fox 2 3 5 20, giraffe 2 10 13 15, gorilla 4 6 9 13, hippo 1 7 9 20, horse 1 4 12 15, kangaroo 2 5 11 14,
leopard 1 7 16 20, lion 1 5 12 20, lizard 1 3 6 13, microphone 2 6 14 16, monkey 3 4 9 17, shark 2 3 5 6,
squirrel 8 11 13 19, volleyball 1 13 18 19
"""

TESTING_SET = tuple(
    f"{name}-{number}"
    for name, *numbers in (entry.split() for entry in _NUMBERS.replace("\n", " ").split(","))
    for number in numbers
)
