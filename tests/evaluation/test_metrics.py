"""AO and SR against GOT-10k's formula written out in scalars, and the recalls of the branch.

`rect_iou` of the toolkit itself (got10k 0.1.3) gave the same numbers as `expected_ious` and `frame_ious` on 1,000 such sequences.
"""

import math

import numpy as np
import pytest

from hiptrack.errors import DataError
from hiptrack.evaluation.metrics import frame_ious, success_curve, summarise, summarise_classification

SIZE = (320, 200)


def bounded(box, width, height):
    """The protocol's bounding of one box: the corner into the image, then the extent into what is left."""
    x, y, w, h = box
    x = 0.0 if x < 0 else float(width) if x > width else x
    y = 0.0 if y < 0 else float(height) if y > height else y
    w = 0.0 if w < 0 else min(w, width - x)
    h = 0.0 if h < 0 else min(h, height - y)
    return x, y, w, h


def expected_ious(predicted, truth, size, cover):
    ious = []
    for index in range(1, len(truth)):
        if cover[index] <= 0:
            continue
        ax, ay, aw, ah = bounded(predicted[index], *size)
        bx, by, bw, bh = bounded(truth[index], *size)
        overlap_w = max(0.0, min(ax + aw, bx + bw) - max(ax, bx))
        overlap_h = max(0.0, min(ay + ah, by + bh) - max(ay, by))
        overlap = overlap_w * overlap_h
        union = aw * ah + bw * bh - overlap
        ious.append(0.0 if union <= 0 else overlap / union)
    return ious


def random_sequences(seed, count=200):
    """Predictions and truths that lie inside, across and beyond every edge, some flat, some inside out."""
    rng = np.random.default_rng(seed)
    sequences = []
    for _ in range(count):
        frames = int(rng.integers(2, 60))
        truth = np.column_stack(
            [rng.uniform(-80, 380, frames), rng.uniform(-80, 260, frames), rng.uniform(-5, 150, (frames, 2))]
        )
        predicted = truth + rng.normal(0, rng.uniform(0, 40), (frames, 4))
        predicted[rng.random(frames) < 0.1, 2:] = 0
        cover = rng.integers(0, 9, frames)
        sequences.append((predicted, truth, cover))
    return sequences


@pytest.mark.parametrize("seed", range(5))
def test_ao_and_sr_are_those_of_the_protocol_on_1000_sequences(seed):
    sequences = random_sequences(seed)
    ious, expected = [], []
    for predicted, truth, cover in sequences:
        ious.append(frame_ious(predicted, truth, SIZE, cover))
        part = expected_ious(predicted.tolist(), truth.tolist(), SIZE, cover.tolist())
        np.testing.assert_allclose(ious[-1], part, rtol=0, atol=1e-12)
        expected += part
    assert 0.05 < sum(expected) / len(expected) < 0.95
    numbers = summarise(ious)
    assert numbers["AO"] == pytest.approx(sum(expected) / len(expected), abs=1e-12)
    assert numbers["SR0.5"] == pytest.approx(sum(iou > 0.5 for iou in expected) / len(expected), abs=1e-12)
    assert numbers["SR0.75"] == pytest.approx(sum(iou > 0.75 for iou in expected) / len(expected), abs=1e-12)
    curve = success_curve(ious)
    assert curve.shape == (101,)
    for step in range(101):
        share = sum(iou > step * 0.01 for iou in expected) / len(expected)
        assert curve[step] == pytest.approx(share, abs=1.5 / len(expected))


