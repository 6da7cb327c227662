"""OTB-100 (OTB-2015)."""

import os

import gin

from hiptrack.data.dataset import SequenceDataset
from hiptrack.data.protocol import Protocol
from hiptrack.data.reading import FramePaths, entries, image_names, parse_boxes, read_lines, subfolders
from hiptrack.errors import DataError

# First and last of the images that are annotated, by position from 1, where it is not all of them (got10k/datasets/otb.py of
# github.com/got-10k/toolkit and pytracking/evaluation/otbdataset.py of github.com/visionml/pytracking agree on them). Elsewhere
# the folder holds the annotated images alone, though the first may be called 0247.jpg (BlurCar1).
ANNOTATED = {
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
}
# Annotated frames before the one where tracking starts (pytracking has this, the GOT-10k toolkit does not).
OMITTED = {"Tiger1": 5}


@gin.register
class OTBDataset(SequenceDataset):
    """OTB-100 (Wu et al., TPAMI 2015): 98 videos, 100 targets.

    `root/Basketball/` and so on, each with img/ and groundtruth_rect.txt (a line `x,y,w,h`, separated by commas, tabs or
    spaces); or, with two targets, groundtruth_rect.1.txt and groundtruth_rect.2.txt, each of which is a sequence: Jogging_1,
    Jogging_2, Skating2_1, Skating2_2. An empty file is passed over (Human4 has one, and is Human4_2). In David, Diving,
    Football1, Freeman3 and Freeman4 a part of the images is annotated; Tiger1 is tracked from its sixth frame.

    Args:
        root: the folder of the sequences.
        annotations: folder of `<sequence>/<sequence>.jsonl` files with challenge labels, if any.
        include, exclude: names of the sequences to take, to leave out.
        name: what logs call the set.
    """

    LAYOUT = "a folder for each sequence with img/ and groundtruth_rect.txt"
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
        self._files = {}

    def _names(self):
        for folder in subfolders(self.root):
            files = _truths(os.path.join(self.root, folder))
            if not files:
                raise DataError(
                    f"{os.path.join(self.root, folder)}: no boxes. Expected groundtruth_rect.txt, or groundtruth_rect.1.txt and "
                    "so on, in the folder of a sequence; restore it, or move the folder away."
                )
            for file in files:
                number = file[len("groundtruth_rect") : -len(".txt")].replace(".", "_")
                self._files[f"{folder}{number}"] = (folder, file)
        return list(self._files)

    def _read_sequence(self, name):
        video, file = self._files[name]
        folder, truth = os.path.join(self.root, video, "img"), os.path.join(self.root, video, file)
        images, boxes = image_names(folder), parse_boxes(truth)
        if video in ANNOTATED:
            first, last = ANNOTATED[video]
            images = images[first - 1 : last]
        if len(images) != len(boxes):
            told = f" (those from {first} to {last} count)" if video in ANNOTATED else ""
            raise DataError(
                f"{truth}: {len(boxes)} boxes for {len(images)} images in {folder}{told}. Expected one line a frame; complete "
                "the file or the images."
            )
        start = OMITTED.get(video, 0)
        return self._make_sequence(name, FramePaths(folder, images[start:]), boxes[start:], truth)


def _truths(folder):
    """The names of a folder's files of boxes that hold any."""
    names = sorted(entry.name for entry in entries(folder) if entry.is_file())
    names = [name for name in names if name.startswith("groundtruth_rect") and name.endswith(".txt")]
    return [name for name in names if read_lines(os.path.join(folder, name))]
