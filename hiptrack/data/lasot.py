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
    packaged_list,
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
        names = [name for name in packaged_list("lasot_testing_set") if name in there]
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
