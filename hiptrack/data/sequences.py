"""What a sequence is, and data sets of sequences in folders (GOT-10k layout)."""

import difflib
import logging
import os
import re
from dataclasses import dataclass

import cv2
import gin
import numpy as np

from hiptrack.bounded import read_bytes, read_text
from hiptrack.data.labels import MAX_COORDINATE, FrameLabels, annotation_path, read_annotations, unlabelled
from hiptrack.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
FULL_COVER = 8
MAX_TEXT_BYTES = 2**26
MAX_IMAGE_BYTES = 2**29

_DIGITS = re.compile("([0-9]+)")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Sequence:
    """A video of N frames with the box of one target.

    `frames`: N image paths in order. `boxes_xywh`: [N, 4] float64 in pixels; [1, 4] where only the first
    frame's box is given. `visible`: [N] bool, a box is known, has an area, and the frame is neither
    marked absent nor of cover 0. `cover`: [N] int, 0..8 (8 without cover.label). `labels`: challenge
    labels, None where no annotations were asked for.
    """

    name: str
    frames: tuple[str, ...]
    boxes_xywh: np.ndarray
    visible: np.ndarray
    cover: np.ndarray
    labels: FrameLabels | None = None

    def __len__(self):
        return len(self.frames)


@gin.register
class FolderDataset:
    """Sequences in folders, in GOT-10k layout.

    `root/split` (or `root` itself where `split` is None) holds one folder a sequence, with its images,
    groundtruth.txt (`x,y,w,h` a line) and, optionally, absence.label, cover.label and cut_by_image.label.
    `list.txt` beside the folders names those that belong to the set; without it all do, in natural order.
    In the split "test" groundtruth.txt may hold the first box alone.

    `annotations`: folder of `<sequence>/<sequence>.jsonl` files with challenge labels; a sequence
    without such a file is unlabelled. `include`, `exclude`: names of the sequences to take, to leave out.
    `name`: what logs call the set, by default `<root's name>-<split>`.

    Nothing is read before the first access of `sequences`, `labelled_frames` or `describe`, which raise
    DataError for whatever is missing or malformed.
    """

    def __init__(
        self,
        root: str,
        split: str | None = None,
        annotations: str | None = None,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        name: str | None = None,
    ):
        self.root = os.path.expanduser(root)
        self.split = split
        self.annotations = None if annotations is None else os.path.expanduser(annotations)
        self.include = include
        self.exclude = exclude
        self.name = name or "-".join(filter(None, (os.path.basename(os.path.abspath(self.root)), split)))
        self._sequences = None

    @property
    def sequences(self) -> list[Sequence]:
        """All sequences, read once."""
        if self._sequences is None:
            self._sequences = self._read()
        return self._sequences

    def share(self, read: dict) -> None:
        """Take the sequences that an equal set has read before, or leave one's own in `read` for the next."""
        key = str((self.root, self.split, self.annotations, self.include, self.exclude))
        if key not in read:
            read[key] = self.sequences
        self._sequences = read[key]

    @property
    def labelled_frames(self) -> int:
        """Number of frames with an annotation line; 0 where no annotations were asked for."""
        return sum(int(s.labels.annotated.sum()) for s in self.sequences if s.labels is not None)

    def missing_paths(self) -> list[str]:
        """The folders this set needs that do not exist."""
        wanted = [self.root] if not os.path.isdir(self.root) else [self._folder()]
        if self.annotations is not None:
            wanted.append(self.annotations)
        return [path for path in wanted if not os.path.isdir(path)]

    def describe(self) -> str:
        """One line of counts."""
        frames = sum(len(s) for s in self.sequences)
        unpaired = sum(int(s.visible.sum()) < 2 for s in self.sequences)
        text = f"{self.name}: {len(self.sequences)} sequences, {frames} frames, {self.labelled_frames} labelled"
        return f"{text}, {unpaired} sequences with fewer than two visible frames" if unpaired else text

    def _folder(self):
        return self.root if self.split is None else os.path.join(self.root, self.split)

    def _read(self):
        self._check_folders()
        sequences = [self._read_sequence(name) for name in self._select(self._names())]
        if self.annotations is not None:
            self._report_unannotated([s.name for s in sequences])
        return sequences

    def _read_sequence(self, name):
        return read_sequence(os.path.join(self._folder(), name), name, self.annotations, self.split == "test")

    def _check_folders(self):
        if not os.path.isdir(self.root):
            raise DataError(
                f"{self.root or repr(self.root)}: the data root does not exist or is no folder. Expected a "
                "folder of sequences, or one with the splits train, val and test; set FolderDataset.root to "
                "where the data lie."
            )
        if not os.path.isdir(self._folder()):
            raise DataError(
                f"{self._folder()}: there is no such split folder. "
                f"{_nearest(self.split, subfolders(self.root))} Set FolderDataset.split to a folder of the "
                "data root, or to None where the sequences lie in the root itself."
            )
        if self.annotations is not None and not os.path.isdir(self.annotations):
            raise DataError(
                f"{self.annotations}: the annotation folder does not exist or is no folder. Expected a "
                "folder of <sequence>/<sequence>.jsonl files; set FolderDataset.annotations to it, or to "
                "None."
            )

    def _names(self):
        """Names of the set's sequences in order: those of list.txt, else every folder."""
        folder = self._folder()
        found = subfolders(folder)
        listing = os.path.join(folder, "list.txt")
        if os.path.lexists(listing):
            names = _read_list(listing, found)
        else:
            names = found
            logger.info("%s: no list.txt, taking all %d folders in natural order", folder, len(names))
        if not names:
            raise DataError(
                f"{folder}: the data set is empty. Expected a folder for each sequence (named in list.txt "
                "where there is one) with images and groundtruth.txt; check FolderDataset.root and split."
            )
        return names

    def _select(self, names):
        known = set(names)
        for parameter, wanted in (("include", self.include), ("exclude", self.exclude)):
            for name in wanted or ():
                if name not in known:
                    raise DataError(
                        f"{self._folder()}: FolderDataset.{parameter} names {name!r}, which is no sequence "
                        f"of the data set. {_nearest(name, names)}"
                    )
        taken = (known if self.include is None else set(self.include)) - set(self.exclude or ())
        if not taken:
            raise DataError(
                f"{self._folder()}: FolderDataset.include and exclude leave none of the {len(names)} "
                "sequences; leave at least one."
            )
        return [name for name in names if name in taken]

    def _report_unannotated(self, names):
        without = [name for name in names if not os.path.lexists(annotation_path(self.annotations, name))]
        if without:
            logger.log(
                logging.WARNING if len(without) == len(names) else logging.INFO,
                "%s: %d of %d sequences have no annotation file in %s and are unlabelled (the first is %s)",
                self.name,
                len(without),
                len(names),
                self.annotations,
                without[0],
            )


