"""Challenge labels of frames: reading annotation files and choosing one class per frame.

An annotation file is `<dir>/<sequence>/<sequence>.jsonl`, one JSON object a line, with the fields
`sequence_name`, `frame_id`, `frame_file`, `cv_response`, `vlm_response` and `ground_truth_bbox`
(the project's reference, section 6).
"""

import functools
import logging
import os
import re
import reprlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import numpy as np

from hiptrack.data.annotation_form import Malformed, line_form, parse_line
from hiptrack.errors import DataError
from hiptrack.files import iter_lines
from hiptrack.taxonomy import Taxonomy

MAX_LINE_BYTES = 2**20
MAX_FILE_BYTES = 2**28
MAX_LINES = 10**6
MAX_NAME = 255  # bytes of a file's name

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FrameLabels:
    """Challenge flags of a sequence of N frames.

    `flags`: [N, C - 1] bool, columns in the order of the taxonomy's classes without the last.
    `annotated`: [N] bool, False for a frame without an annotation line (its flags are all False).
    """

    flags: np.ndarray
    annotated: np.ndarray
    taxonomy: Taxonomy

    def draw(self, frame: int, rng: np.random.Generator) -> int:
        """Class index of a frame (0-based) by the taxonomy's rule, -1 where it has no annotation."""
        return self.taxonomy.draw(self.flags[frame], rng) if self.annotated[frame] else -1

    def multi_hot(self, frames: Sequence[int]) -> np.ndarray:
        """All classes of some frames (0-based) at once: [len(frames), C] float32, 1 for each set flag and for the last class
        where none is set, else 0; rows of -1 where a frame has no annotation."""
        flags = self.flags[frames]
        rows = np.column_stack((flags, ~flags.any(1))).astype(np.float32)
        rows[~self.annotated[frames]] = -1
        return rows


def fixed_generator(sequence_name: str, frame: int) -> np.random.Generator:
    """The generator of a frame (0-based) outside training: the same in every run."""
    return np.random.default_rng([zlib.crc32(sequence_name.encode("utf-8", "surrogateescape")), frame])


def draw_fixed(labels: FrameLabels, sequence_name: str, frame: int) -> int:
    """`labels.draw` outside training: depends on the sequence's name and the frame alone."""
    return labels.draw(frame, fixed_generator(sequence_name, frame))


def unlabelled(frames: int, taxonomy: Taxonomy) -> FrameLabels:
    return FrameLabels(np.zeros((frames, len(taxonomy.challenges)), bool), np.zeros(frames, bool), taxonomy)


def annotation_path(directory: str, sequence_name: str) -> str:
    return os.path.join(directory, sequence_name, f"{sequence_name}.jsonl")


