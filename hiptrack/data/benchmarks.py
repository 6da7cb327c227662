"""The readers of benchmarks, and the names that `--dataset` has for them. Importing this registers every reader."""

import functools
import logging
import os
from dataclasses import dataclass, field
from typing import Annotated

import gin
import numpy as np
from annotated_types import Interval, MinLen

from hiptrack.data.detection import DETECTION
from hiptrack.data.folders import FolderDataset, MVTDDataset
from hiptrack.data.listing import FramePaths, entries, files, image_names, natural_key, subfolders, text_files
from hiptrack.data.reading import (
    nearest_name,
    packaged_list,
    parse_boxes,
    read_boxes,
    read_lines,
    read_marks,
    read_names,
    read_rows,
    require_finite,
)
from hiptrack.data.sequence import Protocol, SequenceDataset
from hiptrack.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

RATE = 8  # boxes are annotated at 240 frames a second, of which the 30 fps variant has every eighth


@gin.register
@dataclass(eq=False)
class NfSDataset(SequenceDataset):
    """Need for Speed (Kiani Galoogahi et al., ICCV 2017) at 30 frames a second: 100 videos.

    `root/<sequence>/30/<sequence>/*.jpg` and `root/<sequence>/30/<sequence>.txt` in VATIC's form, separated by spaces:
    track, xmin, ymin, xmax, ymax, frame, lost, occluded, generated, "label". The file has the boxes of all 240 frames a
    second, or those of the 30 alone; in the former case every eighth is taken, from the first. Where that gives one box
    more or fewer than there are images, both end with the shorter (as in got10k/datasets/nfs.py of
    github.com/got-10k/toolkit). Width is xmax - xmin. The marks `lost` and `occluded` are not used: neither that
    toolkit nor pytracking does.
    """

    split: None = field(default=None, init=False)

    LAYOUT = "a folder for each sequence with 30/<sequence>/ and 30/<sequence>.txt"
    SPLITS = ()
    PROTOCOL = Protocol(("AUC", "P"))

    def _names(self):
        return subfolders(self.root)

    def _read_sequence(self, name):
        folder = os.path.join(self.root, name, "30", name)
        truth, images = f"{folder}.txt", image_names(folder)
        form = 'track xmin ymin xmax ymax frame lost occluded generated "label", separated by spaces'
        corners = read_rows(truth, lambda line: line.split(maxsplit=5)[1:5], form)
        boxes = require_finite(truth, np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1))
        if abs(len(boxes) - RATE * len(images)) <= RATE:
            boxes = boxes[::RATE]
        if not len(boxes) or abs(len(boxes) - len(images)) > 1:
            raise DataError(
                f"{truth}: {len(boxes)} boxes for {len(images)} images in {folder}. Expected one a frame, or {RATE} a frame; "
                "complete the file or the images."
            )
        length = min(len(boxes), len(images))
        return self._make_sequence(name, FramePaths(folder, images[:length]), boxes[:length], truth)


# First and last of the images that are annotated, by position from 1, where it is not all of them
# (got10k/datasets/otb.py of github.com/got-10k/toolkit and pytracking/evaluation/otbdataset.py of
# github.com/visionml/pytracking agree on them). Elsewhere the folder holds the annotated images alone, though the first
# may be called 0247.jpg (BlurCar1).
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
@dataclass(eq=False)
class OTBDataset(SequenceDataset):
    """OTB-100 (Wu et al., TPAMI 2015): 98 videos, 100 targets.

    `root/Basketball/` and so on, each with img/ and groundtruth_rect.txt (a line `x,y,w,h`, separated by commas, tabs
    or spaces); or, with two targets, groundtruth_rect.1.txt and groundtruth_rect.2.txt, each of which is a sequence:
    Jogging_1, Jogging_2, Skating2_1, Skating2_2. An empty file is passed over (Human4 has one, and is Human4_2). In
    David, Diving, Football1, Freeman3 and Freeman4 a part of the images is annotated; Tiger1 is tracked from its sixth
    frame.
    """

    split: None = field(default=None, init=False)

    LAYOUT = "a folder for each sequence with img/ and groundtruth_rect.txt"
    SPLITS = ()
    PROTOCOL = Protocol(("AUC", "P"))

    def _names(self):
        self._files = {}
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
    names = [name for name in sorted(files(folder)) if name.startswith("groundtruth_rect") and name.endswith(".txt")]
    return [name for name in names if read_lines(os.path.join(folder, name))]


