"""The baselines on a moving square and, where they lie beside the checkout, on real clips."""

import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from one_sequence import run_sequence
from toy import save_toy

from hiptrack.cli import compare_opencv
from hiptrack.config import REPO_ROOT
from hiptrack.data.folders import FolderDataset
from hiptrack.data.sequence import GOT10K
from hiptrack.errors import DataError, HiptrackError
from hiptrack.evaluation.baselines import MIL, OpenCVTracker, StillBox, pixels_inside
from hiptrack.evaluation.score import evaluate_sequences
from hiptrack.evaluation.table import compare_table

CLIPS = REPO_ROOT.parent / "shared" / "clips"
OPENCV = [
    pytest.param(MIL, id="MIL"),
    pytest.param(partial(OpenCVTracker, "KCF"), id="KCF"),
    pytest.param(partial(OpenCVTracker, "CSRT"), id="CSRT"),
]


@pytest.fixture(scope="module")
def moving_square(tmp_path_factory):
    """A textured square that crosses a textured 160x120 frame, 3 px a frame."""
    folder = tmp_path_factory.mktemp("data") / "square"
    folder.mkdir()
    rng = np.random.default_rng(0)
    background = cv2.GaussianBlur(rng.integers(60, 120, (120, 160, 3), np.uint8), (0, 0), 2)
    square = rng.integers(0, 2, (4, 4, 3), np.uint8).repeat(7, 0).repeat(7, 1) * 255
    boxes = []
    for index in range(20):
        frame, x, y = background.copy(), 20 + 3 * index, 30 + 2 * index
        frame[y : y + 28, x : x + 28] = square
        cv2.imwrite(str(folder / f"{index + 1:08d}.png"), frame)
        boxes.append(f"{x},{y},28,28")
    (folder / "groundtruth.txt").write_text("\n".join(boxes))
    return FolderDataset(str(folder.parent)).sequences[0]


@pytest.mark.parametrize("make", OPENCV)
def test_opencvs_trackers_follow_what_the_still_box_loses(moving_square, make):
    assert evaluate_sequences(StillBox(), [moving_square]).overall["AO"] < 0.35
    assert evaluate_sequences(make(), [moving_square]).overall["AO"] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("make", OPENCV)
def test_opencvs_trackers_are_deterministic_and_forget_the_last_sequence(moving_square, make):
    tracker = make()
    first = run_sequence(tracker, moving_square)
    again = run_sequence(tracker, moving_square)
    fresh = run_sequence(make(), moving_square)
    np.testing.assert_array_equal(first.boxes_xywh, again.boxes_xywh)
    np.testing.assert_array_equal(first.boxes_xywh, fresh.boxes_xywh)


def test_the_still_box_is_the_given_box(moving_square):
    given = moving_square.boxes_xywh[0] + 0.25
    tracker = StillBox()
    frame = np.zeros((120, 160, 3), np.uint8)
    tracker.init(frame, given)
    result = tracker.update(frame)
    np.testing.assert_array_equal(result.box, given)
    assert result.score == 1 and result.challenge is None
    result.box[:] = 0
    np.testing.assert_array_equal(tracker.update(frame).box, given)


@pytest.mark.parametrize(
    "box",
    [(-5.5, -3, 20, 20), (150, 110, 40, 40), (40.2, 30.7, 0.2, 0.3), (40, 30, 1, 50), (0, 0, 160, 120)],
)
def test_mil_takes_boxes_at_the_border_tiny_ones_and_huge_ones(box):
    rng = np.random.default_rng(0)
    frame = cv2.GaussianBlur(rng.integers(0, 255, (120, 160, 3), np.uint8), (0, 0), 2)
    tracker = MIL()
    tracker.init(frame, np.array(box))
    for _ in range(3):
        tracked = tracker.update(frame).box
    np.testing.assert_allclose(tracked[:2], box[:2], atol=8)
    np.testing.assert_array_equal(tracked[2:], box[2:])


def test_mil_says_that_a_frame_is_too_small():
    with pytest.raises(DataError, match="20x60 px"):
        MIL().init(np.zeros((60, 20, 3), np.uint8), (1, 1, 5, 5))


class Broken:
    """In the place of one of OpenCV's trackers."""

    @classmethod
    def create(cls):
        return cls()

    def init(self, image, window):
        raise cv2.error("trackerKCF.cpp:274: error:\n Assertion failed")


def test_a_failure_of_opencv_is_that_of_its_sequence(moving_square, monkeypatch):
    monkeypatch.setattr(cv2, "TrackerBroken", Broken, raising=False)
    report = evaluate_sequences(OpenCVTracker("Broken"), [moving_square])
    assert dict(report.failures) == {"square": "OpenCV's Broken failed: trackerKCF.cpp:274: error: Assertion failed"}
    assert compare_table({"Broken": report}).splitlines()[1].startswith("Broken (1 failed)  ")


def test_a_tracker_that_opencv_lacks_is_named_with_its_package():
    with pytest.raises(HiptrackError, match="OpenCV .* has no tracker Nothing: it comes with opencv-contrib-python"):
        OpenCVTracker("Nothing")


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ((10.4, 5.6, 20, 10), [10, 6, 20, 10]),
        ((-5, -5, 2000, 2000), [0, 0, 120, 90]),
        ((119, 40, 9, 9), [119, 40, 1, 9]),
    ],
)
def test_opencv_gets_the_part_of_the_box_that_lies_in_the_image(box, inside):
    assert pixels_inside(box, 120, 90) == inside


@pytest.mark.parametrize("box", [(-50, 0, 20, 20), (5, 90, 9, 9), (5, 5, 0.2, 9)])
def test_a_box_without_a_pixel_is_refused(box):
    with pytest.raises(DataError, match="no pixel in the 120x90 frame"):
        pixels_inside(box, 120, 90)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model", "nano"])
def test_the_command_sets_five_trackers_side_by_side(moving_square, tmp_path, monkeypatch, capsys, name):
    given = [str(Path(moving_square.frames[0]).parents[1])]
    if name == "model":
        save_toy(tmp_path / "model.safetensors")
        given += ["--checkpoint", str(tmp_path / "model.safetensors")]
    monkeypatch.setattr(sys, "argv", ["hiptrack compare-opencv", *given])
    assert compare_opencv.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["tracker", "sequences", "frames", *GOT10K.metrics, "frames/s", "end", "to", "end"]
    assert [line.split("  ")[0] for line in lines[1:]] == ["still box", "MIL", "KCF", "CSRT", name]


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not there")
def test_the_still_box_on_the_real_clips():
    report = evaluate_sequences(StillBox(), FolderDataset(str(CLIPS), "val").sequences)
    assert not report.failures
    assert len(report.scores) == 8
    assert round(report.overall["AO"], 3) == 0.264
