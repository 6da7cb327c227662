"""The losses against formulas written in NumPy, and their numbers in half precision."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy import toy_branch, toy_model

from hiptrack.models.heads import HeadMaps
from hiptrack.models.hiptrack import Prediction
from hiptrack.training.losses import CenterFocalLoss, ChallengeLoss, GIoULoss, L1Loss, center_heatmap

SIDE = 12


def boxes(number, seed=0):
    """Predicted cxcywh and true xywh, normalised; some truths leave the crop."""
    rng = np.random.default_rng(seed)
    predicted = np.concatenate((rng.uniform(-0.1, 1.1, (number, 2)), rng.uniform(0.02, 0.9, (number, 2))), 1)
    truth = np.concatenate((rng.uniform(-0.2, 0.9, (number, 2)), rng.uniform(0.02, 0.6, (number, 2))), 1)
    return predicted, truth


def predicted(box_cxcywh=None, logits=None, challenge=None):
    maps = None if logits is None else HeadMaps(torch.as_tensor(logits), torch.zeros(1), torch.zeros(1))
    branch = None if challenge is None else SimpleNamespace(logits=torch.as_tensor(challenge))
    return Prediction(maps, None if box_cxcywh is None else torch.as_tensor(box_cxcywh), branch)


def corners_of_prediction(box):
    return box[0] - box[2] / 2, box[1] - box[3] / 2, box[0] + box[2] / 2, box[1] + box[3] / 2


def corners_of_truth(box):
    return [min(max(v, 0.0), 1.0) for v in (box[0], box[1], box[0] + box[2], box[1] + box[3])]


def test_giou_row_by_row():
    ours, truth = boxes(40)
    total = 0.0
    for p, t in zip(map(corners_of_prediction, ours), map(corners_of_truth, truth), strict=True):
        width, height = min(p[2], t[2]) - max(p[0], t[0]), min(p[3], t[3]) - max(p[1], t[1])
        shared = width * height if width > 0 and height > 0 else 0.0
        union = (p[2] - p[0]) * (p[3] - p[1]) + (t[2] - t[0]) * (t[3] - t[1]) - shared
        hull = (max(p[2], t[2]) - min(p[0], t[0])) * (max(p[3], t[3]) - min(p[1], t[1]))
        total += 1 - (shared / union - (hull - union) / hull)
    loss = GIoULoss()
    assert (loss.weight, loss.count(torch.tensor(truth))) == (2.0, 40)
    assert loss(predicted(ours), torch.tensor(truth)).item() == pytest.approx(total, rel=1e-9)


def test_l1_over_corners():
    ours, truth = boxes(40)
    total = np.abs(
        np.array([corners_of_prediction(box) for box in ours]) - np.array([corners_of_truth(box) for box in truth])
    ).sum()
    loss = L1Loss()
    assert (loss.weight, loss.count(torch.tensor(truth))) == (5.0, 160)
    assert loss(predicted(ours), torch.tensor(truth)).item() == pytest.approx(total, rel=1e-9)


def numpy_heatmap(box, side):
    """Gaussian round the centre's cell, CornerNet's radius with the roots as they are widely used."""
    x, y, w, h = (v * side for v in box)
    roots = []
    for a, b, c in (
        (1, h + w, w * h * 0.3 / 1.7),
        (4, 2 * (h + w), 0.3 * w * h),
        (2.8, -1.4 * (h + w), -0.3 * w * h),
    ):
        roots.append((b + math.sqrt(b * b - 4 * a * c)) / 2)
    radius = max(0, int(min(roots)))
    heat = np.zeros((side, side))
    column, row = round(x + w / 2), round(y + h / 2)
    for i in range(side):
        for j in range(side):
            if abs(i - row) <= radius and abs(j - column) <= radius:
                heat[i, j] = math.exp(-((i - row) ** 2 + (j - column) ** 2) / (2 * ((2 * radius + 1) / 6) ** 2))
    return heat


TRUTHS = [
    [0.3, 0.4, 0.2, 0.3],
    [0.05, 0.1, 0.5, 0.7],
    [0.61, 0.02, 0.3, 0.05],
    [0.5, 0.5, 0.01, 0.01],
    [0.0, 0.0, 1.0, 1.0],
]


@pytest.mark.parametrize("side", [SIDE, 24])
def test_heatmap(side):
    ours = center_heatmap(torch.tensor(TRUTHS), side).numpy()
    assert np.abs(ours - [numpy_heatmap(box, side) for box in TRUTHS]).max() < 1e-5
    assert ((ours == 1).sum((1, 2)) == 1).all()


def test_centre_focal():
    logits = np.random.default_rng(1).normal(-1, 3, (len(TRUTHS), SIDE, SIDE))
    total = 0.0
    for logit, box in zip(logits, TRUTHS, strict=True):
        heat = numpy_heatmap(box, SIDE)
        p = np.clip(1 / (1 + np.exp(-logit)), 1e-4, 1 - 1e-4)
        at_centre = (1 - p) ** 2 * np.log(p)
        elsewhere = (1 - heat) ** 4 * p**2 * np.log(1 - p)
        total -= np.where(heat == 1, at_centre, elsewhere).sum()
    loss, truth = CenterFocalLoss(), torch.tensor(TRUTHS)
    assert (loss.weight, loss.count(truth)) == (1.0, len(TRUTHS))
    assert loss(predicted(logits=logits), truth).item() == pytest.approx(total, rel=1e-4)


def log_softmax(logits):
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


LOGITS = np.random.default_rng(2).normal(0, 2, (6, 10))
LABELS = np.array([3, 0, 9, -1, 4, -1])


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "label_smoothing"])
def test_classification(kind):
    total = 0.0
    for row, label in zip(log_softmax(LOGITS), LABELS, strict=True):
        if label < 0:
            continue
        if kind == "label_smoothing":
            target = np.full(10, 0.01)
            target[label] += 0.9
            total -= (target * row).sum()
        else:
            focus = 0.25 * (1 - math.exp(row[label])) ** 2 if kind == "focal" else 1.0
            total -= focus * row[label]
    loss, labels = ChallengeLoss(kind=kind), torch.tensor(LABELS)
    assert loss.weight == 1.0
    assert int(loss.count(labels)) == 4
    assert loss(predicted(challenge=LOGITS), labels).item() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "label_smoothing"])
def test_unlabelled_frames_do_not_teach(kind):
    logits = torch.tensor(LOGITS, requires_grad=True)
    ChallengeLoss(kind=kind)(predicted(challenge=logits), torch.tensor(LABELS)).backward()
    taught = logits.grad.abs().sum(1) > 0
    assert taught.tolist() == [True, True, True, False, True, False]
    logits = torch.tensor(LOGITS, requires_grad=True)
    nobody = torch.full((6,), -1)
    loss = ChallengeLoss(kind=kind)
    value = loss(predicted(challenge=logits), nobody)
    value.backward()
    assert value.item() == 0 and int(loss.count(nobody)) == 0 and not logits.grad.any()


@pytest.mark.parametrize("logit", [-100.0, 100.0])
def test_saturated_half_precision_stays_finite(logit):
    """Logits of +-100 in bfloat16, right and wrong, from every loss: finite values and gradients."""
    truth = torch.tensor([[0.3, 0.4, 0.2, 0.3], [-0.5, -0.5, 0.2, 0.2]])  # the second lies outside the crop
    score = torch.full((2, SIDE, SIDE), logit, dtype=torch.bfloat16, requires_grad=True)
    prediction = predicted(logits=score)
    value = CenterFocalLoss()(prediction, truth)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and score.grad.isfinite().all()
    if logit > 0:  # everywhere a target: each wrong place costs -log(1e-4), not an infinity or nothing
        assert value.item() > 100 * 9
    for kind in ("cross_entropy", "focal", "label_smoothing"):
        logits = torch.zeros(2, 10, dtype=torch.bfloat16)
        logits[:, 0] = logit
        logits.requires_grad_()
        value = ChallengeLoss(kind=kind)(predicted(challenge=logits), torch.tensor([0, 1]))
        value.backward()
        assert value.dtype == torch.float32 and value.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("size", [1e-4, 1.0])
def test_boxes_that_share_nothing_have_finite_gradients(size):
    box = torch.tensor([[30.0, -20.0, size, size], [0.5, 0.5, size, size], [0.5, 0.5, 0.0, 0.0]], requires_grad=True)
    truth = torch.tensor([[0.2, 0.2, 0.1, 0.1], [1.5, 1.5, 0.2, 0.2], [0.5, 0.5, 0.0, 0.0]])
    for loss in (GIoULoss(), L1Loss()):
        box.grad = None
        value = loss(predicted(box), truth)
        value.backward()
        assert value.isfinite() and box.grad.isfinite().all()


@pytest.mark.parametrize("bias", [-100.0, 0.0, 100.0])
def test_a_saturated_model_under_autocast_trains_with_finite_numbers(bias):
    model = toy_model(challenge=toy_branch).train()
    with torch.no_grad():
        for tower in (model.box_head.score, model.box_head.offset, model.box_head.size):
            tower.out.bias.fill_(bias)
        model.challenge.classifier.bias[0] = bias
    template = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    search = torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8)
    truth = torch.tensor([[0.3, 0.4, 0.2, 0.3]]).expand(2, 4)
    losses = [GIoULoss(), L1Loss(), CenterFocalLoss(), ChallengeLoss(), ChallengeLoss(kind="focal")]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        clip = model.track_clip(model.normalise(template), model.normalise(search), truth)
        values = [
            loss(prediction, torch.tensor([1, 0]) if loss.part == "classification" else truth)
            for _, prediction in clip
            for loss in losses
        ]
    assert all(value.dtype == torch.float32 and value.isfinite() for value in values)
    sum(values).backward()
    assert [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()] == []
    assert model.challenge.classifier.weight.grad is not None
