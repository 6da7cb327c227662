"""Need for Speed (NfS)."""

import os

import gin
import numpy as np

from hiptrack.data.dataset import SequenceDataset
from hiptrack.data.protocol import Protocol
from hiptrack.data.reading import FramePaths, image_names, read_lines, require_boxes, require_finite, subfolders
from hiptrack.errors import DataError

RATE = 8  # boxes are annotated at 240 frames a second, of which the 30 fps variant has every eighth


@gin.register
class NfSDataset(SequenceDataset):
    """Need for Speed (Kiani Galoogahi et al., ICCV 2017) at 30 frames a second: 100 videos.

    `root/<sequence>/30/<sequence>/*.jpg` and `root/<sequence>/30/<sequence>.txt` in VATIC's form, separated by spaces: track,
    xmin, ymin, xmax, ymax, frame, lost, occluded, generated, "label". The file has the boxes of all 240 frames a second, or
    those of the 30 alone; in the former case every eighth is taken, from the first. Where that gives one box more or fewer
    than there are images, both end with the shorter (as in got10k/datasets/nfs.py of github.com/got-10k/toolkit).
    Width is xmax - xmin. The marks `lost` and `occluded` are not used: neither that toolkit nor pytracking does.

    Args:
        root: the folder of the sequences.
        annotations: folder of `<sequence>/<sequence>.jsonl` files with challenge labels, if any.
        include, exclude: names of the sequences to take, to leave out.
        name: what logs call the set.
    """

    LAYOUT = "a folder for each sequence with 30/<sequence>/ and 30/<sequence>.txt"
    PROTOCOL = Protocol(("AUC", "P"))
    IS_CACHED = True

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
        return subfolders(self.root)

    def _read_sequence(self, name):
        folder = os.path.join(self.root, name, "30", name)
        truth, images = f"{folder}.txt", image_names(folder)
        require_boxes(truth, len(images))
        boxes = _parse(truth)
        if abs(len(boxes) - RATE * len(images)) <= RATE:
            boxes = boxes[::RATE]
        if not len(boxes) or abs(len(boxes) - len(images)) > 1:
            raise DataError(
                f"{truth}: {len(boxes)} boxes for {len(images)} images in {folder}. Expected one a frame, or {RATE} a frame; "
                "complete the file or the images."
            )
        length = min(len(boxes), len(images))
        return self._make_sequence(name, FramePaths(folder, images[:length]), boxes[:length], truth)


def _parse(path):
    """The boxes [N, 4] float64 xywh of a file's lines."""
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = [float(field) for field in line.split(maxsplit=5)[1:5]]
        except ValueError:
            row = []
        if len(row) != 4 or "_" in line.split('"')[0]:
            raise DataError(
                f"{path}:{number}: {line[:80]!r} is not a box. Expected track xmin ymin xmax ymax frame lost occluded "
                'generated "label", separated by spaces; correct the line.'
            )
        rows.append(row)
    corners = np.array(rows, np.float64).reshape(-1, 4)
    return require_finite(path, np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1))
