"""One-pass evaluation: success, precision and normalised precision of sequences, on numpy arrays.

Success and precision are those of the Object Tracking Benchmark (Wu et al., TPAMI 2015), normalised precision that of
TrackingNet (Mueller et al., ECCV 2018). The thresholds are those of the toolkits of LaSOT (github.com/HengLan/
LaSOT_Evaluation_Toolkit, utils/eval_tracker.m) and of pytracking (github.com/visionml/pytracking, analysis/
extract_results.py): for the overlap 0, 0.05, ... 1, for the distance 0, 1, ... 50 pixels, for the normalised distance 0, 0.01,
... 0.5. Boxes are xywh (left, top, width, height) in pixels of the frame, and not bounded by it.
"""

from dataclasses import dataclass

import numpy as np

from hiptrack.errors import DataError

OVERLAPS = np.linspace(0, 1, 21)
DISTANCES = np.arange(51.0)
NORMALISED_DISTANCES = np.arange(51) / 100
ONE_PASS_NUMBERS = ("AUC", "OP50", "OP75", "P", "P_norm", "P_norm0.2")


@dataclass(frozen=True)
class OnePass:
    """The curves of one sequence, or the mean of several: the shares of its frames that pass each threshold.

    success [21]: IoU above it; precision [51]: distance of the centres at most it; normalised_precision [51]: the same with the
    distance's x divided by the true box's width and its y by the height.
    """

    success: np.ndarray
    precision: np.ndarray
    normalised_precision: np.ndarray

    def numbers(self) -> dict[str, float]:
        """{"AUC": mean success, "OP50", "OP75": success at IoU 0.5 and 0.75, "P": precision at 20 pixels, "P_norm": mean
        normalised precision, "P_norm0.2": the same at the distance 0.2}."""
        return {
            "AUC": float(self.success.mean()),
            "OP50": float(self.success[10]),
            "OP75": float(self.success[15]),
            "P": float(self.precision[20]),
            "P_norm": float(self.normalised_precision.mean()),
            "P_norm0.2": float(self.normalised_precision[20]),
        }


def one_pass_curves(predicted_xywh, truth_xywh, visible, protocol) -> OnePass | None:
    """The curves of one sequence of N frames; None where no frame counts.

    predicted_xywh, truth_xywh [N,4]; visible [N] bool, a target is there, with a box of positive area; protocol: a Protocol,
    which says how the other frames count. The first frame's box is given and counts as found, as in all these toolkits. A
    predicted box without area counts as the last one before it that had an area (as in pytracking).

    Raises DataError on other shapes, unequal counts, numbers that are not finite, and a visible frame without a true area.
    """
    predicted, truth = np.array(predicted_xywh, np.float64), np.asarray(truth_xywh, np.float64)
    visible = np.asarray(visible, bool)
    if not predicted.shape == truth.shape == (len(visible), 4):
        raise DataError(
            f"The predicted boxes have the shape {list(predicted.shape)}, the ground-truth boxes {list(truth.shape)}, and there "
            f"are {len(visible)} marks of visibility; expected [frames, 4] (xywh) twice, and one mark per frame."
        )
    if not np.isfinite(predicted).all() or not np.isfinite(truth[visible]).all() or (truth[visible, 2:] <= 0).any():
        raise DataError("A predicted box is not finite, or the true box of a visible frame is not, or has no area.")
    total = len(visible) if protocol.counts_absent else int(visible.sum())
    if total == 0:
        return None
    predicted[:1] = truth[:1]
    predicted = _held(predicted)[visible]
    truth = truth[visible]
    shift = np.abs(_centres(predicted) - _centres(truth))
    near = (len(visible) - len(truth)) if protocol.counts_absent and protocol.absent_is_near else 0
    return OnePass(
        (_ious(predicted, truth)[:, None] > OVERLAPS).sum(0) / total,
        ((np.hypot(*shift.T)[:, None] <= DISTANCES).sum(0) + near) / total,
        ((np.hypot(*(shift / truth[:, 2:]).T)[:, None] <= NORMALISED_DISTANCES).sum(0) + near) / total,
    )


def mean_curves(parts) -> OnePass | None:
    """The mean of the curves of several sequences, each counting alike however long it is; None without any."""
    parts = [part for part in parts if part is not None]
    if not parts:
        return None
    return OnePass(
        np.mean([part.success for part in parts], 0),
        np.mean([part.precision for part in parts], 0),
        np.mean([part.normalised_precision for part in parts], 0),
    )


def _held(xywh):
    """The boxes [N,4] with each that has no area replaced by the last one before it that has; the first stays."""
    solid = (xywh[:, 2:] > 0).all(1)
    solid[:1] = True
    return xywh[np.maximum.accumulate(np.where(solid, np.arange(len(xywh)), 0))]


def _centres(xywh):
    return xywh[:, :2] + xywh[:, 2:] / 2


def _ious(first, second):
    near = np.maximum(first[:, :2], second[:, :2])
    far = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    overlap = np.maximum(far - near, 0).prod(1)
    ious = overlap / (first[:, 2:].prod(1) + second[:, 2:].prod(1) - overlap)
    return np.minimum(ious, 1.0)  # of equal boxes: rounding may give more, which the threshold of 1 would see
