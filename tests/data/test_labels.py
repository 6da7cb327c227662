import functools
import itertools
import json

import numpy as np
import pytest
from helpers_data import annotation, write_annotations

from hiptrack.data.labels import (
    MAX_LINE_BYTES,
    FrameLabels,
    Problem,
    draw_fixed,
    iter_annotations,
    read_annotations,
)
from hiptrack.errors import DataError
from hiptrack.taxonomy import CV, TEN, VLM

NAME = "1-Ship"
FILES = [f"{i:08d}.jpg" for i in range(1, 6)]


def one_frame(flags):
    return FrameLabels(np.array([flags], bool), np.array([True]), TEN)


def possible_classes(flags):
    """The rule of the reference, section 6, written independently with class numbers."""
    for vlm in (0, 3, 1, 5, 4, 7):
        if flags[vlm]:
            return {vlm}
    return {cv for cv in (2, 6, 8) if flags[cv]} or {9}


def test_priority_rule_for_every_combination_of_flags():
    rng = np.random.default_rng(0)
    for flags in itertools.product((False, True), repeat=9):
        labels = one_frame(flags)
        assert {labels.draw(0, rng) for _ in range(40)} == possible_classes(flags), flags


def test_random_choice_comes_from_the_generator_given_and_is_even():
    labels = one_frame([i in (2, 6, 8) for i in range(9)])

    def draws(seed):
        rng = np.random.default_rng(seed)
        return [labels.draw(0, rng) for _ in range(900)]

    assert draws(5) == draws(5) != draws(6)
    assert all(240 < draws(5).count(index) < 360 for index in (2, 6, 8))


def test_fixed_draw_depends_on_sequence_and_frame_alone():
    flags = np.zeros((60, 9), bool)
    flags[:, [2, 6, 8]] = True
    labels = FrameLabels(flags, np.ones(60, bool), TEN)
    ship = [draw_fixed(labels, "1-Ship", frame) for frame in range(60)]
    assert ship == [draw_fixed(labels, "1-Ship", frame) for frame in range(60)]
    assert set(ship) == {2, 6, 8}
    assert ship != [draw_fixed(labels, "2-Ship", frame) for frame in range(60)]


@pytest.mark.parametrize("flag", [*VLM, *CV])
def test_each_flag_of_a_file_reaches_its_column(tmp_path, flag):
    expected = {
        "occlusion": 0, "illu_change": 1, "scale_variation": 2, "motion_blur": 3, "variance_appear": 4,
        "partial_visibility": 5, "low_res": 6, "background_clutter": 7, "low_contrast": 8,
    }  # fmt: skip
    labels = read_annotations(write_annotations(tmp_path, NAME, [annotation(NAME, 2, [flag])]), NAME, FILES, TEN)
    assert np.argwhere(labels.flags).tolist() == [[1, expected[flag]]]
    assert labels.annotated.tolist() == [False, True, False, False, False]
    assert labels.draw(1, np.random.default_rng(0)) == expected[flag]
    assert labels.draw(0, np.random.default_rng(0)) == -1


def frames_of(tmp_path, lines, files=FILES):
    """The 0-based frames that lines (frame_id, frame_file) belong to; "contradict" or "counts one more" for an error."""
    path = write_annotations(tmp_path, NAME, [annotation(NAME, *line[:1], frame_file=line[1]) for line in lines])
    found = []
    for item in iter_annotations(path, NAME, files, TEN):
        reasons = [words for words in ("contradict", "counts one more", "out of range") if words in str(item)]
        found.append(reasons[0] if isinstance(item, Problem) else item.frame)
    return found


BOTH = "contradict"
FROM_0 = [f"{i:08d}.jpg" for i in range(5)]


@pytest.mark.parametrize(
    "lines, expected, files",
    [
        ([(1, FILES[0]), (4, FILES[3])], [0, 3], FILES),
        ([(4, FILES[3]), (1, FILES[0])], [3, 0], FILES),
        # ids from 0 beside the images' own names: known by the line with 0, wherever it stands
        ([(0, FILES[0]), (3, FILES[3])], [0, 3], FILES),
        ([(3, FILES[3]), (0, FILES[0])], [3, 0], FILES),
        ([(2, FROM_0[2]), (0, FROM_0[0])], [2, 0], FROM_0),
        # and without it not to be told from names that count otherwise than the images
        ([(3, FILES[3])], [BOTH], FILES),
        ([(2, FROM_0[2]), (4, FROM_0[4])], [BOTH, BOTH], FROM_0),
        ([(1, FILES[0]), (3, FILES[3])], [0, BOTH], FILES),
        ([(1, FILES[3])], [BOTH], FILES),
        ([(0, FILES[0]), (1, FILES[3])], [0, BOTH], FILES),
        ([(0, FILES[0]), (2, FILES[2]), (4, "other.jpg")], [BOTH, BOTH, 3], FILES),
        # names that are no images': the position counts
        ([(2, "frame0002.jpg"), (4, "frame0004.jpg")], [1, 3], FILES),
        ([(2, "frame0001.jpg"), (4, "frame0003.jpg")], [1, 3], FILES),
        ([(2, "x.jpg"), (4, "")], [1, 3], FILES),
        ([(1, "cam_v2.jpg"), (4, "cam_v2.jpg")], [0, 3], FILES),
        ([(2, "frame0003.jpg"), (4, "frame0005.jpg")], ["counts one more"] * 2, FILES),
        ([(5, "frame0006.png")], ["counts one more"], FILES),
        ([(0, "frame0001.jpg")], ["out of range"], FILES),
    ],
)
def test_the_frame_of_a_line(tmp_path, lines, expected, files):
    assert frames_of(tmp_path, lines, files) == expected


