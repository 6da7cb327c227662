"""The model as it tracks: the same answers as the trained one, which is left as it was."""

import copy
import functools

import gin
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy import policy, randomise, toy_branch, toy_model, track

from hiptrack.errors import ConfigError
from hiptrack.models import layers
from hiptrack.models.backbone import ConvStem
from hiptrack.models.prepare import lay_out, prepare
from hiptrack.tracking.tracker import Tracker

conv2d = F.conv2d
BOX = torch.tensor([[0.5, 0.4375, 0.25, 0.375]])


def outputs(model, use_challenge=False):
    """Memory of template and frame, and the maps read from either, in float32."""
    generator = torch.Generator().manual_seed(0)
    template, search = (torch.randint(0, 256, (1, 3, side, side), generator=generator) for side in (32, 64))
    with torch.inference_mode():
        template, search = model.normalise(template), model.normalise(search)
        features = model.backbone(model.backbone.embed_template(template), search, BOX)
        memories = [model.template_memory(template, features, BOX), model.frame_memory(search, features, BOX)]
        predictions = [model.predict(features, [memory], use_challenge) for memory in memories]
    parts = [part for memory in memories for part in memory]
    for prediction in predictions:
        parts += [prediction.maps.score, prediction.maps.offset, prediction.maps.size]
    return torch.cat([part.flatten().float() for part in parts])


@pytest.mark.parametrize("convolution", [True, False])
@pytest.mark.parametrize(
    "described", [{}, {"patch_embed": ConvStem, "neck_width": 16, "challenge": toy_branch}], ids=str
)
def test_a_prepared_model_answers_as_before(described, convolution, monkeypatch):
    monkeypatch.setattr(layers, "convolution_is_faster", lambda: convolution)
    monkeypatch.setattr(layers, "LEAST", 0)
    model = toy_model(**described)
    expected = outputs(model)
    ready = prepare(copy.deepcopy(model), "float32", compile=False, device="cpu")
    assert not any(isinstance(part, nn.BatchNorm2d) for part in ready.modules())
    torch.testing.assert_close(outputs(ready), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("error:Dynamo detected")
def test_a_compiled_model_answers_as_before():
    model = toy_model(depth=1, elimination_blocks=(0,))
    expected = outputs(model)
    torch.testing.assert_close(outputs(prepare(model, "float32", True, "cpu")), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"branch": "folded"}, {"precision": "bf16"}], ids=str)
def test_a_tracker_leaves_the_model_to_its_training(settings):
    model = toy_model(challenge=toy_branch).train()
    before, modules = copy.deepcopy(model.state_dict()), [type(part) for part in model.modules()]
    tracker = Tracker(model, memory=policy(), device="cpu", **settings)
    track(tracker)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [type(part) for part in model.modules()] == modules
    assert model.training and all(tensor.requires_grad for tensor in model.parameters())


def test_a_tracker_does_not_depend_on_the_layout_of_training():
    """Validation of a bfloat16 run tracks as an evaluation of its weights does, bit by bit."""
    tracks = []
    for mixed_precision in ("no", "bf16"):
        model = lay_out(toy_model(seed=3), torch.device("cpu"), mixed_precision)
        tracks.append(track(Tracker(model, memory=policy(), device="cpu")))
    assert np.array_equal(*tracks)


@pytest.mark.parametrize(("branch", "feature"), [("off", "mean"), ("on", "mean"), ("on", "mean_max")])
def test_bfloat16_tracks_close_to_float32(branch, feature):
    # Without elimination: of near-equal scores another token would be removed.
    model = toy_model(challenge=functools.partial(toy_branch, feature=feature), seed=3, elimination_blocks=())
    randomise(model.challenge, seed=5)
    half = Tracker(model, branch=branch, precision="bf16", device="cpu").model
    difference = (outputs(half, branch == "on") - outputs(model, branch == "on")).abs()
    assert 1e-4 < difference.max() and difference.mean() < 0.02
    kept = {name: tensor for name, tensor in half.named_parameters() if tensor.dtype == torch.float32}
    exact = ("history.key_proj", "box_head.score.out", "box_head.offset.out", "box_head.size.out")
    assert all(any(name.startswith(layer) for name in kept) for layer in exact)
    assert not any(word in name for name in kept for word in ("qkv", "fc", "value_encoder", "fuse", "layers"))
    weights = dict(model.named_parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in kept.items() if name in weights)


@pytest.mark.parametrize(("precision", "allowed"), [("float32", False), ("tf32", True), ("bf16", False)])
def test_on_gpus_products_are_tf32_where_that_is_asked_for_alone(precision, allowed):
    """PyTorch itself starts with convolutions in TF32; what is float32 in a bfloat16 model is so for its precision."""
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    tracker = Tracker(toy_model(), precision=precision, device="cpu")
    tracker.device = torch.device("cuda")
    before = [part.allow_tf32 for part in flags]
    with pytest.raises(ZeroDivisionError), tracker.computing():
        assert [part.allow_tf32 for part in flags] == [allowed, allowed]
        raise ZeroDivisionError
    assert [part.allow_tf32 for part in flags] == before


def test_tf32_is_float32_where_there_is_none(caplog):
    tracks = [
        track(Tracker(toy_model(), memory=policy(), precision=name, device="cpu")) for name in ("float32", "tf32")
    ]
    assert np.array_equal(*tracks)
    assert [record.getMessage() for record in caplog.records] == [
        "Tracker.precision = 'tf32': there is no TF32 on cpu, it tracks in float32."
    ]


def test_an_unknown_precision_is_refused():
    gin.clear_config()
    with pytest.raises(ConfigError, match="'fp8'"):
        Tracker(toy_model(), precision="fp8", device="cpu")


@pytest.mark.parametrize("size", [(1, 7, 5), (180, 96, 33), (300, 130, 70)])
def test_products_by_convolution_are_products(size, monkeypatch):
    rows, inner, columns = size
    monkeypatch.setattr(layers, "convolution_is_faster", lambda: True)
    monkeypatch.setattr(layers, "LEAST", 0)
    x, weight, bias = torch.randn(2, rows, inner), torch.randn(columns, inner), torch.randn(columns)
    with torch.inference_mode():
        torch.testing.assert_close(layers.linear(x, weight, bias), F.linear(x, weight, bias), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(layers.product(x[0], weight.t()), x[0] @ weight.t(), rtol=1e-4, atol=1e-4)
        b = weight.t().contiguous()
        torch.testing.assert_close(layers.product(x[0], b), x[0] @ b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rows", "expected"), [(640, 0), (641, 2)])
def test_small_products_are_no_convolutions(rows, expected, monkeypatch):
    """PyTorch computes convolutions of up to 20,480 numbers by itself, many times slower."""
    by_convolution = []
    monkeypatch.setattr(layers, "convolution_is_faster", lambda: True)
    monkeypatch.setattr(
        F, "conv2d", lambda *given, **options: by_convolution.append(conv2d(*given, **options)) or by_convolution[-1]
    )
    x, weight = torch.randn(rows, 32), torch.randn(5, 32)
    layers.linear(x, weight)
    layers.product(weight, x.t().contiguous())
    assert len(by_convolution) == expected
