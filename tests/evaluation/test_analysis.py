"""Results by challenge, size and speed, losses and calibration, on sequences small enough to count by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from hiptrack.data.labels import FrameLabels
from hiptrack.data.sequence import GOT10K, Protocol, Sequence
from hiptrack.evaluation.analysis import by_challenge, by_size, by_speed, calibration, find_lost_targets, scored_frames
from hiptrack.evaluation.metrics import ONE_PASS_NUMBERS, one_pass_curves
from hiptrack.taxonomy import CLASSES, TEN

OCCLUSION, BLUR = CLASSES.index("occlusion"), CLASSES.index("motion_blur")


def sequence(name, boxes, labels=(), hidden=()):
    """labels: class of each frame, several in a list; hidden: frames (from 0) of cover 0."""
    boxes = np.array(boxes, float)
    cover = np.full(len(boxes), 8)
    cover[list(hidden)] = 0
    flags = np.zeros((len(boxes), 9), bool)
    for frame, label in enumerate(labels):
        flags[frame, label] = True
    known = FrameLabels(flags, np.arange(len(boxes)) < len(labels), TEN) if labels else None
    return Sequence(name, tuple("x" * len(boxes)), boxes, cover > 0, cover, known)


def scored(sequence, ious, challenges=None, one_pass=None):
    """A SequenceScore with these IoUs of the frames after the first that are in sight."""
    result = SimpleNamespace(name=sequence.name, scores=np.linspace(0, 1, len(sequence)), challenges=challenges)
    return SimpleNamespace(ious=np.array(ious, float), result=result, one_pass=one_pass)


BOX = [0.0, 0.0, 10.0, 10.0]
NOTHING = {"AO": None, "SR0.5": None, "SR0.75": None}


def test_a_frame_counts_for_each_of_its_flags():
    # frames (from 1):        2            3       4          5 without annotation
    # flags              blur, occlusion  blur   none: normal
    # IoU                    0.6          0.2    0.8        0.9
    one = sequence("one", [BOX] * 5, labels=[BLUR, [BLUR, OCCLUSION], BLUR, []])
    # frame 2 is occluded, frame 3 out of sight
    two = sequence("two", [BOX] * 4, labels=[OCCLUSION, OCCLUSION, OCCLUSION, []], hidden=[2])
    table = by_challenge([scored(one, [0.6, 0.2, 0.8, 0.9]), scored(two, [0.4, 1.0])], [one, two], GOT10K, CLASSES)
    assert list(table) == list(CLASSES)
    # blur: frames 2 and 3 of one; AO (0.6 + 0.2) / 2, one of two above 0.5, none above 0.75
    assert table["motion_blur"] == {"frames": 2, "sequences": 1, "AO": pytest.approx(0.4), "SR0.5": 0.5, "SR0.75": 0}
    # occlusion: frame 2 of one, frame 2 of two; AO (0.6 + 0.4) / 2
    assert table["occlusion"] == {"frames": 2, "sequences": 2, "AO": pytest.approx(0.5), "SR0.5": 0.5, "SR0.75": 0}
    # normal: frame 4 of either; AO (0.8 + 1.0) / 2
    assert table["normal"] == {"frames": 2, "sequences": 2, "AO": pytest.approx(0.9), "SR0.5": 1, "SR0.75": 1}
    assert table["low_contrast"] == {"frames": 0, "sequences": 0, **NOTHING}


ONE_PASS = Protocol(("AUC", "P"))


def in_one_pass(name, predicted, labels, protocol=ONE_PASS):
    """(a sequence whose true boxes are all BOX, its SequenceScore)."""
    truth = np.array([BOX] * len(predicted))
    one = sequence(name, truth, labels)
    curves = one_pass_curves(np.array(predicted), truth, one.visible, protocol)
    return one, scored(one, [0.5] * (len(predicted) - 1), one_pass=curves)


HIT, MISS = BOX, [100.0, 0.0, 10.0, 10.0]


def test_one_pass_numbers_are_of_the_sequences_that_have_the_challenge():
    # The first frame is given: it is met. So 1 is met in 4 of 4 frames, 2 in 2 of 4, 3 in 1 of 4. A frame that is met is
    # above 20 of the 21 thresholds of the IoU (not above 1) and within 20 pixels, one that is missed neither.
    pairs = [
        in_one_pass("1", [HIT, HIT, HIT, HIT], [BLUR, BLUR, [BLUR, OCCLUSION], OCCLUSION]),  # blur 3/4, occlusion 2/4
        in_one_pass("2", [HIT, HIT, MISS, MISS], [[BLUR, OCCLUSION], [BLUR, OCCLUSION], BLUR]),  # 3/3 and 2/3 of three
        in_one_pass("3", [HIT, MISS, MISS, MISS], [OCCLUSION, [], [], []]),  # occlusion 1/4, normal 3/4
    ]
    sequences, scores = zip(*pairs, strict=True)
    table = by_challenge(scores, sequences, ONE_PASS, CLASSES)
    assert set(table["occlusion"]) == {"frames", "sequences", *GOT10K.metrics, *ONE_PASS_NUMBERS}
    # blur: 1 and 2, each curve counting alike: P (4/4 + 2/4) / 2, AUC that times 20/21
    assert table["motion_blur"]["sequences"] == 2 and table["motion_blur"]["P"] == pytest.approx(0.75)
    assert table["motion_blur"]["AUC"] == pytest.approx(0.75 * 20 / 21)
    # occlusion: half of the frames of 1 is no majority, so 2 alone, 2/4
    assert table["occlusion"]["sequences"] == 1 and table["occlusion"]["P"] == pytest.approx(0.5)
    assert table["occlusion"]["frames"] == 3  # frames 3 and 4 of 1, frame 2 of 2: the first ones are not scored
    assert table["normal"]["sequences"] == 1 and table["normal"]["P"] == pytest.approx(0.25)
    # in any frame: occlusion is in all three
    loose = by_challenge(scores, sequences, ONE_PASS, CLASSES, "any")
    assert loose["occlusion"]["sequences"] == 3 and loose["occlusion"]["P"] == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert loose["occlusion"]["frames"] == 3 and loose["motion_blur"] == table["motion_blur"]
    nothing = {"frames": 0, "sequences": 0, **NOTHING, **dict.fromkeys(ONE_PASS_NUMBERS)}
    assert table["low_contrast"] == loose["low_contrast"] == nothing


def test_frames_without_a_majority_of_their_sequence_leave_the_dash():
    one, score = in_one_pass("1", [HIT, HIT, HIT], [BLUR, BLUR, OCCLUSION])
    row = by_challenge([score], [one], ONE_PASS, CLASSES)["occlusion"]
    assert row["frames"] == 1 and row["AO"] == 0.5 and row["sequences"] == 0 and row["AUC"] is None


def test_sequences_that_failed_or_have_no_annotation_are_in_no_challenge():
    one, two = sequence("one", [BOX] * 3, labels=[BLUR] * 3), sequence("two", [BOX] * 3, labels=[BLUR] * 3)
    three = sequence("three", [BOX] * 3)
    table = by_challenge([scored(two, [0.5, 0.7]), scored(three, [1, 1])], [one, two, three], GOT10K, CLASSES)
    assert table["motion_blur"]["frames"] == 2 and table["motion_blur"]["AO"] == pytest.approx(0.6)
    assert sum(row["frames"] for row in table.values()) == 2


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
    assert by_challenge([scored(one, [0.5, 0.5])], [one], GOT10K, CLASSES) is None and calibration(frames) is None
    none = SimpleNamespace(ious=None, result=None)
    labelled = sequence("one", [BOX] * 3, labels=[BLUR] * 3)
    assert by_challenge([none], [labelled], GOT10K, CLASSES) is None
    frames = scored_frames([none], [one], len(CLASSES))
    assert by_size(frames) == {} and find_lost_targets(frames, [one], CLASSES) == [] and calibration(frames) is None