def test_lines_without_an_image_are_told_once_a_folder(tmp_path, caplog):
    for name in ("a", "b"):
        for sequence in (NAME, "2-Ship"):
            lines = [annotation(sequence, number, frame_file=f"frame{number}.jpg") for number in (2, 4)]
            path = write_annotations(tmp_path / name, sequence, lines)
            assert read_annotations(path, sequence, FILES, TEN).annotated.sum() == 2
    assert [record.args[0] for record in caplog.records] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert "counts from 1" in caplog.text


def test_blank_lines_byte_order_mark_and_missing_newline_are_harmless(tmp_path):
    path = tmp_path / "a.jsonl"
    text = "\n\n".join(json.dumps(annotation(NAME, i)) for i in (1, 2))
    path.write_text(text, encoding="utf-8-sig")
    assert read_annotations(path, NAME, FILES, TEN).annotated.sum() == 2


def changed(*keys, value=None, remove=False):
    line = annotation(NAME, 3)
    inner = line
    for key in keys[:-1]:
        inner = inner[key]
    if remove:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return line


HARMLESS = {
    "flags true and false": [(("cv_response", "low_res"), True), (("vlm_response", "occlusion", "flag"), False)],
    "flags as floats": [(("cv_response", "low_res"), 1.0), (("vlm_response", "occlusion", "flag"), 0.0)],
    "flags as texts": [(("cv_response", "low_res"), "1"), (("vlm_response", "occlusion", "flag"), "0")],
    "an id as a float": [(("frame_id",), 3.0), (("cv_response", "low_res"), 1)],
    "no confidence": [(("vlm_response", "occlusion", "conf"), None), (("cv_response", "low_res"), 1)],
    "no confidence, but null": [(("vlm_response", "occlusion", "conf"), None), (("cv_response", "low_res"), 1)],
    "a confidence in words": [(("vlm_response", "occlusion", "conf"), "high"), (("cv_response", "low_res"), 1)],
    "an endless confidence": [(("vlm_response", "motion_blur", "conf"), float("inf")), (("cv_response", "low_res"), 1)],
}


@pytest.mark.parametrize("case", HARMLESS)
def test_other_spellings_of_the_same_are_read(tmp_path, case):
    line = annotation(NAME, 3)
    for (*keys, last), value in HARMLESS[case]:
        functools.reduce(dict.__getitem__, keys, line)[last] = value
    if case == "no confidence":
        for answer in line["vlm_response"].values():
            del answer["conf"]
    labels = read_annotations(write_annotations(tmp_path, NAME, [line]), NAME, FILES, TEN)
    assert np.argwhere(labels.flags).tolist() == [[2, 6]]


def test_a_flag_given_twice_is_found_where_a_confidence_is_missing(tmp_path):
    """The missing key makes up for the second one in a count of keys."""
    line = annotation(NAME, 3)
    del line["vlm_response"]["occlusion"]["conf"]
    text = json.dumps(line).replace('"low_res": 0', '"low_res": 1, "low_res": 0')
    with pytest.raises(DataError, match="gives 'low_res' twice in one object"):
        read_annotations(write_annotations(tmp_path, NAME, [text]), NAME, FILES, TEN)


