"""Annotation lines: whatever a line holds, its own label or a problem comes out, and its neighbours are read."""

import copy
import json
import re

from helpers_data import annotation
from hypothesis import strategies as st
from soak.fuzz_core import Folder, Tally, check_words, damaged, damages, made, run

from hiptrack.data.labels import MAX_LINE_BYTES, Problem, iter_annotations, read_annotations
from hiptrack.errors import DataError
from hiptrack.taxonomy import TEN

NAME = "1-Ship"
FILES = [f"{i:08d}.jpg" for i in range(1, 7)]
CV = {"scale_variation": 2, "low_res": 6, "low_contrast": 8}
VLM = {
    "occlusion": 0, "motion_blur": 3, "illu_change": 1, "partial_visibility": 5, "variance_appear": 4, "background_clutter": 7,
}  # fmt: skip
FIELDS = [
    ("sequence_name",), ("frame_id",), ("frame_file",), ("cv_response",), ("vlm_response",), ("ground_truth_bbox",),
    *(("cv_response", key) for key in CV), *(("vlm_response", key) for key in VLM),
    *(("vlm_response", key, part) for key in VLM for part in ("flag", "conf")),
    *(("ground_truth_bbox", place) for place in range(4)),
]  # fmt: skip
ODD = [
    None, True, False, 0, 1, 2, -1, 7, 0.0, 1.0, -0.5, 1e308, 1e7, -1e-320, 10**400, -(10**18), float("nan"), float("inf"),
    "", "1", "x" * 500, "\ud800", "\x00\n", "00000002.jpg", NAME, "2-Ship", [], {}, [1], [[]], {"flag": 1, "conf": 0.5},
    [1, 2, 3], [1, 2, 3, 4, 5], [10**400] * 4, ["1", "2", "3", "4"],
]  # fmt: skip
WHOLE = [
    b"", b" \t ", b"\r", b"{}", b"[]", b"null", b"3", b'"text"', b"\xff\xfe", b"\xef\xbb\xbf", b"\x00" * 9, b"[" * 9999, b'{"a":' * 9999,
    b"1" * 9999, b'{"frame_id": ' + b"1" * 9999 + b"}", b"x" * (MAX_LINE_BYTES + 1), b'"' + b"y" * MAX_LINE_BYTES + b'"', b"-", b"1e999",
]  # fmt: skip

valid = st.builds(
    annotation,
    st.just(NAME),
    st.integers(3, 6),
    st.sets(st.sampled_from([*CV, *VLM])),
    box=st.tuples(*[st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6)] * 4),
)
EDITS = [("set", field, value) for field in FIELDS for value in ODD]
EDITS += [(what, field, 1) for what in ("drop", "rename", "twice") for field in FIELDS for _ in range(5)]
edited = st.tuples(valid, made(lambda rng: rng.sample(EDITS, rng.randint(1, 2))), st.just([]))
cases = st.one_of(
    st.tuples(valid, st.just([]), st.just([])),
    edited,
    edited,
    edited,
    st.tuples(valid, st.just([]), damages(3)),
    st.tuples(st.sampled_from(WHOLE), st.just([]), st.just([]) | damages(1)),
)


def fuzz_annotations(count: int, seed: int) -> Tally:
    """Each case: a sound line, one that may be anything, and another sound one, in one file."""
    with Folder() as folder:
        return run("annotation lines", cases, lambda case: _check(folder, *case), count, seed)


