"""The model is the published HIPTrack: golden numbers, filled by a rule so that no weights are shipped.

HIPTRACK_GOLDEN=FILE runs the same checks on any other file of that form (another seed).
"""

import copy
import json
import os

import numpy as np
import pytest
import torch
from golden_rule import DATA, arr, fill

from hiptrack import crops
from hiptrack.models.hiptrack import HIPTrack
from hiptrack.models.prepare import prepare
from hiptrack.models.published import load_published, to_published
from hiptrack.tracking.memory import MemoryPolicy, TargetMemory, read_memories, update_memories
from hiptrack.tracking.tracker import hann_window
from hiptrack.training.losses import CenterFocalLoss, GIoULoss, L1Loss, center_heatmap

TOLERANCE = 1e-4
TEMPLATE_XYWH = torch.tensor([[0.25, 0.30, 0.5, 0.4], [0.31, 0.22, 0.33, 0.55]])
TRACKED = (1, 2, 5, 6, 10, 11, 12, 20, 21, 40, 41, 45)


@pytest.fixture(scope="module")
def golden():
    return np.load(os.environ.get("HIPTRACK_GOLDEN", DATA / "hiptrack_b384_seed0.npz"))


@pytest.fixture(scope="module")
def shapes():
    return json.loads((DATA / "state_dict_shapes.json").read_text())


@pytest.fixture(scope="module")
def published(shapes, golden):
    return {name: fill(name, shape, dtype, int(golden["seed"])) for name, (shape, dtype) in shapes.items()}


@pytest.fixture(scope="module")
def model(published):
    model = HIPTrack()
    kept = load_published(model, published, "the golden rule")
    assert kept == []
    return model.eval()


@pytest.fixture(scope="module")
def images(golden):
    seed = int(golden["seed"])
    search = torch.stack([arr(f"search{i}", (2, 3, 384, 384), seed) for i in range(5)], 1)
    return arr("template", (2, 3, 192, 192), seed), search


def close(ours, theirs, tolerance=TOLERANCE):
    ours = np.asarray(ours, dtype=np.float64).reshape(np.shape(theirs))
    assert np.abs(ours - theirs).max() <= tolerance


def check_maps(prediction, golden, prefix, tolerance=TOLERANCE):
    close(prediction.box_cxcywh, golden[f"{prefix}.pred_boxes"], tolerance)
    close(prediction.maps.score, golden[f"{prefix}.score_map"], tolerance)
    close(prediction.maps.size, golden[f"{prefix}.size_map"], tolerance)
    close(prediction.maps.offset, golden[f"{prefix}.offset_map"], tolerance)


@pytest.mark.parametrize("keep_ratio", [1.0, 0.7])
def test_training_clip(model, golden, images, keep_ratio):
    with torch.no_grad():
        frames = model.track_clip(*images, TEMPLATE_XYWH, keep_ratio)
    for i, (features, prediction) in enumerate(frames):
        prefix = f"train.keep{keep_ratio}.{i}"
        check_maps(prediction, golden, prefix)
        tokens = torch.cat((features.template, features.search), 1)
        close(tokens[:, ::37, ::23], golden[f"{prefix}.feat"])
        mask = model.history.box_mask(prediction.box_cxcywh, features.kept)
        assert mask.flatten(1).sum(1).tolist() == golden[f"{prefix}.mask_area"].tolist()
        published_blocks = [key for key in golden.files if key.startswith(f"{prefix}.removed")]
        assert len(features.removed) == len(published_blocks)
        for j, removed in enumerate(features.removed):
            for ours, theirs in zip(removed.tolist(), golden[f"{prefix}.removed{j}"].tolist(), strict=True):
                assert set(ours) == set(theirs)


def test_template_voters(model, golden):
    index, weight = model.backbone.voters(TEMPLATE_XYWH)
    mask = torch.zeros(2, model.backbone.template_side**2, dtype=torch.bool)
    mask[:, index] = weight > 0
    assert np.array_equal(mask, golden["ce_template_mask"])


def test_tracking(model, golden, images):
    template, search = (part[:1] for part in images)
    model = prepare(copy.deepcopy(model), "float32", compile=False, device="cpu")  # as a Tracker has it
    memory = TargetMemory(MemoryPolicy(), template, TEMPLATE_XYWH[:1])
    held = []
    with torch.inference_mode():
        tokens = model.backbone.embed_template(template)
        for frame in range(1, 46):
            crop = search[:, frame % 5] * (1 + 0.02 * frame)
            features = model.backbone(tokens, crop)
            prediction = model.predict(features, read_memories(model, [memory], features))
            update_memories(model, [memory], crop, features, prediction.box_cxcywh, [True])
            held.append(memory.bank.frames)
            if frame in TRACKED:
                check_maps(prediction, golden, f"track.{frame}")
                assert held[-1] == int(golden[f"track.{frame}.mem_frames"])
    if "mem_frames" in golden.files:
        assert held == golden["mem_frames"].tolist()


def test_losses(model, golden, images):
    with torch.no_grad():
        prediction = model.track_clip(images[0], images[1][:, :1], TEMPLATE_XYWH, 0.7)[0][1]
    for number, truth in enumerate(torch.from_numpy(golden["loss.gt_xywh"])):
        close(center_heatmap(truth, 24), golden["loss.heatmap"][number], 1e-5)
        for name, loss in (("giou", GIoULoss()), ("l1", L1Loss()), ("focal", CenterFocalLoss())):
            value = loss(prediction, truth) / loss.count(truth)
            expected = golden[f"loss.{number}.{name}"]
            close(value, expected, TOLERANCE * max(1, abs(float(expected))))


@pytest.mark.parametrize("side", [192, 384])
@pytest.mark.parametrize("number", range(6))
def test_crops(golden, number, side):
    box = golden["crop.boxes"][number]
    prefix = f"crop.{number}.{side}"
    factor = 2.0 if side == 192 else 5.0
    image = crops.crop(golden["crop.image"], box, factor, side)
    scale = side / crops.crop_side(box, factor)
    assert scale == pytest.approx(float(golden[f"{prefix}.factor"]))
    assert np.abs(image[::7, ::7].astype(int) - golden[f"{prefix}.image"]).max() <= 1
    assert abs(int(image.sum()) - int(golden[f"{prefix}.sum"])) <= image.size * 0.01
    moved = crops.box_to_crop(box + np.array([3, -2, 4, 6]), box, scale, side)
    close(moved, golden[f"{prefix}.box"], 1e-5)


def test_hann_window(golden):
    close(hann_window(24), golden["hann"], 1e-6)


def test_going_back_gives_the_published_names_and_values(model, published, shapes):
    back = to_published(model)
    assert {name: list(tensor.shape) for name, tensor in back.items()} == {
        name: shape for name, (shape, _) in shapes.items()
    }
    unused = {"backbone.cls_token", "backbone.pos_embed"}
    assert all(torch.equal(back[name], published[name]) for name in shapes if name not in unused)