@gin.register
class TNL2KDataset(SequenceDataset):
    """TNL2K (Wang et al., CVPR 2021): 2000 videos, 700 of them for testing; the sentences beside them are not read.

    `root/split` (or `root` itself where `split` is None) holds one folder a sequence, with imgs/ (frames of any name,
    in natural order) and groundtruth.txt (`x,y,w,h` a line).

    The toolkit (github.com/wangxiao5791509/TNL2K_evaluation_toolkit) is LaSOT's: frames without target count as missed.
    It has files that mark these frames; the data set has none, so here they are those with a box without area.

    Args:
        split: a folder in the root, such as 'TNL2K_test_subset', or None.
    """

    LAYOUT = "a folder for each sequence with imgs/ and groundtruth.txt"
    SPLITS = None
    PLACE = ("root", "split")
    PROTOCOL = Protocol(("AUC", "P_norm0.2", "P"), counts_absent=True)

    def _folders(self):
        return [self.root if self.split is None else os.path.join(self.root, self.split)]

    def _names(self):
        return subfolders(self._folders()[0])

    def _read_sequence(self, name):
        folder = os.path.join(self._folders()[0], name)
        truth, images = os.path.join(folder, "groundtruth.txt"), image_names(os.path.join(folder, "imgs"))
        boxes = read_boxes(truth, len(images), False)
        return self._make_sequence(name, FramePaths(os.path.join(folder, "imgs"), images), boxes, truth)


HIDING_MARKS = ("full_occlusion", "out_of_view")


@gin.register
@dataclass(eq=False)
class LaSOTDataset(SequenceDataset):
    """LaSOT (Fan et al., CVPR 2019): 1400 videos of 70 classes, 280 of which are the testing set.

    `root/airplane/airplane-1/` and so on, each with img/, groundtruth.txt (`x,y,w,h` a line), full_occlusion.txt and
    out_of_view.txt (0 or 1 for each frame, all in one line, separated by commas).

    A frame with one of the two marks has no visible target. LaSOT's toolkit
    (github.com/HengLan/LaSOT_Evaluation_Toolkit, utils/eval_tracker.m) takes such frames out of the successes but
    divides by the number of all frames, and reports precision and normalised precision at the thresholds 20 and 0.2.

    Args:
        split: 'test' is what testing_set.txt in the root lists, or the 280 names of the published set without that
            file; 'train' is training_set.txt, or without it all other sequences.
    """

    split: str = "test"

    LAYOUT = "folders of classes with the sequences in them (airplane/airplane-1/img/, groundtruth.txt, ...)"
    SPLITS = ("train", "test")
    PROTOCOL = Protocol(("AUC", "P_norm0.2", "P"), counts_absent=True)

    def _names(self):
        return self._names_of(self.split, self._found())

    def _names_of(self, split, found):
        listing = os.path.join(self.root, f"{split}ing_set.txt")
        if os.path.lexists(listing):
            return read_names(listing, found, "sequence in a folder of its class")
        if split == "train":
            test = set(self._names_of("test", found))
            return [name for name in found if name not in test]
        there = set(found)
        names = [name for name in packaged_list("lasot_testing_set") if name in there]
        logger.info("%s: no testing_set.txt, %d of the 280 published names are there", self.root, len(names))
        return names

    def _found(self):
        found = []
        for group in subfolders(self.root):
            own = subfolders(os.path.join(self.root, group))
            found += [name for name in own if name.rpartition("-")[0] == group]
        return found

    def _read_sequence(self, name):
        folder = os.path.join(self.root, name.rpartition("-")[0], name)
        truth = os.path.join(folder, "groundtruth.txt")
        images = image_names(os.path.join(folder, "img"))
        boxes = parse_boxes(truth)
        if not 0 < len(boxes) <= len(images):
            raise DataError(
                f"{truth}: {len(boxes)} boxes for {len(images)} images in {os.path.join(folder, 'img')}. Expected one line "
                "a frame; complete the file or the images."
            )
        if len(boxes) < len(images):  # monkey-17, by the toolkit's calc_seq_err_robust.m
            logger.info("%s: %d images have no box and are left out", name, len(images) - len(boxes))
        marks = [os.path.join(folder, f"{mark}.txt") for mark in HIDING_MARKS]
        hidden = [read_marks(path, len(boxes), 1, parted=True) for path in marks]
        for path, own in zip(marks, hidden, strict=True):
            if own is None:
                raise DataError(f"{path}: not found. Expected 0 or 1 for each of the {len(boxes)} frames; restore it.")
        frames = FramePaths(os.path.join(folder, "img"), images[: len(boxes)])
        return self._make_sequence(name, frames, boxes, truth, ~np.any(hidden, 0))


@gin.register
@dataclass(eq=False)
class LaSOTExtensionDataset(LaSOTDataset):
    """LaSOT's extension (Fan et al., arXiv 2009.03465): 150 videos of 15 further classes, all of them for testing.

    Laid out and scored like LaSOT: `root/atv/atv-1/` and so on.
    """

    split: None = field(default=None, init=False)

    SPLITS = ()

    def _names(self):
        return sorted(self._found(), key=natural_key)


CHUNKS = 12


