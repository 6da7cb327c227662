"""The builder of data in MVTD's form: what it makes is read as MVTD is, and its flags follow their rules."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers_data import CLIPS, write_lines, write_split
from mvtd_form import RULES, drawn, is_at_the_edge, main, make_mvtd_form

from hiptrack.cli.check_annotations import main as check_annotations
from hiptrack.data.folders import MVTDDataset

FRAMES = 6
NAMES = ["1-Ship", "2-Boat", "3-Sailboat", "4-USV", "5-Ship", "6-Boat", "7-Sailboat", "8-USV"]


@pytest.fixture
def clips(tmp_path):
    """Eight clips of 48x32 px: targets that stand still, but for one that sails to the right edge and one that grows;
    the last frame of the second has no target."""
    still = {f"clip{number}": [(12, 8, 20, 15)] * FRAMES for number in range(8)}
    still["clip0"] = [(15 + 4 * step, 8, 12, 12) for step in range(FRAMES)]
    still["clip2"] = [(2 + step, 8, 2 * step + 8, 2 * step + 8) for step in range(FRAMES)]
    write_split(tmp_path / "clips", still)
    write_lines(tmp_path / "clips" / "clip1" / "absence.label", [0, 0, 0, 0, 0, 1])
    return tmp_path / "clips"


def lines(root, name):
    path = Path(root) / "annotations" / name / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def flags(root, name, part, flag):
    """Whether the flag is set, line by line."""
    values = [line[part][flag] for line in lines(root, name)]
    return [bool(value["flag"] if part == "vlm_response" else value) for value in values]


def check(root, monkeypatch, capsys):
    """What `hiptrack check-annotations` prints; it must find nothing wrong."""
    monkeypatch.setattr(sys, "argv", ["check-annotations", f"{root}/annotations", "--data", str(root)])
    code, said = check_annotations(), capsys.readouterr().out
    assert code == 0 and " 0 problems" in said and "read as xyxy: mean IoU 1.000, IoU > 0.9 in 100.0%" in said, said
    return said


def test_it_is_read_as_mvtd_is(clips, tmp_path, monkeypatch, capsys):
    root = tmp_path / "mvtd"
    make_mvtd_form(clips, root)
    assert sorted(path.name for path in root.iterdir()) == ["annotations", "test", "train"]
    assert not list(root.rglob("list.txt")) and len(list(root.rglob("*.jsonl"))) == 8
    assert (root / "train" / "2-Boat" / "absence.label").exists() and not list((root / "test").rglob("*.label"))

    said = check(root, monkeypatch, capsys)
    assert f"8 sequences, {8 * FRAMES - 1} lines" in said and f"frames without a valid line: 1 of {8 * FRAMES}" in said

    train = MVTDDataset(str(root), "train_full", annotations=f"{root}/annotations")
    test = MVTDDataset(str(root), "test", annotations=f"{root}/annotations")
    assert [sequence.name for sequence in train.sequences] == NAMES[:6]
    assert [sequence.name for sequence in test.sequences] == NAMES[6:]
    assert train.labelled_frames == 6 * FRAMES - 1 and test.labelled_frames == 2 * FRAMES
    assert [Path(frame).name for frame in test.sequences[0].frames[:2]] == ["frame0001.jpg", "frame0002.jpg"]
    original = clips / "clip6" / "00000001.jpg"
    assert Path(test.sequences[0].frames[0]).read_bytes() == original.read_bytes()
    held_out = MVTDDataset(str(root), "val").sequences
    assert len(held_out) == 1 and len(MVTDDataset(str(root), "train").sequences) == 5


def test_flags_follow_the_box(clips, tmp_path):
    make_mvtd_form(clips, tmp_path / "mvtd")
    found = [
        flags(tmp_path / "mvtd", name, part, flag)
        for name, part, flag in (
            ("1-Ship", "vlm_response", "partial_visibility"),  # a pixel from the right edge in the last frame
            ("1-Ship", "vlm_response", "motion_blur"),
            ("4-USV", "vlm_response", "motion_blur"),
            ("3-Sailboat", "cv_response", "scale_variation"),
            ("4-USV", "cv_response", "low_res"),
        )
    ]
    none, every = [False] * FRAMES, [True] * FRAMES
    assert found == [
        [False, False, False, False, False, True],
        [False, *every[1:]],
        none,
        [False, False, True, True, True, True],
        every,
    ]


def test_drawn_flags_are_the_same_each_time_and_last_for_some_frames(clips, tmp_path):
    for name in ("one", "two"):
        make_mvtd_form(clips, tmp_path / name)
    rows = [[lines(tmp_path / root, name) for name in NAMES] for root in ("one", "two")]
    assert rows[0] == rows[1]
    occluded = [flags(tmp_path / "one", name, "vlm_response", "occlusion") for name in NAMES]
    assert all(len(set(row)) == 1 for row in occluded) and len({row[0] for row in occluded}) == 2


def test_a_lab_has_flags_of_its_own(clips, tmp_path):
    rules = {
        "vlm_response": {"glare": drawn("glare", 0.5), "cut": is_at_the_edge},
        "cv_response": {"night": lambda frame: frame.number > 3, "far": lambda frame: frame.sequence == "1-Ship"},
    }
    make_mvtd_form(clips, tmp_path / "lab", rules)
    assert flags(tmp_path / "lab", "4-USV", "cv_response", "night") == [False, False, False, True, True, True]
    assert flags(tmp_path / "lab", "1-Ship", "cv_response", "far") == [True] * FRAMES
    for line in lines(tmp_path / "lab", "1-Ship"):
        assert set(line["vlm_response"]) == {"glare", "cut"} and set(line["cv_response"]) == {"night", "far"}


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not beside the checkout")
def test_the_real_clips_have_every_flag(tmp_path, monkeypatch, capsys):
    root = tmp_path / "mvtd"
    monkeypatch.setattr(sys, "argv", ["mvtd_form.py", str(CLIPS / "val"), str(root)])
    main()
    said = check(root, monkeypatch, capsys)
    assert "8 sequences, 892 lines" in said
    for part, named in RULES.items():
        for flag in named:
            share = np.mean([value for name in NAMES for value in flags(root, name, part, flag)])
            assert 0.01 < share < 0.5, (flag, share)
    assert len(MVTDDataset(str(root), "train_full").sequences) == 6 and len(MVTDDataset(str(root)).sequences) == 2
