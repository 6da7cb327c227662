"""Losses: one small class per term, each with its weight.

A loss is called with a Prediction and its target and gives a *sum*; `count` says what that sum is to be divided by.
The training loop adds the counts of all processes and micro-batches first, so that the result does not depend on how
a global batch was divided. R rows are frames, clip after clip. A loss that suits one ChallengeBranch.activation only
names it in `activation`.
"""

from dataclasses import dataclass
from typing import Literal

import gin
import torch
import torch.nn.functional as F

from hiptrack.boxes import cxcywh_to_xyxy, iou_and_giou, xywh_to_xyxy
from hiptrack.errors import ConfigError, did_you_mean
from hiptrack.ranges import Count, NonNegative, Share, ShareBelowOne


@gin.register
class GIoULoss:
    """1 - GIoU of the predicted box (Rezatofighi et al., CVPR 2019), mean over frames."""

    name, target, part = "giou", "boxes_xywh", "location"

    def __init__(self, weight: NonNegative = 2.0):
        self.weight = weight

    def count(self, truth_xywh):
        return truth_xywh[..., 0].numel()

    def __call__(self, prediction, truth_xywh):
        """truth_xywh [R, 4] normalised, clamped to the crop here -> sum over frames."""
        truth = xywh_to_xyxy(truth_xywh).clamp(0, 1)
        return (1 - iou_and_giou(cxcywh_to_xyxy(prediction.box_cxcywh), truth)[1]).sum()


@gin.register
class L1Loss:
    """Mean absolute difference of the box's xyxy, normalised by the crop side."""

    name, target, part = "l1", "boxes_xywh", "location"

    def __init__(self, weight: NonNegative = 5.0):
        self.weight = weight

    def count(self, truth_xywh):
        return truth_xywh.numel()

    def __call__(self, prediction, truth_xywh):
        """truth_xywh [R, 4] normalised, clamped to the crop here -> sum over coordinates."""
        truth = xywh_to_xyxy(truth_xywh).clamp(0, 1)
        return (cxcywh_to_xyxy(prediction.box_cxcywh) - truth).abs().sum()


@gin.register
class CenterFocalLoss:
    """Focal loss of the score map against a Gaussian at the centre (CornerNet, Law and Deng, ECCV 2018)."""

    name, target, part = "focal", "boxes_xywh", "location"

    def __init__(self, weight: NonNegative = 1.0, alpha: NonNegative = 2.0, beta: NonNegative = 4.0):
        self.weight, self.alpha, self.beta = weight, alpha, beta

    def count(self, truth_xywh):
        """Number of positives: one a frame, since a sampled target's centre lies in its crop."""
        return truth_xywh[..., 0].numel()

    def __call__(self, prediction, truth_xywh):
        """truth_xywh [R, 4] normalised -> sum over places."""
        score = prediction.maps.score
        heatmap = center_heatmap(truth_xywh, score.shape[-1])
        positive = (heatmap == 1).float()
        hit = (1 - score).pow(self.alpha) * score.log() * positive
        miss = (1 - heatmap).pow(self.beta) * score.pow(self.alpha) * (1 - score).log() * (1 - positive)
        return -(hit + miss).sum()


def center_heatmap(truth_xywh, side):
    """Gaussian heat maps [R, S, S], 1 at the rounded box centre.

    truth_xywh: [R, 4] normalised. The radius is CornerNet's for overlap 0.7 in its widely used form.
    """
    x, y, w, h = (truth_xywh.float() * side).unbind(-1)
    radius = corner_radius(w, h).floor().clamp(min=0)
    sigma = ((2 * radius + 1) / 6).view(-1, 1, 1)
    radius = radius.view(-1, 1, 1)
    place = torch.arange(side, device=truth_xywh.device)
    dx = place.view(1, 1, -1) - (x + 0.5 * w).round().view(-1, 1, 1)
    dy = place.view(1, -1, 1) - (y + 0.5 * h).round().view(-1, 1, 1)
    gaussian = (-(dx.square() + dy.square()) / (2 * sigma.square())).exp()
    return gaussian * ((dx.abs() <= radius) & (dy.abs() <= radius))


def corner_radius(w, h, overlap=0.7):
    """CornerNet's radius of boxes of w x h grid cells; the roots are (b + sqrt(disc)) / 2 in all three cases."""

    def root(a, b, c):
        return (b + (b.square() - 4 * a * c).clamp(min=0).sqrt()) / 2

    first = root(1, h + w, w * h * (1 - overlap) / (1 + overlap))
    second = root(4, 2 * (h + w), (1 - overlap) * w * h)
    third = root(4 * overlap, -2 * overlap * (h + w), (overlap - 1) * w * h)
    return torch.minimum(torch.minimum(first, second), third)


