"""What a sequence is, and what all data sets of sequences have in common."""

import logging
import os
import shlex
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hiptrack.data.cache import read_cached
from hiptrack.data.image_heads import UPRIGHT, peek
from hiptrack.data.labels import FrameLabels, annotation_path, read_annotations, unlabelled
from hiptrack.data.listing import FramePaths, subfolders
from hiptrack.data.reading import nearest_name, require_pixels, show
from hiptrack.data.sources import note_source
from hiptrack.errors import ConfigError, DataError
from hiptrack.taxonomy import TEN, Taxonomy


@dataclass(frozen=True)
class Protocol:
    """A benchmark's way of scoring.

    metrics: names of its own numbers, in the order in which it reports them. Of GOT-10k (over frames): AO, SR0.5,
    SR0.75. Of one-pass evaluation (over sequences): AUC of success, OP50, OP75, precision P at 20 pixels, P_norm
    (normalised precision, area over the thresholds 0..0.5) and P_norm0.2 (the same at the threshold 0.2); see
    evaluation/metrics.py.

    In one-pass evaluation a frame without target is left out, unless `counts_absent`: then it counts as a frame that
    was missed; with `absent_is_near` besides, as one whose centre was met.
    """

    metrics: tuple[str, ...]
    counts_absent: bool = False
    absent_is_near: bool = False

    @property
    def is_one_pass(self) -> bool:
        """Whether it is a one-pass evaluation over sequences rather than GOT-10k's over frames."""
        return "AO" not in self.metrics


GOT10K = Protocol(("AO", "SR0.5", "SR0.75"))


FULL_COVER = 8
# How commands call parameters of a data set, as far as they have them.
OPTIONS = {"root": "ROOT", **{name: f"--{name}" for name in ("split", "annotations", "include", "exclude")}}
LOOKS = 16  # first frames that are looked at

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Sequence:
    """A video of N frames with the box of one target.

    `frames`: N image paths in order, a tuple or FramePaths. For training a frame may instead be an object that makes its
    own crops: its method `crop(box_xywh, factor, side_out)` gives what `crops.crop` would. `boxes_xywh`: [N, 4] float64 in
    pixels; [1, 4] where only the first frame's box is given. `visible`: [N] bool, a box is known, has an area, and the
    frame is neither marked absent nor of cover 0. `cover`: [N] int, 0..8 (8 without cover.label). `labels`: challenge
    labels, None where no annotations were asked for. `is_still`: it is a picture, not a video, and may be drawn as
    several frames. `image_size`: (width, height) of the pictures that the boxes belong to, where the data set states it.
    """

    name: str
    frames: tuple[str, ...] | FramePaths
    boxes_xywh: np.ndarray
    visible: np.ndarray
    cover: np.ndarray
    labels: FrameLabels | None = None
    is_still: bool = False
    image_size: tuple[int, int] | None = None

    def __len__(self):
        return len(self.frames)