MALFORMED = {
    "not json": ("{'sequence_name': 1}", "not JSON"),
    "cut off": (json.dumps(annotation(NAME, 3))[:-9], "not JSON"),
    "nested": ("[" * 100_000, "not JSON"),
    "endless number": ('{"frame_id": ' + "1" * 5000 + "}", "not JSON"),
    "no object": ("[1, 2]", "'the line' is [1, 2]: expected `object`, got `array`"),
    "no name": (changed("sequence_name", remove=True), "missing required field `sequence_name`"),
    "no box": (changed("ground_truth_bbox", remove=True), "missing required field `ground_truth_bbox`"),
    "no cv flag": (
        changed("cv_response", "low_res", remove=True),
        "'cv_response' is {'low_contrast': 0, 'scale_variation': 0}: object missing",
    ),
    "no vlm flag": (
        changed("vlm_response", "occlusion", "flag", remove=True),
        "'vlm_response.occlusion' is {'conf': 0.5}: object missing required field `flag`",
    ),
    "flag 2": (changed("cv_response", "low_res", value=2), "'cv_response.low_res' is 2: expected `int` <= 1"),
    "flag in words": (changed("vlm_response", "occlusion", "flag", value="yes"), "is 'yes': expected `int`, got `str`"),
    "flag between": (changed("cv_response", "low_res", value=0.5), "is 0.5: expected `int`, got `float`"),
    "flag none": (changed("cv_response", "low_res", value=None), "is None: expected `int`, got `null`"),
    "flag list": (changed("cv_response", "low_res", value=[1]), "is [1]: expected `int`, got `array`"),
    "id between": (changed("frame_id", value=3.5), "'frame_id' is 3.5: expected `int`, got `float`"),
    "id true": (changed("frame_id", value=True), "'frame_id' is True: expected `int`, got `bool`"),
    "vlm number": (
        changed("vlm_response", "occlusion", value=1),
        "'vlm_response.occlusion' is 1: expected `object`, got `int`",
    ),
    "id text": (changed("frame_id", value="3"), "'frame_id' is '3': expected `int`, got `str`"),
    "three numbers": (changed("ground_truth_bbox", value=[1, 2, 3]), "expected `array` of length 4"),
    "nan box": (
        changed("ground_truth_bbox", value=[1, 2, 3, float("nan")]),
        "'ground_truth_bbox[3]' is nan: expected `float` >= -1000000",
    ),
    "box beyond float": (changed("ground_truth_bbox", value=[1, 2, 3, 10**400]), "number out of range"),
    "huge box": (changed("ground_truth_bbox", value=[1, 2, 3, 1e300]), "expected `float` <= 1000000"),
    "name twice": ('{"frame_id": 2, ' + json.dumps(annotation(NAME, 3))[1:], "gives 'frame_id' twice in one object"),
    "flag twice": (
        json.dumps(annotation(NAME, 3)).replace('"low_res": 0', '"low_res": 1, "low_res": 0'),
        "gives 'low_res' twice in one object",
    ),
    "frame beyond all": (annotation(NAME, 10**900, frame_file="x.jpg"), "frame out of range"),
    "other sequence": (annotation("2-Ship", 3), "names the sequence '2-Ship', expected '1-Ship'"),
    "beyond the end": (annotation(NAME, 6), "frame out of range"),
    "frame zero": (annotation(NAME, 0, frame_file="x.jpg"), "frame out of range"),
    "duplicate": (annotation(NAME, 1), "duplicate: frame 1 already has line 1"),
    "long": (changed("frame_file", value="x" * MAX_LINE_BYTES), "longer than 1048576 bytes"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_line_names_file_line_and_reason(tmp_path, case):
    line, reason = MALFORMED[case]
    path = write_annotations(tmp_path, NAME, [annotation(NAME, 1), annotation(NAME, 2), line, annotation(NAME, 4)])
    with pytest.raises(DataError) as error:
        read_annotations(path, NAME, FILES, TEN)
    text = str(error.value)
    assert text.startswith(f"{path}:3: ")
    assert reason in text
    assert "hiptrack check-annotations" in text
    assert len(text) < 600

    items = list(iter_annotations(path, NAME, FILES, TEN))
    assert [item.line for item in items if isinstance(item, Problem)] == [3]
    assert len(items) == 4


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xff\xfe{"a": 1}\n')
    with pytest.raises(DataError, match=r"a.jsonl:1: not JSON .*'utf-8' codec can't decode byte 0xff"):
        read_annotations(path, NAME, FILES, TEN)


def test_a_file_of_any_number_of_lines_is_not_read(tmp_path, monkeypatch):
    path = write_annotations(tmp_path, NAME, [annotation(NAME, 1), "", "", "x", annotation(NAME, 2)])
    monkeypatch.setattr("hiptrack.data.labels.MAX_LINES", 3)
    items = list(iter_annotations(path, NAME, FILES, TEN))
    assert [str(item) for item in items[1:]] == [f"{path}: cannot be read (it has more than 3 lines)"]
    assert items[0].frame == 0


def test_missing_file_and_folder_in_its_place(tmp_path):
    with pytest.raises(DataError, match=r"none.jsonl: cannot be read \(No such file"):
        read_annotations(tmp_path / "none.jsonl", NAME, FILES, TEN)
    with pytest.raises(DataError, match="not a regular file"):
        read_annotations(tmp_path, NAME, FILES, TEN)


def test_without_image_names_the_number_decides(tmp_path):
    path = write_annotations(tmp_path, NAME, [annotation(NAME, 900, frame_file="00000001.jpg")])
    assert [item.frame for item in iter_annotations(path, NAME, None, TEN)] == [899]
