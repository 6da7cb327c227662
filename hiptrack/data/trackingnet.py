"""TrackingNet."""

import os

import gin

from hiptrack.data.dataset import SequenceDataset
from hiptrack.data.protocol import Protocol
from hiptrack.data.reading import FramePaths, image_names, read_boxes, text_files
from hiptrack.errors import ConfigError, DataError

CHUNKS = 12


@gin.register
class TrackingNetDataset(SequenceDataset):
    """TrackingNet (Mueller et al., ECCV 2018): 12 chunks of 2511 videos for training, 511 videos for testing.

    `root/TRAIN_0/` to `root/TRAIN_11/` and `root/TEST/`, each with frames/<sequence>/0.jpg, 1.jpg, ... and
    anno/<sequence>.txt (`x,y,w,h` a line; in TEST the first frame's alone). The boxes of TEST are kept by the benchmark's
    server, which scores result files: here TEST is tracked and not scored.

    Args:
        root: the folder of the chunks.
        split: 'train' or 'test'.
        chunks: of 'train', the numbers of those to read; all twelve by default.
        annotations: folder of `<sequence>/<sequence>.jsonl` files with challenge labels, if any.
        include, exclude: names of the sequences to take, to leave out.
        name: what logs call the set.
    """

    LAYOUT = "the chunks TRAIN_0 to TRAIN_11 and TEST, each with frames/<sequence>/ and anno/<sequence>.txt"
    SPLITS = ("train", "test")
    PLACE = ("root", "chunks")
    # The server's (metrics.py of github.com/SilvioGiancola/TrackingNet-devkit) rounds boxes to whole pixels and has 21
    # thresholds for each of the three, so that its numbers differ a little from ours on TRAIN.
    PROTOCOL = Protocol(("AUC", "P_norm", "P"))
    IS_CACHED = True

    def __init__(
        self,
        root: str,
        split: str = "test",
        annotations: str | None = None,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        name: str | None = None,
        chunks: list[int] | None = None,
    ):
        super().__init__(root, split, annotations, include, exclude, name)
        self.chunks = chunks
        if chunks is not None and (split == "test" or not chunks or not set(chunks) <= set(range(CHUNKS))):
            raise ConfigError(
                f"TrackingNetDataset.chunks = {chunks} with the split {split!r}: expected numbers in 0..{CHUNKS - 1}, and "
                "only with the split 'train'."
            )
        self._chunk_of_name = {}

    def _folders(self):
        if self.split == "test":
            return [os.path.join(self.root, "TEST")]
        return [os.path.join(self.root, f"TRAIN_{chunk}") for chunk in self.chunks or range(CHUNKS)]

    def _names(self):
        self._chunk_of_name.clear()
        for folder in self._folders():
            for name in text_files(os.path.join(folder, "anno")):
                if name in self._chunk_of_name:
                    raise DataError(
                        f"{folder}: the sequence {name!r} is also in {self._chunk_of_name[name]}. Expected each in one "
                        "chunk; remove one of the two."
                    )
                self._chunk_of_name[name] = folder
        return list(self._chunk_of_name)

    def _read_sequence(self, name):
        chunk = self._chunk_of_name[name]
        folder, truth = os.path.join(chunk, "frames", name), os.path.join(chunk, "anno", f"{name}.txt")
        images = image_names(folder)
        boxes = read_boxes(truth, len(images), self.split == "test")
        return self._make_sequence(name, FramePaths(folder, images), boxes, truth)
