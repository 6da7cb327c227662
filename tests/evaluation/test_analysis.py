"""Results by challenge, size and speed, losses and calibration, on sequences small enough to count by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from hiptrack.data.labels import FrameLabels
from hiptrack.data.sequence import Sequence
from hiptrack.evaluation.analysis import by_challenge, by_size, by_speed, calibration, find_lost_targets, scored_frames
from hiptrack.taxonomy import CLASSES, TEN

OCCLUSION, BLUR = CLASSES.index("occlusion"), CLASSES.index("motion_blur")


def sequence(name, boxes, labels=(), hidden=()):
    """labels: class of each frame; hidden: frames (from 0) of cover 0."""
    boxes = np.array(boxes, float)
    cover = np.full(len(boxes), 8)
    cover[list(hidden)] = 0
    flags = np.zeros((len(boxes), 9), bool)
    for frame, label in enumerate(labels):
        flags[frame, label] = True
    known = FrameLabels(flags, np.arange(len(boxes)) < len(labels), TEN) if labels else None
    return Sequence(name, tuple("x" * len(boxes)), boxes, cover > 0, cover, known)


def scored(sequence, ious, challenges=None):
    """A SequenceScore with these IoUs of the frames after the first that are in sight."""
    result = SimpleNamespace(scores=np.linspace(0, 1, len(sequence)), challenges=challenges)
    return SimpleNamespace(ious=np.array(ious, float), result=result)


def test_frames_are_grouped_by_their_label():
    one = sequence("one", [[0, 0, 10, 10]] * 5, labels=[BLUR, BLUR, OCCLUSION, OCCLUSION])
    frames = scored_frames([scored(one, [0.6, 0.2, 0.4, 0.9])], [one], len(CLASSES))
    assert frames.frame.tolist() == [2, 3, 4, 5]
    groups = by_challenge(frames, CLASSES)  # the last frame has no label
    assert groups.keys() == {"occlusion", "motion_blur"}
    assert groups["motion_blur"] == {"frames": 1, "AO": 0.6, "SR0.5": 1.0, "SR0.75": 0.0}
    assert groups["occlusion"]["frames"] == 2 and groups["occlusion"]["AO"] == pytest.approx(0.3)


def test_frames_are_grouped_by_size_and_speed():
    boxes = [[0, 0, 10, 10], [1, 0, 10, 10], [1, 0, 40, 40], [101, 0, 40, 40], [101, 0, 200, 200]]
    one = sequence("one", boxes)
    frames = scored_frames([scored(one, [0.1, 0.2, 0.3, 0.4])], [one], len(CLASSES))
    assert {name: group["AO"] for name, group in by_size(frames).items()} == pytest.approx(
        {"below 16 px": 0.1, "32 to 96 px": 0.25, "above 96 px": 0.4}
    )
    # centres move by 1 of 10, by 21.2 of 40, by 100 of 40, by 113 of 200
    assert {name: group["frames"] for name, group in by_speed(frames).items()} == {"0.05 to 0.2": 1, "above 0.2": 3}


def test_hidden_frames_are_in_no_group_and_give_no_speed():
    one = sequence("one", [[0, 0, 20, 20]] * 4, hidden=[1])
    frames = scored_frames([scored(one, [0.5, 0.7])], [one], len(CLASSES))
    assert frames.frame.tolist() == [3, 4] and np.isnan(frames.speed).tolist() == [True, False]
    assert by_speed(frames)["below 0.05"]["frames"] == 1


def test_a_loss_is_a_long_run_without_overlap_or_one_at_the_end():
    ious = [0.5, 0, 0, 0.5, *[0] * 10, 0.3, 0, 0]
    one = sequence("one", [[0, 0, 20, 20]] * 18, labels=[BLUR] * 6)
    two = sequence("two", [[0, 0, 20, 20]] * 3)
    frames = scored_frames([scored(one, ious), scored(two, [0.9, 0.8])], [one, two], len(CLASSES))
    losses = [
        (loss.sequence, loss.frame, loss.length, loss.challenge)
        for loss in find_lost_targets(frames, [one, two], CLASSES)
    ]
    assert losses == [("one", 6, 10, "motion_blur"), ("one", 17, 2, None)]


def test_calibration_compares_certainty_with_truth():
    one = sequence("one", [[0, 0, 20, 20]] * 5, labels=[OCCLUSION] * 5)
    sure = np.full((5, 10), 0.01)
    sure[1:, OCCLUSION], sure[1:, BLUR] = [0.91, 0.95, 0.05, 0.35], [0.0, 0.0, 0.96, 0.3]
    frames = scored_frames([scored(one, [0.5] * 4, sure)], [one], len(CLASSES))
    found = calibration(frames)
    top = found["bins"][9]
    assert top["frames"] == 3 and top["confidence"] == pytest.approx(0.94) and top["accuracy"] == pytest.approx(2 / 3)
    assert found["bins"][3] == {"from": 0.3, "frames": 1, "confidence": pytest.approx(0.35), "accuracy": 1.0}
    assert found["bins"][0]["confidence"] is None
    assert found["error"] == pytest.approx(0.75 * (0.94 - 2 / 3) + 0.25 * 0.65)


def test_without_labels_ground_truth_or_class_outputs_there_is_nothing_to_say():
    one = sequence("one", [[0, 0, 20, 20]] * 3)
    frames = scored_frames([scored(one, [0.5, 0.5])], [one], len(CLASSES))
    assert by_challenge(frames, CLASSES) == {} and calibration(frames) is None
    none = SimpleNamespace(ious=None, result=None)
    frames = scored_frames([none], [one], len(CLASSES))
    assert by_size(frames) == {} and find_lost_targets(frames, [one], CLASSES) == [] and calibration(frames) is None