def _check(folder, line, field_edits, changes):
    clean = not field_edits and not changes and isinstance(line, dict)
    middle = damaged(line if isinstance(line, bytes) else _edited(line, field_edits), changes)
    first, last = (json.dumps(annotation(NAME, i, ["occlusion", "low_res"])).encode() for i in (1, 2))
    content = b"\n".join((first, middle, last)) + b"\n"
    path = str(folder.write("a.jsonl", content))
    lines = content.split(b"\n")[:-1]
    expected = _expected(lines)

    found = list(iter_annotations(path, NAME, FILES, TEN))
    assert len(found) == len(expected), f"{len(found)} lines came out of {len(expected)}"
    for item, (number, label) in zip(found, expected):
        if label is None:
            assert isinstance(item, Problem) and item.line == number, f"line {number}: {item}"
            check_words(DataError(str(item)), f"{path}:{number}: ")
        else:
            assert not isinstance(item, Problem), str(item)
            assert (item.frame, item.flags, item.box) == label, f"line {number} became {item}"
    if clean:
        assert [number for number, label in expected if label] == [1, 2, 3]
        assert expected[1][1] == (line["frame_id"] - 1, _flags(line), tuple(map(float, line["ground_truth_bbox"])))

    wrong = [number for number, label in expected if label is None]
    try:
        labels = read_annotations(path, NAME, FILES, TEN)
    except DataError as error:
        assert wrong, f"refused without a problem: {error}"
        check_words(error, f"{path}:{wrong[0]}: ")
        return False
    finally:
        folder.check()
    assert not wrong, f"lines {wrong} were taken"
    rows = {frame: flags for _, (frame, flags, _) in expected}
    assert labels.annotated.tolist() == [frame in rows for frame in range(len(FILES))]
    assert [tuple(row) for row in labels.flags.tolist()] == [
        rows.get(frame, (False,) * 9) for frame in range(len(FILES))
    ]
    return True


def _edited(record, field_edits):
    """The line of a record after (what, field, value) edits."""
    record, twice = copy.deepcopy(record), {}
    for what, (*parents, field), value in field_edits:
        inner = record
        try:
            for key in parents:
                inner = inner[key]
            inner[field]
        except (KeyError, TypeError, IndexError):
            continue  # an earlier edit took it away
        if what == "set":
            inner[field] = value
        elif what == "twice" and not parents:
            twice[field] = value
        elif what == "rename" and isinstance(field, str):
            inner[field.upper()] = inner.pop(field)
        elif isinstance(inner, (dict, list)):
            del inner[field]
    text = json.dumps(record)
    extra = json.dumps(twice)[1:-1]
    return (f"{text[:-1]}, {extra}}}" if extra else text).encode("utf-8", "surrogatepass")


def _flags(record):
    flags = [False] * 9
    for key, column in CV.items():
        flags[column] = record["cv_response"][key] in (1, "1")
    for key, column in VLM.items():
        flags[column] = record["vlm_response"][key]["flag"] in (1, "1")
    return tuple(flags)


def _expected(lines):
    """[(line number, (frame, flags, box) or None)] of the lines that are not blank, by the format's own words."""
    result, taken = [], set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        label = _label(line, _ahead(lines))
        if label is not None and label[0] in taken:
            label = None
        if label is not None:
            taken.add(label[0])
        result.append((number, label))
    return result


def _ahead(lines):
    """Whether all names that are no images count one more than the ids beside them."""
    foreign = []
    for line in lines:
        try:
            record = json.loads(line.decode("utf-8-sig"))
            number, file = record["frame_id"], record["frame_file"]
        except (ValueError, RecursionError, KeyError, TypeError):
            continue
        if type(number) in (int, float) and type(file) is str and file not in FILES:
            foreign.append(_number_in(file) == number + 1)
    return all(foreign)


def _number_in(file):
    digits = re.findall("[0-9]+", file.rpartition(".")[0] or file)
    return int(digits[-1]) if digits else None


def _label(line, ahead):
    if len(line) + 1 > MAX_LINE_BYTES:
        return None
    try:
        record = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_unique)
        flags = [record["cv_response"][key] for key in CV]
        answers = [record["vlm_response"][key] for key in VLM]
        flags += [answer["flag"] for answer in answers]
        box, number, file = record["ground_truth_bbox"], record["frame_id"], record["frame_file"]
        named = record["sequence_name"] == NAME
    except (ValueError, RecursionError, KeyError, TypeError, IndexError):
        return None
    if type(number) is float and number.is_integer():
        number = int(number)
    if not (named and type(number) is int and type(file) is str and type(box) is list and len(box) == 4):
        return None
    if not all(type(flag) in (int, bool, float, str) and flag in (0, 1, "0", "1") for flag in flags):
        return None
    if not all(type(value) in (int, float) and -(10**6) <= value <= 10**6 for value in box):
        return None
    frame = number - 1
    if file in FILES:
        if FILES.index(file) != frame:
            return None
    elif ahead and _number_in(file) == number + 1:
        return None
    return (frame, _flags(record), tuple(map(float, box))) if 0 <= frame < len(FILES) else None


def _unique(pairs):
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)
