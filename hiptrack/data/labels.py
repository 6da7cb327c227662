"""Challenge labels of frames: reading annotation files and choosing one class per frame.

An annotation file is `<dir>/<sequence>/<sequence>.jsonl`, one JSON object a line, with the fields
`sequence_name`, `frame_id`, `frame_file`, `cv_response`, `vlm_response` and `ground_truth_bbox`
(the project's reference, section 6).
"""

import functools
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
from hiptrack.files import iter_lines
from hiptrack.taxonomy import Taxonomy

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


@functools.cache
def _form(taxonomy):
    """(the form of a line, a msgspec decoder of it, its colons) for the flags that a Taxonomy reads; other keys are allowed.

    The colons are those of a line that holds each key once and nothing else: more may hide a key that is given twice.
    """
    fields = {"sequence_name": str, "frame_id": int, "frame_file": str}
    colons = 4 + len(taxonomy.cv) + 3 * len(taxonomy.vlm) + bool(taxonomy.cv) + bool(taxonomy.vlm)
    if taxonomy.cv:
        fields["cv_response"] = TypedDict("cv_response", dict.fromkeys(taxonomy.cv, Flag))
    if taxonomy.vlm:
        fields["vlm_response"] = TypedDict("vlm_response", dict.fromkeys(taxonomy.vlm, Answer))
    line = msgspec.defstruct("AnnotationLine", [*fields.items(), ("ground_truth_bbox", Box)])
    return line, msgspec.json.Decoder(line), colons


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

    A line belongs to the frame whose image is called `frame_file`, else to the frame at the 1-based
    position `frame_id`. Where the images are not known (`frame_files` None), `frame_id` alone counts.
    Blank lines are passed over.
    """
    position = {name: index for index, name in enumerate(frame_files or ())}
    count = MAX_LINES if frame_files is None else len(frame_files)
    line_of_frame, form = {}, _form(taxonomy)
    try:
        for number, line in iter_lines(path, MAX_FILE_BYTES, MAX_LINE_BYTES):
            if number > MAX_LINES:
                raise OSError(f"it has more than {MAX_LINES} lines")
            try:
                if line is None:
                    raise _Malformed(f"longer than {MAX_LINE_BYTES} bytes")
                if not line.strip():
                    continue
                annotation = _annotation(_parse(line, form), sequence_name, position, count, taxonomy)
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


def _parse(line, form):
    """Bytes -> a line of the form that `_form` gave. Python's slower parser decides where msgspec refuses, or may have seen a key twice."""
    kind, decoder, colons = form
    try:
        text = line.decode("utf-8-sig")
        with suppress(msgspec.DecodeError, RecursionError):
            fields = decoder.decode(text)
            if text.count(":") == colons:
                return fields
        record = json.loads(text, object_pairs_hook=_object)
        return msgspec.convert(record, kind)
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


def _annotation(line, sequence_name, position, count, taxonomy):
    if line.sequence_name != sequence_name:
        raise _Malformed(f"names the sequence {reprlib.repr(line.sequence_name)}, expected {sequence_name!r}")
    frame = position.get(line.frame_file, line.frame_id - 1)
    if not 0 <= frame < count:
        raise _Malformed(
            f"frame out of range: there is no image {reprlib.repr(line.frame_file)}, and frame_id "
            f"{reprlib.repr(line.frame_id)} is not in 1..{count}"
        )
    flags = [False] * len(taxonomy.challenges)
    for flag, column in taxonomy.cv_columns.items():
        flags[column] |= line.cv_response[flag] == 1
    for flag, column in taxonomy.vlm_columns.items():
        flags[column] |= line.vlm_response[flag]["flag"] == 1
    return Annotation(frame, tuple(flags), line.ground_truth_bbox)
