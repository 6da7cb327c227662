import sys

import numpy as np
import pytest
from helpers_data import annotation, write_annotations, write_lines, write_split

from hiptrack.cli import console
from hiptrack.data.annotation_report import check_annotations, format_report
from hiptrack.errors import DataError

BOXES = [(10, 20, 30, 40), (12, 20, 30, 40), (14, 20, 30, 40)]
CORNERS = [(x, y, x + w, y + h) for x, y, w, h in BOXES]


@pytest.fixture
def labels(tmp_path):
    """Two annotated sequences, boxes written as corners: four lines, two frames of `b` without one."""
    lines = [annotation("a", i, flags, box=CORNERS[i - 1]) for i, flags in ((1, ["occlusion", "low_res"]), (2, []))]
    write_annotations(tmp_path / "labels", "a", [*lines, annotation("a", 3, ["low_res"], box=CORNERS[2])])
    write_annotations(tmp_path / "labels", "b", [annotation("b", 2, ["motion_blur"], box=CORNERS[1])])
    return tmp_path / "labels"


def test_counts_per_class_and_flag(labels):
    report = check_annotations(str(labels))
    assert (report.sequences, report.lines, report.problems) == (2, 4, [])
    assert report.class_counts.tolist() == [1, 0, 0, 1, 0, 0, 1, 0, 0, 1]
    assert report.flag_counts.tolist() == [1, 0, 0, 1, 0, 0, 2, 0, 0]
    text = format_report(report)
    assert "2 sequences, 4 lines, 0 problems" in text
    assert "frames without a valid line: not done" in text
    assert "agreement of ground_truth_bbox: not done" in text


def test_no_name_fakes_a_line_or_steers_the_terminal(tmp_path):
    name = "a\n7 sequences, 5 lines, 0 problems\x1b[2J\u202e"
    write_annotations(tmp_path / "labels", name, ["{", annotation(name, 1)])
    (tmp_path / "labels" / f"{name}2").mkdir()
    report = check_annotations(str(tmp_path / "labels"), str(tmp_path / "labels"))
    lines = format_report(report).split("\n")
    assert all(line.isprintable() for line in lines)
    assert [line for line in lines if line.endswith(" problems")] == [
        f"1 sequences, 2 lines, {len(report.problems)} problems"
    ]
    assert len(report.problems) > 1 and any(line.startswith("folders without") for line in lines)


@pytest.mark.parametrize("layout", ["", "train", "val", "test"])
def test_agreement_with_the_ground_truth_for_both_readings(labels, tmp_path, layout):
    write_split(tmp_path / "data" / layout, {"a": BOXES, "b": BOXES})
    report = check_annotations(str(labels), str(tmp_path / "data"))
    assert (report.frames, report.annotated, len(report.truth)) == (6, 4, 4)
    agreement = report.agreement()
    assert agreement["xyxy"] == (1, 1)
    overlaps = [30 * 40 / ((x + 30) * (y + 40)) for x, y, *_ in (BOXES[0], BOXES[1], BOXES[2], BOXES[1])]
    assert agreement["xywh"] == pytest.approx((np.mean(overlaps), 0))
    text = format_report(report)
    assert "frames without a valid line: 2 of 6" in text
    assert "read as xyxy: mean IoU 1.000, IoU > 0.9 in 100.0%" in text


def test_boxes_written_as_xywh(tmp_path):
    lines = [annotation("a", i, box=BOXES[i - 1]) for i in (1, 2, 3)]
    write_annotations(tmp_path / "labels", "a", lines)
    write_split(tmp_path / "data", {"a": BOXES})
    agreement = check_annotations(str(tmp_path / "labels"), str(tmp_path / "data")).agreement()
    assert agreement["xywh"] == (1, 1)
    assert agreement["xyxy"][1] == 0


def test_only_frames_with_ground_truth_are_compared(labels, tmp_path):
    write_split(tmp_path / "data", {"a": BOXES, "b": BOXES})
    write_lines(tmp_path / "data" / "a" / "groundtruth.txt", ["10,20,30,40"])
    (tmp_path / "data" / "b" / "groundtruth.txt").unlink()
    report = check_annotations(str(labels), str(tmp_path / "data"))
    assert report.problems == []
    assert len(report.truth) == 1
    (tmp_path / "data" / "a" / "groundtruth.txt").unlink()
    text = format_report(check_annotations(str(labels), str(tmp_path / "data")))
    assert "frames without a valid line: 2 of 6" in text
    assert "agreement of ground_truth_bbox: not done" in text


