"""Challenge labels of frames: reading annotation files and choosing one class per frame.

An annotation file is `<dir>/<sequence>/<sequence>.jsonl`, one JSON object a line, with the fields
`sequence_name`, `frame_id`, `frame_file`, `cv_response`, `vlm_response` and `ground_truth_bbox`
(the project's reference, section 6).
"""

import json
import os
import re
import reprlib
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, TypedDict

import msgspec
import numpy as np

from hiptrack.errors import DataError
from hiptrack.files import check_file

CLASSES = (
    "occlusion",
    "illumination_change",
    "scale_variation",
    "motion_blur",
    "appearance_variation",
    "partial_visibility",
    "low_resolution",
    "background_clutter",
    "low_contrast",
    "normal",
)
NORMAL = CLASSES.index("normal")

# Names of the flags in the files -> class; those of `vlm_response` in the order of their priority.
VLM_FLAGS = {
    "occlusion": CLASSES.index("occlusion"),
    "motion_blur": CLASSES.index("motion_blur"),
    "illu_change": CLASSES.index("illumination_change"),
    "partial_visibility": CLASSES.index("partial_visibility"),
    "variance_appear": CLASSES.index("appearance_variation"),
    "background_clutter": CLASSES.index("background_clutter"),
}
CV_FLAGS = {
    "scale_variation": CLASSES.index("scale_variation"),
    "low_res": CLASSES.index("low_resolution"),
    "low_contrast": CLASSES.index("low_contrast"),
}

MAX_LINE_BYTES = 2**20
MAX_FILE_BYTES = 2**28
MAX_LINES = 10**6
MAX_COORDINATE = 1e6  # pixels

Coordinate = Annotated[float, msgspec.Meta(ge=-MAX_COORDINATE, le=MAX_COORDINATE)]
Box = tuple[Coordinate, Coordinate, Coordinate, Coordinate]
Flag = Annotated[int, msgspec.Meta(ge=0, le=1)]
Confidence = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]


class Answer(TypedDict):
    flag: Flag
    conf: int | Confidence


class AnnotationLine(msgspec.Struct):
    """The form of a line; other keys are allowed."""

    sequence_name: str
    frame_id: int
    frame_file: str
    cv_response: TypedDict("cv_response", dict.fromkeys(CV_FLAGS, Flag))
    vlm_response: TypedDict("vlm_response", dict.fromkeys(VLM_FLAGS, Answer))
    ground_truth_bbox: Box


# The colons of a line that holds each key once and nothing else: more may hide a key that is given twice.
KEYS = len(AnnotationLine.__struct_fields__) + len(CV_FLAGS) + 3 * len(VLM_FLAGS)
LINES = msgspec.json.Decoder(AnnotationLine)


@dataclass(frozen=True, eq=False)
class FrameLabels:
    """Challenge flags of a sequence of N frames.

    `flags`: [N, 9] bool, columns in the order of `CLASSES` without "normal".
    `annotated`: [N] bool, False for a frame without an annotation line (its flags are all False).
    """

    flags: np.ndarray
    annotated: np.ndarray

    def draw(self, frame: int, rng: np.random.Generator) -> int:
        """Class 0..9 of a frame (0-based) by the priority rule, -1 where it has no annotation."""
        return draw_class(self.flags[frame], rng) if self.annotated[frame] else -1

    def multi_hot(self, frames: Sequence[int]) -> np.ndarray:
        """All classes of some frames (0-based) at once: [len(frames), 10] float32, 1 for each set flag and for "normal"
        where none is set, else 0; rows of -1 where a frame has no annotation."""
        flags = self.flags[frames]
        rows = np.column_stack((flags, ~flags.any(1))).astype(np.float32)
        rows[~self.annotated[frames]] = -1
        return rows


def class_names(count):
    """Names of `count` classes: `CLASSES`, or numbers where a model has been given others."""
    return list(CLASSES) if count == len(CLASSES) else [f"class {place}" for place in range(count)]


def draw_class(flags: Sequence[bool], rng: np.random.Generator) -> int:
    """[9] flags -> class: first set one of `vlm_response`, else random one of `cv_response`, else normal."""
    for index in VLM_FLAGS.values():
        if flags[index]:
            return index
    candidates = [index for index in CV_FLAGS.values() if flags[index]]
    return candidates[rng.integers(len(candidates))] if candidates else NORMAL


def fixed_generator(sequence_name: str, frame: int) -> np.random.Generator:
    """The generator of a frame (0-based) outside training: the same in every run."""
    return np.random.default_rng([zlib.crc32(sequence_name.encode("utf-8", "surrogateescape")), frame])


def draw_fixed(labels: FrameLabels, sequence_name: str, frame: int) -> int:
    """`labels.draw` outside training: depends on the sequence's name and the frame alone."""
    return labels.draw(frame, fixed_generator(sequence_name, frame))


def unlabelled(frames: int) -> FrameLabels:
    return FrameLabels(np.zeros((frames, len(CLASSES) - 1), bool), np.zeros(frames, bool))