@pytest.mark.parametrize(
    "predicted, truth, iou",
    [
        ((10, 10, 20, 20), (10, 10, 20, 20), 1),
        ((10, 10, 20, 20), (20, 10, 20, 20), 1 / 3),
        ((10, 10, 20, 20), (100, 100, 20, 20), 0),
        ((-10, 10, 30, 20), (0, 10, 30, 20), 1),  # beyond the left edge: moved in, not cut
        ((0, -15, 20, 30), (0, 0, 20, 30), 1),  # beyond the top edge likewise
        ((300, 10, 50, 20), (300, 10, 20, 20), 1),  # beyond the right edge: cut
        ((10, 190, 20, 50), (10, 190, 20, 10), 1),  # beyond the bottom edge: cut
        ((400, 10, 20, 20), (400, 10, 20, 20), 0),  # wholly beyond the right edge: empty
        ((-100, 10, 20, 20), (0, 10, 20, 20), 1),  # wholly beyond the left edge: moved in
        ((10, 10, 0, 0), (10, 10, 0, 0), 0),
        ((10, 10, -5, 20), (10, 10, 20, 20), 0),
    ],
)
def test_single_boxes(predicted, truth, iou):
    boxes = np.array([(1, 1, 1, 1), predicted], float), np.array([(1, 1, 1, 1), truth], float)
    assert frame_ious(*boxes, SIZE, [8, 8]) == pytest.approx([iou], abs=1e-12)


def test_the_first_frame_and_hidden_frames_do_not_count():
    truth = np.array([(10, 10, 20, 20)] * 4, float)
    predicted = truth.copy()
    predicted[0] = predicted[2] = (200, 100, 20, 20)
    np.testing.assert_allclose(frame_ious(predicted, truth, SIZE, [8, 8, 0, 1]), [1, 1], atol=1e-12)


def test_inputs_are_not_changed():
    predicted, truth, cover = random_sequences(0, 1)[0]
    before = predicted.copy(), truth.copy(), cover.copy()
    frame_ious(predicted, truth, SIZE, cover)
    for now, then in zip((predicted, truth, cover), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_success_is_strict():
    assert summarise([np.array([0.5, 0.75, 1.0])]) == {"AO": 0.75, "SR0.5": 2 / 3, "SR0.75": 1 / 3}
    curve = success_curve([np.array([0.0, 1.0])])
    assert curve[0] == 0.5 and curve[99] == 0.5 and curve[100] == 0


def test_overall_numbers_are_over_frames_not_over_sequences():
    assert summarise([np.ones(3), np.zeros(1)])["AO"] == 0.75


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_no_number_is_named(value):
    truth = np.array([(10, 10, 20, 20)] * 5, float)
    predicted = truth.copy()
    predicted[3, 2] = value
    with pytest.raises(DataError, match="predicted box of frame 4"):
        frame_ious(predicted, truth, SIZE, [8] * 5)
    with pytest.raises(DataError, match="predicted box of frame 4"):
        frame_ious(predicted, truth, SIZE, [8, 8, 8, 0, 8])
    with pytest.raises(DataError, match="ground-truth box of frame 4"):
        frame_ious(truth, predicted, SIZE, [8] * 5)
    assert len(frame_ious(truth, predicted, SIZE, [8, 8, 8, 0, 8])) == 3


def test_wrong_counts_and_shapes_are_errors():
    boxes = np.ones((5, 4))
    with pytest.raises(DataError, match="4 predicted boxes, 5 ground-truth boxes"):
        frame_ious(boxes[:4], boxes, SIZE, [8] * 5)
    with pytest.raises(DataError, match="6 cover labels"):
        frame_ious(boxes, boxes, SIZE, [8] * 6)
    with pytest.raises(DataError, match=r"expected \[frames, 4\]"):
        frame_ious(boxes[:, :3], boxes, SIZE, [8] * 5)
    with pytest.raises(DataError, match="image size"):
        frame_ious(boxes, boxes, (0, 10), [8] * 5)


@pytest.mark.parametrize("ious", [[], [np.empty(0), np.empty(0)]])
def test_no_frame_to_score_is_an_error(ious):
    for function in (summarise, success_curve):
        with pytest.raises(DataError, match="No frame can be scored"):
            function(ious)


def test_recalls_of_the_classes_that_occur():
    numbers = summarise_classification(np.array([[6, 2, 0], [0, 0, 0], [0, 1, 1]]))
    assert numbers["frames"] == 10 and numbers["counts"] == [8, 0, 2]
    assert numbers["accuracy"] == 0.7 and numbers["recalls"] == [0.75, None, 0.5]
    assert numbers["balanced_accuracy"] == 0.625