def test_sequences_that_the_data_lack_are_named(labels, tmp_path):
    write_split(tmp_path / "data" / "train", {"a": BOXES})
    report = check_annotations(str(labels), str(tmp_path / "data"))
    assert report.not_found == ["b"]
    assert report.problems == []
    assert report.class_counts.sum() == 4
    assert "sequences without frames in the data: b" in format_report(report)


def test_every_problem_is_listed_and_the_rest_is_counted(labels, tmp_path):
    path = write_annotations(
        labels,
        "c",
        ["no json", annotation("c", 1), annotation("x", 2), annotation("c", 1), annotation("c", 9)],
    )
    write_split(tmp_path / "data", {"a": BOXES, "b": BOXES, "c": BOXES})
    write_lines(tmp_path / "data" / "b" / "groundtruth.txt", ["1,2,3,4", "1,2,3", "1,2,3,4"])
    report = check_annotations(str(labels), str(tmp_path / "data"))
    starts = [
        f"{tmp_path}/data/b/groundtruth.txt:2: '1,2,3' is not a box",
        f"{path}:1: not JSON",
        f"{path}:3: names the sequence 'x'",
        f"{path}:4: duplicate: frame 1 already has line 2",
        f"{path}:5: frame out of range",
    ]
    assert [problem.startswith(start) for problem, start in zip(report.problems, starts, strict=True)] == [True] * 5
    assert (report.lines, report.class_counts.sum(), report.annotated, report.frames) == (9, 5, 5, 9)


def test_a_flag_that_all_lines_lack_is_one_line(tmp_path):
    for name, frames in (("a", 3), ("b", 2)):
        lines = [annotation(name, frame) for frame in range(1, frames + 1)]
        for line in lines:
            del line["vlm_response"]["occlusion"]
            line["vlm_response"]["motion_blur"]["conf"] = line["frame_id"] / 10
        write_annotations(tmp_path / "labels", name, lines)
    write_split(tmp_path / "data", {"a": BOXES, "b": BOXES[:2]})
    report = check_annotations(str(tmp_path / "labels"), str(tmp_path / "data"))
    assert len(report.problems) == 5
    first, counts = format_report(report).splitlines()[:2]
    assert "/a/a.jsonl:1: 'vlm_response' is {" in first and "}: object missing required field `occlusion`" in first
    assert first.endswith("(4 more like it; files: 2)") and counts == "2 sequences, 5 lines, 5 problems"
    assert "agreement of ground_truth_bbox: not done (no line is valid)" in format_report(report)


def test_data_without_the_sequences(labels, tmp_path):
    (tmp_path / "data" / "z").mkdir(parents=True)
    text = format_report(check_annotations(str(labels), str(tmp_path / "data")))
    assert text.count("not done (the data have none of these sequences)") == 2 and "see --data" not in text


def test_sequence_in_two_splits_is_a_problem(labels, tmp_path):
    for split in ("train", "test"):
        write_split(tmp_path / "data" / split, {"a": BOXES})
    problems = check_annotations(str(labels), str(tmp_path / "data")).problems
    assert len(problems) == 1
    assert "also lies in" in problems[0]


def test_folder_without_its_own_file_is_named(labels):
    (labels / "d").mkdir()
    assert "folders without an annotation file of their own: d" in format_report(check_annotations(str(labels)))


def test_missing_folders(labels, tmp_path):
    none = str(tmp_path / "none")
    for arguments in ((none,), (str(labels), none)):
        with pytest.raises(DataError, match=f"{none}: does not exist"):
            check_annotations(*arguments)
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="empty: no annotation file in 1 folders"):
        check_annotations(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    "folder, code, told, error",
    [
        ("labels", 0, "2 sequences, 4 lines, 0 problems", ""),
        ("broken", 1, "c.jsonl:2: not JSON", ""),
        ("none", 1, "", "error: "),
    ],
)
def test_the_command_prints_what_is_wrong_and_its_exit_code_says_so(
    labels, tmp_path, monkeypatch, capsys, folder, code, told, error
):
    write_annotations(tmp_path / "broken", "c", [annotation("c", 1), "no json"])
    monkeypatch.setattr(sys, "argv", ["hiptrack", "check-annotations", str(tmp_path / folder)])
    with pytest.raises(SystemExit) as exit_info:
        console()
    output = capsys.readouterr()
    assert exit_info.value.code == code
    assert told in output.out and output.err.startswith(error) and bool(output.err) == bool(error)
