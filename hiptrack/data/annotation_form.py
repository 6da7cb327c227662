"""One line of an annotation file: the form that it has, and other spellings of the same."""

import functools
import json
import re
import reprlib
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, TypedDict

import msgspec

from hiptrack.taxonomy import Taxonomy

MAX_COORDINATE = 1e6  # pixels

Coordinate = Annotated[float, msgspec.Meta(ge=-MAX_COORDINATE, le=MAX_COORDINATE)]
Box = tuple[Coordinate, Coordinate, Coordinate, Coordinate]
Flag = Annotated[int, msgspec.Meta(ge=0, le=1)]
Confidence = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]


class Answer(TypedDict):
    flag: Flag


class WholeAnswer(Answer):
    conf: int | Confidence


SPELLINGS = {0: 0, 1: 1, "0": 0, "1": 1}  # of a flag; false, true, 0.0 and 1.0 are equal to the numbers


@dataclass(frozen=True)
class LineForm:
    """What a line holds for the flags that a Taxonomy reads; other keys are allowed.

    decoder: of a line as it should be. colons: those of such a line that holds each key once and nothing else; more may
    hide a key that is given twice. kind: what is left when other spellings are replaced.
    """

    taxonomy: Taxonomy
    decoder: msgspec.json.Decoder
    colons: int
    kind: type


@functools.cache
def line_form(taxonomy: Taxonomy) -> LineForm:
    colons = 4 + len(taxonomy.cv) + 3 * len(taxonomy.vlm) + bool(taxonomy.cv) + bool(taxonomy.vlm)
    return LineForm(taxonomy, msgspec.json.Decoder(_kind(taxonomy, WholeAnswer)), colons, _kind(taxonomy, Answer))


def _kind(taxonomy, answer):
    fields = {"sequence_name": str, "frame_id": int, "frame_file": str}
    if taxonomy.cv:
        fields["cv_response"] = TypedDict("cv_response", dict.fromkeys(taxonomy.cv, Flag))
    if taxonomy.vlm:
        fields["vlm_response"] = TypedDict("vlm_response", dict.fromkeys(taxonomy.vlm, answer))
    return msgspec.defstruct("AnnotationLine", [*fields.items(), ("ground_truth_bbox", Box)])


class Malformed(Exception):
    """The reason why a line is no annotation."""


def parse_line(line: bytes, form: LineForm):
    """Bytes -> a line of `form`. Python's slower parser decides where msgspec refuses, or may have seen a key twice."""
    try:
        text = line.decode("utf-8-sig")
        with suppress(msgspec.DecodeError, RecursionError):
            fields = form.decoder.decode(text)
            if text.count(":") == form.colons:
                return fields
        record = json.loads(text, object_pairs_hook=_object)
        _replace_spellings(record, form.taxonomy)
        return msgspec.convert(record, form.kind)
    except msgspec.ValidationError as error:
        raise Malformed(_explain(str(error), record)) from None
    except json.JSONDecodeError as error:
        raise Malformed(f"not JSON ({error.msg} at column {error.colno})") from None
    except (RecursionError, ValueError) as error:
        raise Malformed(f"not JSON that can be read ({error})") from None


def _object(pairs):
    record = {}
    for name, value in pairs:
        if name in record:
            raise Malformed(f"gives {reprlib.repr(name)} twice in one object")
        record[name] = value
    return record


def _replace_spellings(record, taxonomy):
    """Write flags and the id of a line as they should be where they have another spelling; what is none is left."""
    if not isinstance(record, dict):
        return
    answers = record.get("vlm_response")
    answers = [answers.get(flag) for flag in taxonomy.vlm] if isinstance(answers, dict) else []
    for flags, names in ((record.get("cv_response"), taxonomy.cv), *((answer, ("flag",)) for answer in answers)):
        for name in names if isinstance(flags, dict) else ():
            value = flags.get(name)
            if isinstance(value, (int, float, str)):
                flags[name] = SPELLINGS.get(value, value)
    number = record.get("frame_id")
    if isinstance(number, float) and number.is_integer():
        record["frame_id"] = int(number)


def _explain(error, value):
    """msgspec's words ("Expected `int` <= 1 - at `$.cv_response.low_res`") with the value found there."""
    expected, _, place = error.partition(" - at `$")
    for key in re.findall(r"[^.`\[\]]+", place):
        value = value[key] if isinstance(value, dict) else value[int(key)]
    return f"'{place.strip('.`') or 'the line'}' is {reprlib.repr(value)}: {expected[0].lower()}{expected[1:]}"