def read_sequence(folder: str, name: str, annotations: str | None, first_box_only: bool) -> Sequence:
    """Reads one sequence folder; DataError names the file and line at fault.

    `first_box_only`: groundtruth.txt may hold the first frame's box alone.
    """
    images = image_names(folder)
    truth = os.path.join(folder, "groundtruth.txt")
    boxes = read_boxes(truth, len(images), first_box_only)
    absence = _read_label(os.path.join(folder, "absence.label"), len(images), 1)
    cover = _read_label(os.path.join(folder, "cover.label"), len(images), FULL_COVER)
    _read_label(os.path.join(folder, "cut_by_image.label"), len(images), 1)

    present = np.ones(len(images), bool)
    if absence is not None:
        present &= absence == 0
    if cover is not None:
        present &= cover > 0
    has_marks = absence is not None or cover is not None
    _check_sizes(truth, boxes, present, has_marks)
    visible = np.zeros(len(images), bool)
    visible[: len(boxes)] = present[: len(boxes)] & (boxes[:, 2:] > 0).all(1)

    labels = None
    if annotations is not None:
        path = annotation_path(annotations, name)
        labels = read_annotations(path, name, images) if os.path.lexists(path) else unlabelled(len(images))
    prefix = os.path.join(folder, "")
    frames = tuple(prefix + image for image in images)
    if cover is None:
        cover = np.full(len(images), FULL_COVER)
    return Sequence(name, frames, boxes, visible, cover, labels)


def image_names(folder: str) -> list[str]:
    """Names of a folder's images (jpg, jpeg, png, bmp) in natural order; DataError where there is none."""
    files = [entry.name for entry in _entries(folder) if entry.is_file()]
    names = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise DataError(
            f"{folder}: no images. Expected the frames of a sequence ({', '.join(IMAGE_SUFFIXES)}) in this "
            "folder; add them, leave the sequence out with FolderDataset.exclude, or, where the folder is a "
            "split that holds sequences, set FolderDataset.split."
        )
    return sorted(names, key=natural_key)


def subfolders(folder: str) -> list[str]:
    """Names of the folders in a folder, in natural order, hidden ones left out."""
    return sorted((entry.name for entry in _entries(folder) if entry.is_dir()), key=natural_key)


def natural_key(name: str) -> tuple:
    """Sorting key by which frame10 comes after frame9."""
    parts = _DIGITS.split(name.lower())
    parts[1::2] = map(int, parts[1::2])
    return (parts, name)