@gin.register
@dataclass(eq=False)
class TrackingNetDataset(SequenceDataset):
    """TrackingNet (Mueller et al., ECCV 2018): 12 chunks of 2511 videos for training, 511 videos for testing.

    `root/TRAIN_0/` to `root/TRAIN_11/` and `root/TEST/`, each with frames/<sequence>/0.jpg, 1.jpg, ... and
    anno/<sequence>.txt (`x,y,w,h` a line; in TEST the first frame's alone). The boxes of TEST are kept by the
    benchmark's server, which scores result files: here TEST is tracked and not scored.

    Args:
        split: 'train' or 'test'.
        chunks: of 'train', the numbers of those to read; all twelve by default.
    """

    split: str = "test"
    chunks: Annotated[list[Annotated[int, Interval(ge=0, le=CHUNKS - 1)]], MinLen(1)] | None = None

    LAYOUT = "the chunks TRAIN_0 to TRAIN_11 and TEST, each with frames/<sequence>/ and anno/<sequence>.txt"
    SPLITS = ("train", "test")
    PLACE = ("root", "chunks")
    # The server's (metrics.py of github.com/SilvioGiancola/TrackingNet-devkit) rounds boxes to whole pixels and has 21
    # thresholds for each of the three, so that its numbers differ a little from ours on TRAIN.
    PROTOCOL = Protocol(("AUC", "P_norm", "P"))

    def __post_init__(self):
        super().__post_init__()
        if self.chunks is not None and (self.split == "test" or not self.chunks):
            raise ConfigError(
                f"TrackingNetDataset.chunks = {self.chunks}: some were expected, and only with the split 'train'."
            )

    def _folders(self):
        if self.split == "test":
            return [os.path.join(self.root, "TEST")]
        chunks = range(CHUNKS) if self.chunks is None else self.chunks
        return [os.path.join(self.root, f"TRAIN_{chunk}") for chunk in chunks]

    def _names(self):
        self._chunk_of_name = {}
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


@gin.register
@dataclass(eq=False)
class UAV123Dataset(SequenceDataset):
    """UAV123 (Mueller et al., ECCV 2016): 123 sequences from the air.

    `root/data_seq/UAV123/bike1/000001.jpg` and so on, and `root/anno/UAV123/bike1.txt` (`x,y,w,h` a line, four NaN
    where the target is out of sight). Several sequences may share a folder of images: bird1_1, bird1_2 and bird1_3 are
    parts of bird1 (lists/uav123.txt). Read are the sequences with a file in anno/UAV123.

    A frame without target counts as missed in the success and as met in the precision, as pytracking does
    (pytracking/analysis/extract_results.py); UAV123's own toolkit we have not read.
    """

    split: None = field(default=None, init=False)

    LAYOUT = "the folders data_seq/UAV123 (a folder of images for each video) and anno/UAV123 (a text file for each sequence)"
    SPLITS = ()
    PROTOCOL = Protocol(("AUC", "P"), counts_absent=True, absent_is_near=True)

    def _folders(self):
        return [os.path.join(self.root, "anno", "UAV123"), os.path.join(self.root, "data_seq", "UAV123")]

    def _names(self):
        self._images = {}
        anno = self._folders()[0]
        found = text_files(anno)
        for name in found:
            if name not in uav123_sequences():
                raise DataError(
                    f"{os.path.join(anno, name)}.txt: UAV123 has no sequence of this name. "
                    f"{nearest_name(name, uav123_sequences())} Rename the file or move it away."
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
                f"the sequence {name}. Restore them."
            )
        return self._make_sequence(name, FramePaths(folder, frames), boxes, truth)


@functools.cache
def uav123_sequences() -> dict[str, tuple[str, int, int]]:
    """{sequence: (folder of its images, number of the first image, of the last)}."""
    rows = [line.split() for line in packaged_list("uav123")]
    return {name: (folder, int(first), int(last)) for name, folder, first, last in rows}


BENCHMARKS = {
    "got10k": FolderDataset,
    "lasot": LaSOTDataset,
    "lasot_ext": LaSOTExtensionDataset,
    "trackingnet": TrackingNetDataset,
    "uav123": UAV123Dataset,
    "otb": OTBDataset,
    "nfs": NfSDataset,
    "tnl2k": TNL2KDataset,
    "mvtd": MVTDDataset,
    "folder": FolderDataset,
}


def open_benchmark(
    benchmark: str,
    root: str,
    split: str | None = None,
    annotations: str | None = None,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
) -> SequenceDataset:
    """The reader of a key of BENCHMARKS or DETECTION, for a command with these options; without `split` its own choice.

    Raises ConfigError for a split where the benchmark has none.
    """
    reader = {**BENCHMARKS, **DETECTION}[benchmark]
    if split is not None and reader.SPLITS == ():
        raise ConfigError(f"--split {split}: {benchmark} has no splits; leave it out.")
    chosen = {"split": split, "annotations": annotations, "include": include, "exclude": exclude}
    dataset = reader(root, **{parameter: value for parameter, value in chosen.items() if value is not None})
    dataset.is_of_command = True
    return dataset