@dataclass(eq=False)
class SequenceDataset:
    """Base of the readers: what a set of named sequences offers, whatever its layout.

    A reader defines `_names` (all sequences, in order) and `_read_sequence` (one of them), and says in `LAYOUT` what
    its root holds, in `SPLITS` which splits there are (None: any, which their names tell; (): none, all is for testing),
    in `PLACE` which parameters say what folders are read, and in `PROTOCOL` how the benchmark scores. What it read is
    kept (cache.py): all it reads must go through reading.py or be told to note_source (sources.py). Nothing is read
    before the first access of `sequences`, `labelled_frames` or `describe`, which raise DataError for whatever is
    missing or malformed.

    A command whose options choose the data sets `is_of_command`: errors then name the options instead of the parameters.

    The fields are the parameters of every reader. One that differs in them is a dataclass too: a field of its own is a
    parameter more, a field again has another default, and `field(default=None, init=False)` is a parameter less.

    Args:
        root: the folder below which everything lies.
        split: which part of the data is read.
        annotations: folder of `<sequence>/<sequence>.jsonl` files with challenge labels; a sequence without such a file is
            unlabelled. None: the folder of the whole run, if it has one (train.annotations); '': none.
        include, exclude: names of the sequences to take, to leave out.
        name: what logs call the set, by default `<root's name>-<split>`.
    """

    root: str
    split: str | None = None
    annotations: str | None = None
    include: list[str] | None = None
    exclude: list[str] | None = None
    name: str | None = None

    HAS_ANNOTATIONS = True  # whether it may have challenge labels
    is_of_command = False
    is_endless = False  # whether its sequences are made as they are asked for
    LAYOUT = "a folder of sequences"
    SPLITS: ClassVar[tuple[str, ...] | None] = None
    PLACE = ("root",)
    PROTOCOL: ClassVar[Protocol]

    def __post_init__(self):
        self.root = os.path.expanduser(self.root)
        self.annotations = None if self.annotations is None else os.path.expanduser(self.annotations)
        folder = os.path.basename(os.path.abspath(self.root))
        self.name = self.name or "-".join(filter(None, (folder, self.split)))
        self.taxonomy = TEN
        self._sequences = None
        if self.SPLITS and self.split not in self.SPLITS:
            raise ConfigError(
                f"{self._kind}.split = {self.split!r}: expected one of {', '.join(map(repr, self.SPLITS))}. "
                f"{nearest_name(str(self.split), self.SPLITS)}"
            )

    def label_by(self, taxonomy: Taxonomy, annotations: str | None = None) -> None:
        """Have labels read by a taxonomy; from `annotations`, where the set names no folder of its own but may have one."""
        before = self.taxonomy, self.annotations
        self.taxonomy = taxonomy
        if self.HAS_ANNOTATIONS and self.annotations is None and annotations is not None:
            self.annotations = os.path.expanduser(annotations)
        if before != (self.taxonomy, self.annotations):
            self._sequences = None

    @property
    def sequences(self) -> list[Sequence]:
        """All sequences, read once."""
        if self._sequences is None:
            self._check_folders()
            places = [os.path.abspath(place) for place in (self.root, self.annotations or "")]
            key = f"{self._settings()} {places}"
            self._sequences = read_cached(self.name, key, Sequence, self._read, self.taxonomy)
            self._report_images()
            if self.annotations:
                self._report_unannotated([s.name for s in self._sequences])
        return self._sequences

    def share(self, read: dict) -> None:
        """Take the sequences that an equal set has read before, or leave one's own in `read` for the next."""
        key = self._settings()
        if key not in read:
            read[key] = self.sequences
        self._sequences = read[key]

    @property
    def labelled_frames(self) -> int:
        """Number of frames with an annotation line; 0 where no annotations were asked for."""
        return sum(int(s.labels.annotated.sum()) for s in self.sequences if s.labels is not None)

    def missing_paths(self) -> list[str]:
        """The folders this set needs that do not exist."""
        wanted = [self.root] if not os.path.isdir(self.root) else self._folders()
        if self.annotations:
            wanted.append(self.annotations)
        return [path for path in wanted if not os.path.isdir(path)]

    def describe(self) -> str:
        """One line of counts."""
        frames = sum(len(s) for s in self.sequences)
        unpaired = sum(int(s.visible.sum()) < 2 and not s.is_still for s in self.sequences)
        text = f"{self.name}: {len(self.sequences)} sequences, {frames} frames, {self.labelled_frames} labelled"
        return f"{text}, {unpaired} sequences with fewer than two visible frames" if unpaired else text

    def _settings(self):
        """What sequences the set has, in words."""
        told = ("name", "is_of_command")  # what changes nothing but words
        settings = {key: value for key, value in vars(self).items() if key not in told and not key.startswith("_")}
        return f"{self._kind} {sorted(settings.items())}"

    @property
    def _kind(self):
        return type(self).__name__

    def _called(self, *parameters):
        """What whoever chose the data calls some parameters of the set."""
        if not self.is_of_command:
            return f"{self._kind}.{' or '.join(parameters)}"
        return " or ".join(OPTIONS[parameter] for parameter in parameters if parameter in OPTIONS)

    def _folders(self) -> list[str]:
        """The folders that the reader needs."""
        return [self.root]

    def _names(self) -> list[str]:
        raise NotImplementedError

    def _read_sequence(self, name: str) -> Sequence:
        raise NotImplementedError

    def read_each(self):
        """Yields (name, its Sequence or the DataError by which it cannot be read) of all sequences, and keeps none.

        Raises DataError for what is wrong with the set as a whole.
        """
        self._check_folders()
        for folder in (self.root, *self._folders()):
            note_source(folder)
        names = self._names()
        if not names:
            raise DataError(
                f"{self._folders()[0]}: the data set is empty. Expected {self.LAYOUT}; check "
                f"{self._called('root', *(['split'] if self.split else []))}."
            )
        for name in self._select(names):
            try:
                yield name, self._read_sequence(name)
            except DataError as error:
                leave_out = (
                    f"--exclude {shlex.quote(name)}" if self.is_of_command else f"{self._kind}.exclude = [{name!r}]"
                )
                yield name, DataError(f"{error} To go on without this sequence: {leave_out}.")

    def _read(self):
        sequences = []
        for _, found in self.read_each():
            if isinstance(found, DataError):
                raise found
            sequences.append(found)
        return sequences

    def _check_folders(self):
        if not os.path.isdir(self.root):
            raise DataError(
                f"{self.root or repr(self.root)}: the data root does not exist or is no folder. Expected "
                f"{self.LAYOUT}; set {self._called('root')} to where the data lie."
            )
        for folder in self._folders():
            if not os.path.isdir(folder):
                raise DataError(
                    f"{folder}: there is no such folder. Expected {self.LAYOUT}. "
                    f"{nearest_name(os.path.basename(folder), subfolders(self.root))} Correct {self._called(*self.PLACE)}."
                )
        if self.annotations and not os.path.isdir(self.annotations):
            raise DataError(
                f"{self.annotations}: the annotation folder does not exist or is no folder. Expected a "
                f"folder of <sequence>/<sequence>.jsonl files; set {self._called('annotations')} to it, or leave it out."
            )

    def _left_out(self, names):
        """Names that are not taken, whatever `include` says."""
        return set(self.exclude or ())

    def _select(self, names):
        self._require_names("include", self.include, names)
        self._require_names("exclude", self.exclude, names)
        taken = set(names if self.include is None else self.include) - self._left_out(names)
        if not taken:
            raise DataError(
                f"{self._folders()[0]}: {self._called('include')} and {self._called('exclude')} leave none of the {len(names)} "
                "sequences; leave at least one."
            )
        return [name for name in names if name in taken]

    def _require_names(self, parameter, wanted, names):
        """Raises DataError where a parameter wants a sequence that is not there."""
        known = set(names)
        for name in wanted or ():
            if name not in known:
                raise DataError(
                    f"{self._folders()[0]}: {self._called(parameter)} names {name!r}, which is no sequence "
                    f"of the data set. {nearest_name(name, names)}"
                )

    def _make_sequence(self, name, frames, boxes, truth, present=True):
        """A Sequence of `frames`, whose boxes [N, 4] (or [1, 4]) are those of the file `truth`.

        `present`: [N] bool, or True, False where the target is marked absent. A box without area stands for an absent
        target too, but not in the first frame.
        """
        there = present & (boxes[:, 2:] > 0).all(1)
        if not there[0]:
            raise DataError(
                f"{truth}:1: the box {show(boxes[0])} has no area, or the target is marked absent, in the first frame, "
                "where tracking starts. Correct the line."
            )
        require_pixels(truth, boxes)
        visible = np.zeros(len(frames), bool)
        visible[: len(there)] = there
        return Sequence(name, frames, boxes, visible, np.where(visible, FULL_COVER, 0), self._labels(name, frames))

    def _labels(self, name, frames):
        """The challenge labels of a sequence with images of these paths; None where no annotations were asked for."""
        if not self.annotations:
            return None
        path = annotation_path(self.annotations, name)
        note_source(path)
        if not os.path.lexists(path):
            return unlabelled(len(frames), self.taxonomy)
        return read_annotations(path, name, [os.path.basename(frame) for frame in frames], self.taxonomy)

    def _report_images(self):
        """Say how images are read that are not plainly what they seem, by a look at some sequences' first frames."""
        some = self._sequences[:: -(-len(self._sequences) // LOOKS)]
        looks = [(s.frames[0], *peek(s.frames[0])) for s in some]
        deep = [path for path, bits, _ in looks if bits > 8]
        turned = [path for path, _, orientation in looks if orientation != UPRIGHT]
        if deep:
            text = "%s: images of more than 8 bits a channel, such as %s: shown in 8 bits by the range of their sequence's first frame"
            logger.info(text, self.name, deep[0])
        if turned and some[0].image_size is None:
            text = (
                "%s: images with an Exif orientation, such as %s: turned as it says; boxes count in the turned picture"
            )
            logger.info(text, self.name, turned[0])

    def _report_unannotated(self, names):
        without = [name for name in names if not os.path.lexists(annotation_path(self.annotations, name))]
        if without:
            level = logging.WARNING if len(without) == len(names) else logging.INFO
            text = "%s: %d of %d sequences have no annotation file in %s and are unlabelled (the first is %s)"
            logger.log(level, text, self.name, len(without), len(names), self.annotations, without[0])
