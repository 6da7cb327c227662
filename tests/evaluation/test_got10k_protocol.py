"""AO, SR and the success curve of many sequences, against GOT-10k's protocol written anew, plainly, from its description."""

import numpy as np
import pytest

from hiptrack.evaluation.metrics import frame_ious, success_curve, summarise


def clipped(value, low, high):
    return low if value < low else min(value, high)


def plain_overlaps(predicted, truth, cover, width, height):
    """The overlaps that count: not of the first frame, not of hidden ones, of boxes bounded by the image."""
    found = []
    for frame in range(1, len(truth)):
        if cover[frame] == 0:
            continue
        corners = []
        for box in (predicted[frame], truth[frame]):
            left, top = clipped(box[0], 0, width), clipped(box[1], 0, height)
            corners.append((left, top, left + clipped(box[2], 0, width - left), top + clipped(box[3], 0, height - top)))
        (ax, ay, ar, ab), (bx, by, br, bb) = corners
        shared = max(0, min(ar, br) - max(ax, bx)) * max(0, min(ab, bb) - max(ay, by))
        union = (ar - ax) * (ab - ay) + (br - bx) * (bb - by) - shared
        found.append(shared / union if union > 0 else 0)
    return found


def test_a_thousand_random_sequences_agree_to_a_billionth():
    rng = np.random.default_rng(2023)
    ious, expected = [], []
    for _ in range(1000):
        frames, (width, height) = int(rng.integers(2, 30)), rng.integers(100, 2000, 2).tolist()
        truth = rng.uniform(-0.2, 1.1, (frames, 4)) * [width, height, width / 2, height / 2]
        predicted = truth + rng.normal(0, rng.uniform(0, 60), (frames, 4))
        cover = rng.integers(0, 9, frames)
        ious.append(frame_ious(predicted, truth, (width, height), cover))
        plain = plain_overlaps(predicted.tolist(), truth.tolist(), cover.tolist(), width, height)
        np.testing.assert_allclose(ious[-1], plain, rtol=0, atol=1e-9)
        expected += plain
    numbers, count = summarise(ious), len(expected)
    assert count > 10_000 and 0.1 < sum(expected) / count < 0.9
    assert numbers["AO"] == pytest.approx(sum(expected) / count, abs=1e-9)
    assert numbers["SR0.5"] == pytest.approx(sum(iou > 0.5 for iou in expected) / count, abs=1e-9)
    assert numbers["SR0.75"] == pytest.approx(sum(iou > 0.75 for iou in expected) / count, abs=1e-9)
    curve = success_curve(ious)
    shares = [(np.array(expected) > step / 100).mean() for step in range(100)]
    np.testing.assert_allclose(curve[:100], shares, rtol=0, atol=1e-9)