@dataclass(frozen=True)
class Annotation:
    """One valid line: `frame` 0-based, `flags` C - 1 bools in class order, `box` as written in the file."""

    frame: int
    flags: tuple[bool, ...]
    box: tuple[float, ...]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, or with one line (1-based) of it."""

    path: str
    line: int | None
    reason: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.reason}" if self.line else f"{self.path}: {self.reason}"


def read_annotations(path: str, sequence_name: str, frame_files: list[str], taxonomy: Taxonomy) -> FrameLabels:
    """Labels of a sequence whose images are called `frame_files` (names without folder, in order).

    Raises DataError with file, line and reason at the first malformed line.
    """
    labels = unlabelled(len(frame_files), taxonomy)
    for item in iter_annotations(path, sequence_name, frame_files, taxonomy):
        if isinstance(item, Problem):
            raise DataError(
                f"{item}. Expected one annotation object a line for sequence {sequence_name!r}; correct the "
                "file (hiptrack check-annotations lists every malformed line)."
            )
        labels.flags[item.frame] = item.flags
        labels.annotated[item.frame] = True
    return labels


def iter_annotations(
    path: str, sequence_name: str, frame_files: list[str] | None, taxonomy: Taxonomy
) -> Iterator[Annotation | Problem]:
    """Every line of an annotation file, in order, as an Annotation or as a Problem.

    A line belongs to the frame whose image is called `frame_file`. Where there is no such image, or the images are not
    known (`frame_files` None), it belongs to the frame at the position `frame_id`, which counts from 1. Blank lines are
    passed over.
    """
    place, line_of_frame, form = _Place(path, frame_files), {}, line_form(taxonomy)
    try:
        for number, line in _lines(path):
            try:
                if line is None:
                    raise Malformed(f"longer than {MAX_LINE_BYTES} bytes")
                if not line.strip():
                    continue
                annotation = _annotation(parse_line(line, form), sequence_name, place, taxonomy)
                first = line_of_frame.setdefault(annotation.frame, number)
                if first != number:
                    raise Malformed(f"duplicate: frame {annotation.frame + 1} already has line {first}")
            except Malformed as error:
                yield Problem(path, number, str(error))
            else:
                yield annotation
    except OSError as error:
        yield Problem(path, None, f"cannot be read ({error.strerror or error})")


class _Place:
    """Which frame (0-based) a line of a file belongs to, see iter_annotations.

    `frame_id` and `frame_file` may not contradict each other. Where they differ by one, other lines of the file can tell
    that its ids count from 0: a line with 0 does, which is harmless where all names are images; and so do names, none of
    which is an image, that all count one more than their ids, which is an error.
    """

    def __init__(self, path, frame_files):
        self.path, self.folder = path, os.path.dirname(os.path.dirname(path))
        self.position = {name: index for index, name in enumerate(frame_files or ())}
        self.count = MAX_LINES if frame_files is None else len(frame_files)
        self.names_are_ahead = None if self.position else False  # None: no such name was met

    def of(self, line):
        """The frame of a line whose frame_id is not the position of its frame_file."""
        frame, named = line.frame_id - 1, self.position.get(line.frame_file)
        if named is not None:
            if named == line.frame_id and self.counts_from_0:
                return named
            raise Malformed(
                f"frame_id {reprlib.repr(line.frame_id)} and frame_file {reprlib.repr(line.frame_file)} contradict each other: "
                f"that image is number {named + 1}. (frame_id counts from 1, or from 0 in a file that has a line with 0.)"
            )
        if not 0 <= frame < self.count:
            raise Malformed(
                f"frame out of range: there is no image {reprlib.repr(line.frame_file)}, and frame_id "
                f"{reprlib.repr(line.frame_id)} is not in 1..{self.count}"
            )
        if self.names_are_ahead is None:
            _say_by_position(self.folder)
            self.names_are_ahead = _is_ahead(line.frame_id, line.frame_file) and self.all_are_ahead
        if self.names_are_ahead:
            raise Malformed(
                f"frame_file {reprlib.repr(line.frame_file)} is no image, and counts one more than frame_id "
                f"{reprlib.repr(line.frame_id)}, as all such lines do. frame_id counts from 1"
            )
        return frame

    @functools.cached_property
    def counts_from_0(self):
        return any(number == 0 for number, _ in self.lines) and all(file in self.position for _, file in self.lines)

    @functools.cached_property
    def all_are_ahead(self):
        foreign = [(number, file) for number, file in self.lines if file not in self.position]
        return all(_is_ahead(number, file) for number, file in foreign)

    @functools.cached_property
    def lines(self):
        """(frame_id, frame_file) of all lines that have both."""
        found = []
        for _, line in _lines(self.path):
            with suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                entry = _PLACE.decode((line or b"").decode("utf-8-sig"))
                found.append((int(entry.frame_id), entry.frame_file))
        return found


_PLACE = msgspec.json.Decoder(msgspec.defstruct("Place", [("frame_id", int | float), ("frame_file", str)]))


def _is_ahead(number, file):
    """Whether the last number in a name, without its suffix, is one more than this."""
    digits = re.findall("[0-9]+", os.path.splitext(file)[0][-MAX_NAME:])
    return bool(digits) and int(digits[-1]) == number + 1


@functools.cache  # once for each folder of annotations
def _say_by_position(folder):
    logger.warning(
        "%s: some lines have a frame_file that is no image of their sequence. They belong to the image at position frame_id, "
        "which counts from 1.",
        folder,
    )  # fmt: skip


def _lines(path):
    """(1-based number, bytes) of each line; None for the bytes of a line that is too long."""
    for number, line in iter_lines(path, MAX_FILE_BYTES, MAX_LINE_BYTES):
        if number > MAX_LINES:
            raise OSError(f"it has more than {MAX_LINES} lines")
        yield number, line


def _annotation(line, sequence_name, place, taxonomy):
    if line.sequence_name != sequence_name:
        raise Malformed(f"names the sequence {reprlib.repr(line.sequence_name)}, expected {sequence_name!r}")
    frame = line.frame_id - 1
    if place.position.get(line.frame_file) != frame:
        frame = place.of(line)
    flags = [False] * len(taxonomy.challenges)
    if taxonomy.cv:
        measured = line.cv_response
        for flag, column in taxonomy.cv_columns.items():
            flags[column] |= measured[flag] == 1
    if taxonomy.vlm:
        answers = line.vlm_response
        for flag, column in taxonomy.vlm_columns.items():
            flags[column] |= answers[flag]["flag"] == 1
    return Annotation(frame, tuple(flags), line.ground_truth_bbox)