def read_boxes(path: str, frames: int, first_box_only: bool) -> np.ndarray:
    """groundtruth.txt of a sequence -> [frames, 4] (or [1, 4]) float64 xywh in pixels.

    Numbers are separated by commas, tabs or spaces. Raises DataError for a missing file, a malformed
    line, a number that is not finite, and a number of lines other than `frames`.
    """
    if not os.path.lexists(path):
        raise DataError(
            f"{path}: not found. Expected the target's box in each of the {frames} frames, x,y,w,h a line; "
            "add it, or leave the sequence out with FolderDataset.exclude."
        )
    rows = []
    for number, line in enumerate(_read_lines(path), 1):
        try:
            row = [float(field) for field in (line.split(",") if "," in line else line.split())]
        except ValueError:
            row = []
        if len(row) != 4 or "_" in line:
            raise DataError(
                f"{path}:{number}: {line[:80]!r} is not a box. Expected four numbers x,y,w,h separated by "
                "commas, tabs or spaces; correct the line."
            )
        rows.append(row)
    if len(rows) != frames and not (first_box_only and len(rows) == 1):
        hint = " (Only the split 'test' may give the first box alone.)" if len(rows) == 1 else ""
        raise DataError(
            f"{path}: {len(rows)} boxes for {frames} images in {os.path.dirname(path)}. Expected one line a "
            f"frame; complete the file or the images.{hint}"
        )
    boxes = np.array(rows, np.float64)
    odd = ~(np.abs(boxes) <= MAX_COORDINATE).all(1)
    if odd.any():
        index = int(odd.argmax())
        raise DataError(
            f"{path}:{index + 1}: the box {_show(boxes[index])} is not finite or beyond {MAX_COORDINATE:g} "
            "pixels. Expected x,y,w,h in pixels; correct the line (an absent target is written 0,0,0,0)."
        )
    return boxes


def read_image_rgb(path: str) -> np.ndarray:
    """Decodes an image to [H, W, 3] uint8 RGB; DataError names a file that is missing or damaged."""
    try:
        data = read_bytes(path, MAX_IMAGE_BYTES)
    except OSError as error:
        raise DataError(f"{path}: the image cannot be read ({error.strerror or error}). Restore the file.") from None
    # OpenCV paints what a cut JPEG lacks grey; only the missing end-of-image marker tells.
    complete = b"\xff\xd9" in data or not data.startswith(b"\xff\xd8")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data and complete else None
    except cv2.error:
        image = None
    if image is None:
        raise DataError(
            f"{path}: the image is damaged or cut off ({len(data)} bytes). Expected a complete JPEG, PNG or "
            "BMP file; copy it again from its source."
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _check_sizes(path, boxes, present, has_marks):
    """A box without area stands for an absent target only where the label files do not contradict it."""
    flat = (boxes[:, 2:] <= 0).any(1)
    wrong = flat & present[: len(boxes)] if has_marks else (boxes[:, 2:] < 0).any(1)
    wrong[0] = flat[0]
    if wrong.any():
        index = int(wrong.argmax())
        why = "the first frame, where tracking starts" if index == 0 else "a frame that counts as visible"
        raise DataError(
            f"{path}:{index + 1}: the box {_show(boxes[index])} has no area in {why}. Expected w and h above "
            "0; correct the line, mark the frame absent in absence.label (not the first), or leave the "
            "sequence out with FolderDataset.exclude."
        )


def _read_label(path, frames, highest):
    """A GOT-10k label file, one whole number 0..highest a frame -> [frames] int; None where it is absent."""
    if not os.path.lexists(path):
        return None
    lines = _read_lines(path)
    if len(lines) != frames:
        raise DataError(
            f"{path}: {len(lines)} labels for {frames} images in {os.path.dirname(path)}. Expected one line "
            "a frame; complete the file, or remove it to do without."
        )
    allowed = {str(value): value for value in range(highest + 1)}
    values = [allowed.get(line.strip()) for line in lines]
    if None in values:
        index = values.index(None)
        raise DataError(
            f"{path}:{index + 1}: {lines[index][:80]!r} is not a label. Expected a whole number in "
            f"0..{highest}; correct the line."
        )
    return np.array(values, np.int64)


def _read_list(path, found):
    """Names in list.txt, each of which must be one of the folders `found` beside it."""
    folders, line_of_name = set(found), {}
    for number, line in enumerate(_read_lines(path), 1):
        name = line.strip()
        if not name:
            continue
        if name not in folders:
            raise DataError(
                f"{path}:{number}: names {name[:80]!r}, but there is no such folder beside list.txt. "
                f"{_nearest(name, found)} Restore the folder or remove the line."
            )
        if name in line_of_name:
            raise DataError(
                f"{path}:{number}: names {name!r} again, as line {line_of_name[name]} does. Expected each "
                "sequence once; remove the line."
            )
        line_of_name[name] = number
    return list(line_of_name)


def _read_lines(path):
    """Lines of a small UTF-8 text file without their ends; blank ones at the end are dropped."""
    try:
        text = read_text(path, MAX_TEXT_BYTES).rstrip()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}). Expected a text file; restore it.") from None
    return text.split("\n") if text else []


def _entries(folder):
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read ({error.strerror}). Restore it.") from None


def _nearest(name, names):
    close = difflib.get_close_matches(name[:80], names, n=1, cutoff=0.0)
    return f"The nearest name there is {close[0]!r}." if close else "There is no folder there."


def _show(box):
    return ",".join(f"{value:g}" for value in box)
