"""GOT-10k's average overlap and success rates, and how well the branch classifies, on numpy arrays.

Boxes are xywh (left, top, width, height) in pixels of the frame.
"""

from dataclasses import dataclass

import numpy as np

from hiptrack.errors import DataError

THRESHOLDS = np.linspace(0, 1, 101)  # of the success curve


def frame_ious(predicted_xywh, truth_xywh, image_size, cover):
    """IoU of every scored frame of one sequence, as the GOT-10k toolkit computes it.

    predicted_xywh [N,4]; truth_xywh [N,4]; image_size (width, height); cover [N], visible eighths 0..8.
    Returns [M] float64 in [0, 1]: frame 1 (the given box) and frames with cover 0 are left out.

    Both boxes are first bounded by the image in the toolkit's order: the top-left corner is clipped into
    [0,width] x [0,height], then the width into [0, image width - left] and the height likewise. So a box that
    begins outside the left or top edge is moved in rather than cut (x=-10, w=30 becomes x=0, w=30), one
    that ends outside the right or bottom edge is cut, a negative extent becomes 0, and a box entirely beyond
    the right or bottom edge becomes empty.

    Raises DataError on other shapes, on unequal counts, on a prediction that is NaN or infinite in any frame,
    and on a ground truth that is so in a scored frame.
    """
    predicted = np.asarray(predicted_xywh, np.float64)
    truth = np.asarray(truth_xywh, np.float64)
    cover = np.asarray(cover)
    size = np.asarray(image_size, np.float64)
    for what, array in (("predicted boxes", predicted), ("ground-truth boxes", truth)):
        if array.ndim != 2 or array.shape[1] != 4:
            raise DataError(f"The {what} have the shape {list(array.shape)}; expected [frames, 4] (xywh).")
    if not len(predicted) == len(truth) == len(cover):
        raise DataError(
            f"There are {len(predicted)} predicted boxes, {len(truth)} ground-truth boxes and {len(cover)} "
            "cover labels; expected one of each per frame."
        )
    if size.shape != (2,) or not (np.isfinite(size) & (size > 0)).all():
        raise DataError(f"The image size is {image_size!r}; expected a positive (width, height).")
    scored = cover > 0
    scored[:1] = False
    _require_finite_boxes(predicted, np.ones(len(predicted), bool), "predicted box")
    _require_finite_boxes(truth, scored, "ground-truth box")

    return box_ious(_bound(predicted[scored], size), _bound(truth[scored], size))


def box_ious(first_xywh, second_xywh):
    """Row-wise IoU of two float64 arrays [..., 4] -> [...] in [0, 1]; 0 where both are empty.

    As in the GOT-10k toolkit float64 epsilon is added to the union. It changes no bit of a union above 4 square pixels.
    """
    near = np.maximum(first_xywh[..., :2], second_xywh[..., :2])
    far = np.minimum(first_xywh[..., :2] + first_xywh[..., 2:], second_xywh[..., :2] + second_xywh[..., 2:])
    intersection = np.maximum(far - near, 0).prod(-1)
    union = first_xywh[..., 2:].prod(-1) + second_xywh[..., 2:].prod(-1) - intersection
    return np.clip(intersection / (union + np.finfo(np.float64).eps), 0, 1)


def _require_finite_boxes(xywh, where, what):
    bad = np.flatnonzero(where & ~np.isfinite(xywh).all(1))
    if len(bad):
        raise DataError(
            f"The {what} of frame {bad[0] + 1} is {xywh[bad[0]].tolist()} ({len(bad)} of {len(xywh)} frames "
            "are affected); expected four finite numbers x, y, w, h."
        )


def _bound(xywh, size):
    corner = np.clip(xywh[:, :2], 0, size)
    return np.concatenate((corner, np.clip(xywh[:, 2:], 0, size - corner)), 1)


def summarise(ious):
    """List of per-sequence IoUs [M_i] -> {"AO", "SR0.5", "SR0.75"} over all frames of all sequences.

    AO is the mean, SR_t the share of frames with IoU > t (strict). Raises DataError without any frame.
    """
    values = _all_frames(ious)
    return {
        "AO": float(values.mean()),
        "SR0.5": float((values > 0.5).mean()),
        "SR0.75": float((values > 0.75).mean()),
    }


