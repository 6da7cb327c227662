"""TNL2K."""

import os

import gin

from hiptrack.data.dataset import SequenceDataset
from hiptrack.data.protocol import Protocol
from hiptrack.data.reading import FramePaths, image_names, read_boxes, subfolders


@gin.register
class TNL2KDataset(SequenceDataset):
    """TNL2K (Wang et al., CVPR 2021): 2000 videos, 700 of them for testing; the sentences that name the targets are not read.

    `root/split` (or `root` itself where `split` is None) holds one folder a sequence, with imgs/ (frames of any name, in
    natural order) and groundtruth.txt (`x,y,w,h` a line).

    The toolkit (github.com/wangxiao5791509/TNL2K_evaluation_toolkit) is LaSOT's: frames without target count as missed. It
    has files that mark these frames; the data set has none, so here they are those with a box without area.

    Args:
        root: the folder of the sequences, or of the splits.
        split: a folder in the root, such as 'TNL2K_test_subset', or None.
        annotations: folder of `<sequence>/<sequence>.jsonl` files with challenge labels, if any.
        include, exclude: names of the sequences to take, to leave out.
        name: what logs call the set.
    """

    LAYOUT = "a folder for each sequence with imgs/ and groundtruth.txt"
    SPLITS = None
    PLACE = ("root", "split")
    PROTOCOL = Protocol(("AUC", "P_norm0.2", "P"), counts_absent=True)
    IS_CACHED = True

    def __init__(
        self,
        root: str,
        split: str | None = None,
        annotations: str | None = None,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(root, split, annotations, include, exclude, name)

    def _folders(self):
        return [self.root if self.split is None else os.path.join(self.root, self.split)]

    def _names(self):
        return subfolders(self._folders()[0])

    def _read_sequence(self, name):
        folder = os.path.join(self._folders()[0], name)
        truth, images = os.path.join(folder, "groundtruth.txt"), image_names(os.path.join(folder, "imgs"))
        boxes = read_boxes(truth, len(images), False)
        return self._make_sequence(name, FramePaths(os.path.join(folder, "imgs"), images), boxes, truth)