@gin.register
@dataclass(eq=False)
class ChallengeLoss:
    """Classification of the challenge: cross entropy, focal (Lin et al., ICCV 2017) or with smoothed labels.

    Args:
        weight: factor in the total.
        kind: which of the three.
        alpha, gamma: of the focal loss.
        smoothing: share of a label spread over all classes.
        class_weights: {class: weight}, 1 for those not named, or "balanced": inverse to the share that each class has of the
            labels that are drawn (as in scikit-learn), so that all classes count alike. The loss is then the weighted mean
            over labelled frames.
    """

    name, target, part, activation = "classification", "labels", "classification", "softmax"

    weight: NonNegative = 1.0
    kind: Literal["cross_entropy", "focal", "label_smoothing"] = "cross_entropy"
    alpha: NonNegative = 0.25
    gamma: NonNegative = 2.0
    smoothing: Share = 0.1
    class_weights: dict[str, NonNegative] | Literal["balanced"] | None = None

    def __post_init__(self):
        self.weights = None  # [C], once the classes are known

    def weigh(self, taxonomy, shares):
        """Settle the weights of a Taxonomy's classes. shares: called to give the share [C] of the labels that each has.

        Raises ConfigError for a class that there is not.
        """
        if self.class_weights is None:
            return
        if self.class_weights == "balanced":
            found = torch.from_numpy(shares())
            self.weights = torch.where(found > 0, found.sum() / ((found > 0).sum() * found), 0).float()
            return
        for name in self.class_weights:
            if name not in taxonomy.classes:
                raise ConfigError(
                    f"ChallengeLoss.class_weights: '{name}' is no class of the branch. Expected names of "
                    f"{', '.join(taxonomy.classes)}.{did_you_mean(name, taxonomy.classes)}"
                )
        self.weights = torch.tensor([float(self.class_weights.get(name, 1)) for name in taxonomy.classes])

    def _weight(self, labels):
        """The weight of each label, 0 where a frame has none."""
        known = labels >= 0
        return known.float() if self.weights is None else self.weights.to(labels.device)[labels.clamp(min=0)] * known

    def count(self, labels):
        return self._weight(labels).sum()

    def __call__(self, prediction, labels):
        """labels [R] class indices, -1 where a frame has none -> sum over labelled frames."""
        logits = prediction.challenge.logits.float()
        smoothing = self.smoothing if self.kind == "label_smoothing" else 0.0
        loss = F.cross_entropy(logits, labels, ignore_index=-1, reduction="none", label_smoothing=smoothing)
        if self.kind == "focal":
            loss = self.alpha * (1 - (-loss).exp()).pow(self.gamma) * loss
        return loss.sum() if self.weights is None else (self._weight(labels) * loss).sum()


@gin.register
@dataclass(eq=False)
class MultiLabelChallengeLoss:
    """Classification of all challenges of a frame at once: binary cross entropy of each class, plain or asymmetric.

    The asymmetric loss (Ridnik et al., ICCV 2021, eq. 4 to 7) makes little of absent classes that are found improbable;
    with both gammas and the margin 0 it is the cross entropy. It needs ChallengeBranch.activation = "sigmoid".

    Args:
        weight: factor in the total.
        kind: which of the two.
        gamma_positive, gamma_negative: focusing exponents of present and of absent classes (asymmetric).
        margin: probability up to which an absent class costs nothing (asymmetric).
    """

    name, target, part, activation = "classification", "flags", "classification", "sigmoid"

    weight: NonNegative = 1.0
    kind: Literal["bce", "asymmetric"] = "bce"
    gamma_positive: NonNegative = 0.0
    gamma_negative: NonNegative = 4.0
    margin: ShareBelowOne = 0.05

    def count(self, flags):
        """Number of labelled frames; the classes of a frame are summed."""
        return (flags[:, 0] >= 0).sum()

    def __call__(self, prediction, flags):
        """flags [R, classes] in {0, 1}, rows of -1 where a frame has none -> sum over classes of labelled frames."""
        logits = prediction.challenge.logits.float()
        present, absent = -F.logsigmoid(logits), -F.logsigmoid(-logits)  # -log p and -log(1 - p)
        if self.kind == "asymmetric":
            shifted = (logits.sigmoid() - self.margin).clamp(min=0)
            rest = torch.logaddexp(-absent, logits.new_tensor(self.margin).log()).clamp(max=0)  # log(1 - shifted)
            present = (-self.gamma_positive * absent).exp() * present
            absent = -shifted.pow(self.gamma_negative) * rest
        return ((flags > 0) * present + (flags == 0) * absent).sum()


@gin.register
class ConsistencyLoss:
    """Squared difference between the class probabilities of neighbouring search frames of a clip, mean over classes.

    The consistency term of Temporal Ensembling (Laine and Aila, ICLR 2017, section 2), with the frame before in the
    place of an earlier pass; gradients reach both frames, and the weight is constant where the paper's rises slowly
    from 0. It needs no labels, and goes beside a loss that has them.

    Args:
        weight: factor in the total.
        max_gap: frames of the sequence between two neighbours, up to which they are held to be alike.
    """

    name, target, part = "consistency", "gaps", "classification"

    def __init__(self, weight: NonNegative = 10.0, max_gap: Count = 10):
        self.weight, self.max_gap = weight, max_gap

    def count(self, gaps):
        return self._paired(gaps).sum()

    def __call__(self, prediction, gaps):
        """gaps [R]: frames from the row before, 0 at the start of a clip -> sum over pairs."""
        probabilities = prediction.challenge.probabilities
        difference = (probabilities[1:] - probabilities[:-1]).square().mean(1)
        return (difference * self._paired(gaps)[1:]).sum()

    def _paired(self, gaps):
        return (gaps > 0) & (gaps <= self.max_gap)