def success_curve(ious):
    """List of per-sequence IoUs [M_i] -> [101]: share of all frames with IoU > 0, 0.01, ... 1 (strict)."""
    return (_all_frames(ious)[:, None] > THRESHOLDS).mean(0)


def _all_frames(ious):
    values = np.concatenate([np.asarray(part, np.float64) for part in ious]) if len(ious) else np.empty(0)
    if not len(values):
        raise DataError(
            "No frame can be scored: every sequence is one frame long or has cover 0 throughout. "
            "Give sequences with ground truth for more than the first frame."
        )
    return values


def summarise_classification(confusion):
    """[C,C] counts -> {"frames", "accuracy", "balanced_accuracy", "counts" [C], "recalls" [C]}.

    At least one frame was counted. Balanced accuracy is the mean recall over the classes that occur; the recall of the
    others is None.
    """
    counts = confusion.sum(1)
    hits = np.diagonal(confusion)
    recalls = [float(hit / count) if count else None for hit, count in zip(hits, counts, strict=True)]
    return {
        "frames": int(counts.sum()),
        "accuracy": float(hits.sum() / counts.sum()),
        "balanced_accuracy": float(np.mean([recall for recall in recalls if recall is not None])),
        "counts": counts.tolist(),
        "recalls": recalls,
    }


def summarise_multi_label(truth, probabilities):
    """How well several classes at once are found: truth [N, C] bool, probabilities [N, C], a row a frame.

    Returns {"frames", "mean_average_precision", "macro_f1", "counts" [C], "average_precisions" [C], "f1" [C]}. F1 is of
    the classes above probability 0.5. The two means are over the classes that occur; the numbers of the others are None.
    """
    from sklearn.metrics import average_precision_score, f1_score  # here, for their import takes seconds

    counts = truth.sum(0)
    f1 = f1_score(truth, probabilities > 0.5, average=None, zero_division=0)
    classes = list(zip(truth.T, probabilities.T, f1, strict=True))
    precisions = [float(average_precision_score(true, scores)) if true.any() else None for true, scores, _ in classes]
    f1 = [float(value) if true.any() else None for true, _, value in classes]
    return {
        "frames": len(truth),
        "mean_average_precision": _mean_of_numbers(precisions),
        "macro_f1": _mean_of_numbers(f1),
        "counts": counts.tolist(),
        "average_precisions": precisions,
        "f1": f1,
    }


def _mean_of_numbers(values):
    return float(np.mean([value for value in values if value is not None]))


OVERLAPS = np.linspace(0, 1, 21)
DISTANCES = np.arange(51.0)
NORMALISED_DISTANCES = np.arange(51) / 100
ONE_PASS_NUMBERS = ("AUC", "OP50", "OP75", "P", "P_norm", "P_norm0.2")


@dataclass(frozen=True)
class OnePass:
    """The curves of one sequence, or the mean of several: the shares of its frames that pass each threshold.

    success [21]: IoU above it; precision [51]: distance of the centres at most it; normalised_precision [51]: the same
    with the distance's x divided by the true box's width and its y by the height.
    """

    success: np.ndarray
    precision: np.ndarray
    normalised_precision: np.ndarray

    def numbers(self) -> dict[str, float]:
        """{"AUC": mean success, "OP50", "OP75": success at IoU 0.5 and 0.75, "P": precision at 20 pixels, "P_norm":
        mean normalised precision, "P_norm0.2": the same at the distance 0.2}."""
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

    predicted_xywh, truth_xywh [N,4]; visible [N] bool, a target is there, with a box of positive area; protocol: a
    Protocol, which says how the other frames count. The first frame's box is given and counts as found, as in all these
    toolkits. A predicted box without area counts as the last one before it that had an area (as in pytracking).

    Raises DataError on other shapes, unequal counts, numbers that are not finite, and a visible frame without a true
    area.
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
        (box_ious(predicted, truth)[:, None] > OVERLAPS).sum(0) / total,
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
