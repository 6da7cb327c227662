"""UAV123."""

import functools
import os

import gin

from hiptrack.data.reading import FramePaths, entries, nearest_name, packaged_list, parse_boxes, text_files
from hiptrack.data.sequence import Protocol, SequenceDataset
from hiptrack.errors import DataError


@gin.register
class UAV123Dataset(SequenceDataset):
    """UAV123 (Mueller et al., ECCV 2016): 123 sequences from the air.

    `root/data_seq/UAV123/bike1/000001.jpg` and so on, and `root/anno/UAV123/bike1.txt` (`x,y,w,h` a line, four NaN where the
    target is out of sight). Several sequences may share a folder of images: bird1_1, bird1_2 and bird1_3 are parts of
    bird1 (lists/uav123.txt). Read are the sequences with a file in anno/UAV123.

    A frame without target counts as missed in the success and as met in the precision, as pytracking does
    (pytracking/analysis/extract_results.py); UAV123's own toolkit we have not read.

    Args:
        root: the folder of data_seq and anno.
        annotations: folder of `<sequence>/<sequence>.jsonl` files with challenge labels, if any.
        include, exclude: names of the sequences to take, to leave out.
        name: what logs call the set.
    """

    LAYOUT = "the folders data_seq/UAV123 (a folder of images for each video) and anno/UAV123 (a text file for each sequence)"
    PROTOCOL = Protocol(("AUC", "P"), counts_absent=True, absent_is_near=True)
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
        self._images = {}

    def _folders(self):
        return [os.path.join(self.root, "anno", "UAV123"), os.path.join(self.root, "data_seq", "UAV123")]

    def _names(self):
        anno = self._folders()[0]
        found = text_files(anno)
        for name in found:
            if name not in uav123_sequences():
                raise DataError(
                    f"{os.path.join(anno, name)}.txt: UAV123 has no sequence of this name. {nearest_name(name, uav123_sequences())} "
                    "Rename the file or move it away."
                )
        return found

    def _read_sequence(self, name):
        video, first, last = uav123_sequences()[name]
        anno, data = self._folders()
        truth, folder = os.path.join(anno, f"{name}.txt"), os.path.join(data, video)
        boxes = parse_boxes(truth, nan_is_absent=True)
        if len(boxes) != last - first + 1:
            raise DataError(
                f"{truth}: {len(boxes)} boxes, but the sequence {name} has {last - first + 1} (images {first} to {last} of "
                f"{video}). Expected one line a frame; restore the file."
            )
        if folder not in self._images:
            self._images[folder] = {entry.name for entry in entries(folder)}
        frames = [f"{number:06d}.jpg" for number in range(first, last + 1)]
        absent = [frame for frame in frames if frame not in self._images[folder]]
        if absent:
            raise DataError(
                f"{os.path.join(folder, absent[0])}: not found, as are {len(absent) - 1} more of the images {first} to {last} of "
                f"the sequence {name}. Restore them, or leave the sequence out with UAV123Dataset.exclude."
            )
        return self._make_sequence(name, FramePaths(folder, frames), boxes, truth)


@functools.cache
def uav123_sequences() -> dict[str, tuple[str, int, int]]:
    """{sequence: (folder of its images, number of the first image, of the last)}."""
    rows = [line.split() for line in packaged_list("uav123")]
    return {name: (folder, int(first), int(last)) for name, folder, first, last in rows}