def annotation_path(directory: str, sequence_name: str) -> str:
    return os.path.join(directory, sequence_name, f"{sequence_name}.jsonl")


@dataclass(frozen=True)
class Annotation:
    """One valid line: `frame` 0-based, `flags` nine bools in class order, `box` as written in the file."""

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


def read_annotations(path: str, sequence_name: str, frame_files: list[str]) -> FrameLabels:
    """Labels of a sequence whose images are called `frame_files` (names without folder, in order).

    Raises DataError with file, line and reason at the first malformed line.
    """
    labels = unlabelled(len(frame_files))
    for item in iter_annotations(path, sequence_name, frame_files):
        if isinstance(item, Problem):
            raise DataError(
                f"{item}. Expected one annotation object a line for sequence {sequence_name!r}; correct the "
                "file (hiptrack check-annotations lists every malformed line)."
            )
        labels.flags[item.frame] = item.flags
        labels.annotated[item.frame] = True
    return labels


def iter_annotations(path: str, sequence_name: str, frame_files: list[str] | None) -> Iterator[Annotation | Problem]:
    """Every line of an annotation file, in order, as an Annotation or as a Problem.

    A line belongs to the frame whose image is called `frame_file`, else to the frame at the 1-based
    position `frame_id`. Where the images are not known (`frame_files` None), `frame_id` alone counts.
    Blank lines are passed over.
    """
    position = {name: index for index, name in enumerate(frame_files or ())}
    count = MAX_LINES if frame_files is None else len(frame_files)
    line_of_frame = {}
    try:
        for number, line in _lines(path):
            try:
                if line is None:
                    raise _Malformed(f"longer than {MAX_LINE_BYTES} bytes")
                if not line.strip():
                    continue
                annotation = _annotation(_parse(line), sequence_name, position, count)
                first = line_of_frame.setdefault(annotation.frame, number)
                if first != number:
                    raise _Malformed(f"duplicate: frame {annotation.frame + 1} already has line {first}")
            except _Malformed as error:
                yield Problem(path, number, str(error))
            else:
                yield annotation
    except OSError as error:
        yield Problem(path, None, f"cannot be read ({error.strerror or error})")


class _Malformed(Exception):
    """The reason why a line is no annotation."""


def _lines(path):
    """(1-based number, bytes) of each line; None for the bytes of a line that is too long."""
    check_file(path, MAX_FILE_BYTES)
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if number > MAX_LINES:
                raise OSError(f"it has more than {MAX_LINES} lines")
            too_long = len(line) > MAX_LINE_BYTES
            while too_long and line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
            yield number, None if too_long else line


def _parse(line):
    """Bytes -> AnnotationLine. Python's slower parser decides where msgspec refuses, or may have seen a key twice."""
    try:
        text = line.decode("utf-8-sig")
        with suppress(msgspec.DecodeError, RecursionError):
            fields = LINES.decode(text)
            if text.count(":") == KEYS:
                return fields
        record = json.loads(text, object_pairs_hook=_object)
        return msgspec.convert(record, AnnotationLine)
    except msgspec.ValidationError as error:
        raise _Malformed(_explain(str(error), record)) from None
    except json.JSONDecodeError as error:
        raise _Malformed(f"not JSON ({error.msg} at column {error.colno})") from None
    except (RecursionError, ValueError) as error:
        raise _Malformed(f"not JSON that can be read ({error})") from None


def _object(pairs):
    record = {}
    for name, value in pairs:
        if name in record:
            raise _Malformed(f"gives {reprlib.repr(name)} twice in one object")
        record[name] = value
    return record


def _explain(error, value):
    """msgspec's words ("Expected `int` <= 1 - at `$.cv_response.low_res`") with the value found there."""
    expected, _, place = error.partition(" - at `$")
    for key in re.findall(r"[^.`\[\]]+", place):
        value = value[key] if isinstance(value, dict) else value[int(key)]
    return f"'{place.strip('.`') or 'the line'}' is {reprlib.repr(value)}: {expected[0].lower()}{expected[1:]}"


def _annotation(line, sequence_name, position, count):
    if line.sequence_name != sequence_name:
        raise _Malformed(f"names the sequence {reprlib.repr(line.sequence_name)}, expected {sequence_name!r}")
    frame = position.get(line.frame_file, line.frame_id - 1)
    if not 0 <= frame < count:
        raise _Malformed(
            f"frame out of range: there is no image {reprlib.repr(line.frame_file)}, and frame_id "
            f"{reprlib.repr(line.frame_id)} is not in 1..{count}"
        )
    flags = [False] * (len(CLASSES) - 1)
    for key, index in CV_FLAGS.items():
        flags[index] = line.cv_response[key] == 1
    for key, index in VLM_FLAGS.items():
        flags[index] = line.vlm_response[key]["flag"] == 1
    return Annotation(frame, tuple(flags), line.ground_truth_bbox)
