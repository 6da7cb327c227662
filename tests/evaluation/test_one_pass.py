"""One-pass evaluation against the toolkits' formulas written out in scalars."""

import json
import math

import numpy as np
import pytest
from test_evaluate import Drifter, sequences  # noqa: F401  a tracker and a fixture

from hiptrack.data.benchmarks import BENCHMARKS
from hiptrack.data.sequence import GOT10K, Protocol
from hiptrack.errors import DataError
from hiptrack.evaluation.metrics import ONE_PASS_NUMBERS, mean_curves, one_pass_curves
from hiptrack.evaluation.score import as_dict, evaluate_sequences
from hiptrack.evaluation.table import format_table

OTB = Protocol(("AUC", "P"))
LASOT = Protocol(("AUC", "P_norm0.2", "P"), counts_absent=True)
UAV123 = Protocol(("AUC", "P"), counts_absent=True, absent_is_near=True)


def random_sequence(rng, frames):
    truth = np.column_stack([rng.uniform(-20, 300, (frames, 2)), rng.uniform(2, 120, (frames, 2))])
    predicted = truth + rng.normal(0, rng.uniform(0, 25), (frames, 4))
    predicted[rng.random(frames) < 0.1, 2] = 0
    visible = rng.random(frames) < 0.8
    visible[0] = True
    truth[~visible] = rng.choice([0, 5], (~visible).sum())[:, None]
    return predicted, truth, visible


def expected_curves(predicted, truth, visible, protocol):
    """In pixels counted as whole ones (x + w - 1 is the last), like the toolkits, frame by frame."""
    success, precision, normalised = [0] * 21, [0] * 51, [0] * 51
    counted, held = 0, None
    for frame, (box, real) in enumerate(zip(predicted, truth, strict=True)):
        if frame == 0:
            box = real
        if box[2] <= 0 or box[3] <= 0:
            box = held
        held = box
        if not visible[frame]:
            if protocol.counts_absent:
                counted += 1
                if protocol.absent_is_near:
                    precision = [hits + 1 for hits in precision]
                    normalised = [hits + 1 for hits in normalised]
            continue
        counted += 1
        width = min(box[0] + box[2] - 1, real[0] + real[2] - 1) - max(box[0], real[0]) + 1
        height = min(box[1] + box[3] - 1, real[1] + real[3] - 1) - max(box[1], real[1]) + 1
        overlap = max(width, 0) * max(height, 0)
        iou = min(overlap / (box[2] * box[3] + real[2] * real[3] - overlap), 1)
        across = (box[0] + (box[2] - 1) / 2) - (real[0] + (real[2] - 1) / 2)
        down = (box[1] + (box[3] - 1) / 2) - (real[1] + (real[3] - 1) / 2)
        distance = math.sqrt(across**2 + down**2)
        share = math.sqrt((across / real[2]) ** 2 + (down / real[3]) ** 2)
        success = [hits + (iou > step / 20) for step, hits in enumerate(success)]
        precision = [hits + (distance <= step) for step, hits in enumerate(precision)]
        normalised = [hits + (share <= step / 100) for step, hits in enumerate(normalised)]
    return [[hits / counted for hits in curve] for curve in (success, precision, normalised)]


@pytest.mark.parametrize("protocol", [OTB, LASOT, UAV123], ids=["left out", "missed", "near"])
def test_the_numbers_are_the_means_over_sequences_of_the_toolkits_curves(protocol):
    rng = np.random.default_rng(1)
    parts, expected = [], []
    for _ in range(60):
        sequence = random_sequence(rng, int(rng.integers(1, 40)))
        parts.append(one_pass_curves(*sequence, protocol))
        expected.append(expected_curves(*(values.tolist() for values in sequence), protocol))
        for curve, wanted in zip(vars(parts[-1]).values(), expected[-1], strict=True):
            np.testing.assert_allclose(curve, wanted, rtol=0, atol=1e-9)
    success, precision, normalised = (np.mean(curves, 0) for curves in zip(*expected, strict=True))
    numbers = mean_curves([*parts, None]).numbers()
    assert tuple(numbers) == ONE_PASS_NUMBERS
    assert numbers["AUC"] == pytest.approx(success.mean(), abs=1e-9)
    assert numbers["OP50"] == pytest.approx(success[10], abs=1e-9)
    assert numbers["OP75"] == pytest.approx(success[15], abs=1e-9)
    assert numbers["P"] == pytest.approx(precision[20], abs=1e-9)
    assert numbers["P_norm"] == pytest.approx(normalised.mean(), abs=1e-9)
    assert numbers["P_norm0.2"] == pytest.approx(normalised[20], abs=1e-9)
    assert 0.05 < numbers["AUC"] < 0.95 and 0.05 < numbers["P_norm"] < 0.98


