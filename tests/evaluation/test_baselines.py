"""The baselines on a moving square and, where they lie beside the checkout, on real clips."""

import cv2
import numpy as np
import pytest

from hiptrack.config import REPO_ROOT
from hiptrack.data.folders import FolderDataset
from hiptrack.data.sequence import Sequence
from hiptrack.errors import DataError
from hiptrack.evaluation.baselines import MIL, StillBox
from hiptrack.evaluation.run_sequences import run_sequence
from hiptrack.evaluation.score import evaluate_sequences

CLIPS = REPO_ROOT.parent / "shared" / "clips"


@pytest.fixture(scope="module")
def moving_square(tmp_path_factory):
    """A textured square that crosses a textured 160x120 frame, 3 px a frame."""
    folder = tmp_path_factory.mktemp("square")
    rng = np.random.default_rng(0)
    background = cv2.GaussianBlur(rng.integers(60, 120, (120, 160, 3), np.uint8), (0, 0), 2)
    square = rng.integers(0, 2, (4, 4, 3), np.uint8).repeat(7, 0).repeat(7, 1) * 255
    frames, boxes = [], []
    for index in range(20):
        frame, x, y = background.copy(), 20 + 3 * index, 30 + 2 * index
        frame[y : y + 28, x : x + 28] = square
        frames.append(str(folder / f"{index + 1:08d}.png"))
        cv2.imwrite(frames[-1], frame)
        boxes.append((x, y, 28, 28))
    visible, cover = np.ones(20, bool), np.full(20, 8)
    return Sequence("square", tuple(frames), np.array(boxes, np.float64), visible, cover)


def test_mil_follows_what_the_still_box_loses(moving_square):
    still = evaluate_sequences(StillBox(), [moving_square]).overall["AO"]
    mil = evaluate_sequences(MIL(), [moving_square]).overall["AO"]
    assert still < 0.35
    assert mil > 0.6


@pytest.mark.slow
def test_mil_is_deterministic_and_forgets_the_last_sequence(moving_square):
    tracker = MIL()
    first = run_sequence(tracker, moving_square)
    again = run_sequence(tracker, moving_square)
    fresh = run_sequence(MIL(), moving_square)
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


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not there")
def test_the_still_box_on_the_real_clips():
    report = evaluate_sequences(StillBox(), FolderDataset(str(CLIPS), "val").sequences)
    assert not report.failures
    assert len(report.scores) == 8
    assert round(report.overall["AO"], 3) == 0.264