def test_a_perfect_tracker_has_the_known_bounds():
    truth = np.array([(10, 10, 20, 20)] * 5, float)
    numbers = one_pass_curves(truth, truth, np.ones(5, bool), OTB).numbers()
    assert numbers == {"AUC": 20 / 21, "OP50": 1, "OP75": 1, "P": 1, "P_norm": 1, "P_norm0.2": 1}


def test_equal_boxes_are_never_above_a_threshold_of_1():
    """Rounding makes x + w - x another number than w."""
    truth = np.random.default_rng(0).uniform(5, 300, (1000, 4))
    assert one_pass_curves(truth, truth, np.ones(1000, bool), OTB).numbers()["AUC"] == pytest.approx(20 / 21, abs=1e-12)


def test_thresholds_are_strict_for_the_overlap_alone():
    truth = np.array([(0, 0, 10, 10)] * 2, float)
    half = np.array([(0, 0, 10, 10), (0, 0, 10, 5)], float)
    assert one_pass_curves(half, truth, [True, True], OTB).numbers()["OP50"] == 0.5
    aside = np.array([(0, 0, 10, 10), (20, 0, 10, 10)], float)
    assert one_pass_curves(aside, truth, [True, True], OTB).numbers()["P"] == 1
    assert one_pass_curves(aside + [0.01, 0, 0, 0], truth, [True, True], OTB).numbers()["P"] == 0.5


def test_frames_without_target_count_as_the_benchmark_says():
    truth = np.array([(10, 10, 20, 20)] * 2 + [(0, 0, 0, 0)] * 2, float)
    visible = [True, True, False, False]
    values = [one_pass_curves(truth, truth, visible, protocol).numbers() for protocol in (OTB, LASOT, UAV123)]
    assert [(numbers["OP50"], numbers["P"], numbers["P_norm"]) for numbers in values] == [
        (1, 1, 1),
        (0.5,) * 3,
        (0.5, 1, 1),
    ]


def test_nothing_to_count_gives_nothing():
    boxes = np.zeros((2, 4))
    assert one_pass_curves(boxes, boxes, [False, False], OTB) is None
    assert mean_curves([None]) is None and mean_curves([]) is None


def test_wrong_input_is_named():
    boxes = np.ones((3, 4))
    with pytest.raises(DataError, match=r"shape \[2, 4\], the ground-truth boxes \[3, 4\].*3 marks"):
        one_pass_curves(boxes[:2], boxes, [True] * 3, OTB)
    for predicted, truth in ((boxes * np.nan, boxes), (boxes, boxes * np.nan), (boxes, boxes * 0)):
        with pytest.raises(DataError, match="not finite"):
            one_pass_curves(predicted, truth, [True] * 3, OTB)


def test_the_report_holds_and_prints_the_benchmarks_numbers(sequences):  # noqa: F811
    report = evaluate_sequences(Drifter(), sequences, protocol=LASOT)
    values = json.loads(json.dumps(as_dict(report), allow_nan=False))
    plain = as_dict(evaluate_sequences(Drifter(), sequences))
    assert set(values["overall"]) == {*GOT10K.metrics, *ONE_PASS_NUMBERS}
    assert {name: values["overall"][name] for name in GOT10K.metrics} == plain["overall"]
    assert values["metrics"] == ["AUC", "P_norm0.2", "P"] and plain["metrics"] == ["AO", "SR0.5", "SR0.75"]
    assert plain["one_pass"] is None and [len(curve) for curve in values["one_pass"].values()] == [21, 51, 51]
    each = [numbers["AUC"] for numbers in values["sequences"].values()]
    assert values["overall"]["AUC"] == pytest.approx(np.mean(each))
    first, *_, last = [line.split() for line in format_table(report).splitlines()[:7]]
    assert first[:5] == ["sequence", "frames", "AUC", "P_norm0.2", "P"]
    assert last[3] == f"{values['overall']['AUC']:.3f}" and last[:2] == ["all", "sequences"]


def test_every_benchmark_reports_numbers_that_there_are():
    for reader in BENCHMARKS.values():
        assert set(reader.PROTOCOL.metrics) <= {*GOT10K.metrics, *ONE_PASS_NUMBERS}
        assert reader.PROTOCOL.is_one_pass == (reader.PROTOCOL is not GOT10K)
