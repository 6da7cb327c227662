"""Weights of others: published trackers, plain ViTs, and files that are damaged or dangerous."""

import functools
import json
import os
import pickle
import random
import re

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from golden_rule import DATA
from toy import BACKBONE, toy_branch, toy_model

from hiptrack.errors import CheckpointError, NotFoundError
from hiptrack.models import strip
from hiptrack.models.initial import BackboneWeights, TrackerWeights
from hiptrack.models.published import load_published, load_vit, to_published
from hiptrack.models.weights import read_tensors

SHAPES = json.loads((DATA / "state_dict_shapes.json").read_text())
# what the published form needs: stride 16 and towers of four layers
published_toy = functools.partial(
    toy_model,
    patch=16,
    search_size=64,
    template_size=32,
    head_widths=(16, 16, 8, 8),
    history={"key_width": 8, "trunk_width": 4},
)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_there_and_back():
    model, other = published_toy(seed=1), published_toy(seed=2)
    published = to_published(model)
    depth = BACKBONE["depth"]
    expected = [name for name in SHAPES if int((re.findall(r"blocks\.(\d+)", name) or [0])[0]) < depth]
    assert sorted(published) == sorted(expected)
    assert published["backbone.pos_embed"].shape == (1, 14 * 14 + 1, 32)
    assert load_published(other, published, "a test") == []
    assert same(other.state_dict(), model.state_dict())
    published["box_head.conv5_ctr.bias"] += 1  # what is written is a copy
    assert not same(to_published(model), published)


def test_class_token_goes_there_and_back():
    model, other = published_toy(seed=1, class_token=True), published_toy(seed=2, class_token=True)
    load_published(other, to_published(model), "a test")
    assert same(other.state_dict(), model.state_dict())


def test_a_branch_and_a_neck_keep_their_values():
    published = to_published(published_toy(seed=1))
    model = published_toy(challenge=toy_branch, neck_width=32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept = load_published(model, published, "a test")
    assert kept and all(name.startswith(("challenge.", "neck.")) for name in kept)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in kept)
    assert not torch.equal(model.state_dict()["history.key_proj.weight"], before["history.key_proj.weight"])


def test_only_a_plain_tracker_has_a_published_form():
    with pytest.raises(CheckpointError, match=r"no name for challenge\."):
        to_published(published_toy(challenge=toy_branch))
    with pytest.raises(CheckpointError, match=r"no name for neck\."):
        to_published(published_toy(neck_width=32))


def drop(state, name):
    del state[name]


def misshape(state, name):
    state[name] = torch.zeros(3, 5)


def add(state, name):
    state[name] = torch.zeros(1)


@pytest.mark.parametrize(
    "change, name, words",
    [
        (drop, "backbone.blocks.1.attn.qkv.weight", r"1 missing: backbone.blocks.1.attn.qkv.weight"),
        (drop, "searchRegionFusion.conv2.bias", r"1 missing: history.fuse.conv2.bias"),
        (drop, "box_head.conv3_size.1.running_var", r"1 missing: box_head.size.layers.2.1.running_var"),
        (drop, "backbone.pos_embed_x", r"1 missing: backbone.search_position"),
        (
            misshape,
            "key_comp.weight",
            r"1 of another shape: history.key_comp.weight \[3, 5\] in the file, \[16, 32, 3, 3\]",
        ),
        (add, "backbone.blocks.9.norm1.weight", r"1 unexpected: backbone.blocks.9.norm1.weight"),
        (add, "HIP.encoder.layer4.0.conv1.weight", r"HIP.encoder.layer4.0.conv1.weight"),
        (add, "fc.weight", r"fc.weight"),
    ],
)
def test_each_tensor_that_does_not_fit_is_named(change, name, words, tmp_path):
    state = to_published(published_toy(seed=1))
    change(state, name)
    path = tmp_path / "tracker.pth.tar"
    torch.save({"net": state}, path)
    model = published_toy(seed=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=words) as raised:
        TrackerWeights(str(path))(model)
    assert "\n" not in str(raised.value)
    assert same(model.state_dict(), before)  # not half loaded


def test_counters_may_be_absent(tmp_path):
    model, other = published_toy(seed=1), published_toy(seed=2)
    state = {k: v for k, v in to_published(model).items() if not k.endswith("num_batches_tracked")}
    kept = load_published(other, state, "a test")
    assert kept and all(name.endswith("num_batches_tracked") for name in kept)


@pytest.mark.parametrize("form", ["net", "model", "state_dict", None])
def test_tracker_weights_from_a_file_in_any_wrapping(tmp_path, form):
    model, other = published_toy(seed=1), published_toy(seed=2, challenge=toy_branch)
    state, path = to_published(model), tmp_path / "tracker.pth.tar"
    torch.save({form: state, "epoch": 300} if form else state, path)
    line = TrackerWeights(str(path))(other)
    assert str(path) in line and "keep their initial values" in line
    ours = {name: tensor for name, tensor in other.state_dict().items() if not name.startswith("challenge.")}
    assert same(ours, model.state_dict())


def renamed(state, prefix, part=""):
    """Tensors as a trainer names them: `prefix` before all names, "_orig_mod." before those below `part`."""
    names = {
        name: name.replace(part, f"{part}_orig_mod.", 1) if part and name.startswith(part) else name for name in state
    }
    return {prefix + names[name]: tensor for name, tensor in state.items()}


PREFIXED = {  # the arguments of `renamed`, and what is said
    "DataParallel": (("module.", ""), "'module.' left out"),
    "Lightning": (("model.", ""), "'model.' left out"),
    "compiled, in two": (("module._orig_mod.net.", ""), "'_orig_mod.', 'module.', 'net.' left out"),
    "a compiled part": (("", "backbone."), "'_orig_mod.' left out"),
}


@pytest.mark.parametrize("given, said", PREFIXED.values(), ids=PREFIXED)
@pytest.mark.parametrize("published", [True, False], ids=["published", "ours"])
def test_what_a_trainer_puts_before_the_names_is_left_out_and_said(tmp_path, given, said, published):
    model, other = published_toy(seed=1), published_toy(seed=2)
    state = to_published(model) if published else model.state_dict()
    torch.save({"state_dict": renamed(state, *given), "epoch": 3}, tmp_path / "last.ckpt")
    line = TrackerWeights(str(tmp_path / "last.ckpt"))(other)
    assert same(other.state_dict(), model.state_dict()) and said in line
    other = published_toy(seed=2)
    if published:
        assert said in BackboneWeights(str(tmp_path / "last.ckpt"))(other)
        assert same(other.backbone.state_dict(), model.backbone.state_dict())


def test_a_plain_vit_in_a_module(tmp_path):
    state, model, other = plain_vit(num_classes=0), toy_model(seed=1, patch=16), toy_model(seed=1, patch=16)
    torch.save(state, tmp_path / "vit.pth")
    torch.save(renamed(state, "module."), tmp_path / "parallel.pth")
    assert "left out" not in BackboneWeights(str(tmp_path / "vit.pth"))(model)
    assert "'module.' left out" in BackboneWeights(str(tmp_path / "parallel.pth"))(other)
    assert same(other.state_dict(), model.state_dict())


def test_strip_takes_them_too(tmp_path, monkeypatch, caplog):
    model = published_toy(seed=1)
    torch.save({"net": renamed(to_published(model), "module.")}, tmp_path / "tracker.pth.tar")
    monkeypatch.setattr(strip, "HIPTrack", lambda: published_toy(seed=2))
    found, _ = strip.load_any(tmp_path / "tracker.pth.tar")
    assert same(found.state_dict(), model.state_dict()) and "'module.' left out of its names" in caplog.text


def test_names_that_would_become_one_stay(tmp_path):
    model = published_toy(seed=1)
    state = model.state_dict()
    torch.save({**state, "backbone._orig_mod.norm.weight": torch.zeros(32)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="1 unexpected: backbone._orig_mod.norm.weight"):
        TrackerWeights(str(tmp_path / "w.pth"))(model)


def plain_vit(seed=0, **changes):
    """The state dict of a timm ViT of the toy's width for 224 px images: a position grid of 14 x 14."""
    torch.manual_seed(seed)
    vit = timm.create_model("vit_tiny_patch16_224", embed_dim=32, depth=4, num_heads=2, **{"num_classes": 5, **changes})
    state = vit.state_dict()
    return {name: torch.randn_like(tensor) for name, tensor in state.items()}


def resampled(table, side):
    grid = table[:, -196:].reshape(1, 14, 14, 32).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).reshape(1, side * side, 32)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("class_token", [False, True])
def test_plain_vit_fills_the_backbone(tmp_path, class_token, suffix):
    state, path = plain_vit(), tmp_path / f"vit.{suffix}"
    if suffix == "pth":
        torch.save({"model": state}, path)
    else:
        safetensors.torch.save_file(state, path)
    model = toy_model(patch=16, template_size=80, search_size=160, class_token=class_token)
    temporal = model.backbone.search_temporal.clone()
    assert str(path) in BackboneWeights(str(path))(model)
    backbone = model.backbone
    torch.testing.assert_close(backbone.template_position.data, resampled(state["pos_embed"], 5), rtol=0, atol=1e-6)
    torch.testing.assert_close(backbone.search_position.data, resampled(state["pos_embed"], 10), rtol=0, atol=1e-6)
    assert torch.equal(backbone.blocks[3].mlp.fc2.weight, state["blocks.3.mlp.fc2.weight"])
    assert torch.equal(backbone.norm.weight, state["norm.weight"])
    assert torch.equal(backbone.patch_embed.proj.weight, state["patch_embed.proj.weight"])
    assert torch.equal(backbone.search_temporal, temporal)
    if class_token:
        assert torch.equal(backbone.class_token, state["cls_token"])
        assert torch.equal(backbone.class_position, state["pos_embed"][:, :1])


def test_position_grid_of_the_same_side_is_taken_as_it_is():
    backbone, state = toy_model(patch=16, template_size=224, search_size=448).backbone, plain_vit()
    load_vit(backbone, state, "a test")
    torch.testing.assert_close(backbone.template_position.data, state["pos_embed"][:, 1:], rtol=0, atol=1e-6)


def test_mae_file_with_a_decoder_and_a_vit_without_class_token(tmp_path):
    state = plain_vit()
    state.update({"decoder_embed.weight": torch.zeros(3), "mask_token": torch.zeros(1, 1, 3)})
    torch.save(state, tmp_path / "mae.pth")
    model = toy_model(patch=16)
    BackboneWeights(str(tmp_path / "mae.pth"))(model)
    bare = plain_vit(class_token=False, global_pool="avg", fc_norm=False)
    assert bare["pos_embed"].shape[1] == 196
    torch.save(bare, tmp_path / "bare.pth")
    BackboneWeights(str(tmp_path / "bare.pth"))(model)
    torch.testing.assert_close(model.backbone.search_position.data, resampled(bare["pos_embed"], 4), rtol=0, atol=1e-6)
    with pytest.raises(CheckpointError, match="no class token, which Backbone.class_token = True needs"):
        BackboneWeights(str(tmp_path / "bare.pth"))(toy_model(patch=16, class_token=True))


def test_plain_vit_that_does_not_fit_is_named(tmp_path):
    path = tmp_path / "vit.pth"
    for change, name, words in (
        (drop, "blocks.2.norm1.bias", "1 missing: blocks.2.norm1.bias"),
        (drop, "pos_embed", "pos_embed"),
        (misshape, "norm.weight", r"norm.weight \[3, 5\] in the file, \[32\] in the model"),
        (add, "blocks.4.norm1.bias", "1 unexpected: blocks.4.norm1.bias"),
    ):
        state = plain_vit()
        change(state, name)
        torch.save(state, path)
        with pytest.raises(CheckpointError, match=words) as raised:
            BackboneWeights(str(path))(toy_model(patch=16))
        assert str(path) in str(raised.value)


@pytest.mark.parametrize("class_token", [False, True])
def test_backbone_of_a_droptrack_file(tmp_path, class_token):
    """DropTrack and OSTrack: the published backbone and head, no memory, no temporal tables."""
    source, model = published_toy(seed=1), published_toy(seed=2, class_token=class_token)
    state = {k: v for k, v in to_published(source).items() if k.startswith(("backbone.", "box_head."))}
    state["backbone.pos_embed"] = torch.randn(1, 197, 32)
    state["backbone.cls_token"] = torch.randn(1, 1, 32)
    for part in "zx":
        del state[f"backbone.temporal_pos_embed_{part}"]
    path = tmp_path / "droptrack.pth.tar"
    torch.save({"net": state, "epoch": 100}, path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    BackboneWeights(str(path))(model)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    own = {name for name in before if name.startswith("backbone.")}
    assert changed == own - {"backbone.template_temporal", "backbone.search_temporal"}
    assert torch.equal(model.backbone.search_position, source.backbone.search_position)
    if class_token:
        assert torch.equal(model.backbone.class_token, state["backbone.cls_token"])
        assert torch.equal(model.backbone.class_position, state["backbone.pos_embed"][:, :1])


@pytest.mark.parametrize("table", [torch.zeros(()), torch.zeros(5), torch.zeros(1, 0, 32)], ids=lambda t: str(t.shape))
def test_a_position_table_of_another_form_is_an_error(tmp_path, table):
    torch.save(plain_vit() | {"pos_embed": table}, tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match="vit.pth has no 'pos_embed' .1, places, width."):
        BackboneWeights(str(tmp_path / "vit.pth"))(toy_model(patch=16))
    if table.ndim < 3:
        published = to_published(published_toy(seed=1)) | {"backbone.pos_embed": table}
        with pytest.raises(CheckpointError, match=r"backbone.pos_embed is \["):
            load_published(published_toy(class_token=True), published, "a test")


def test_a_class_token_without_its_position_is_an_error(tmp_path):
    state = to_published(published_toy(seed=1))
    del state["backbone.pos_embed"]
    torch.save(state, tmp_path / "tracker.pth")
    for weights in (BackboneWeights, TrackerWeights):
        with pytest.raises(CheckpointError, match="pos"):
            weights(str(tmp_path / "tracker.pth"))(published_toy(class_token=True))


def test_no_path_is_random_and_an_absent_one_is_named(tmp_path):
    gone = str(tmp_path / "gone.pth")
    for weights in (BackboneWeights, TrackerWeights):
        model = toy_model()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        assert "random" in weights(None)(model) and weights(None).missing_paths() == []
        assert same(model.state_dict(), before)
        assert weights(gone).missing_paths() == [gone]
        with pytest.raises(NotFoundError, match="gone.pth"):
            weights(gone)(model)


class Bomb:
    """Runs a command where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def write_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


def save_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("suffix", ["pth", "pth.tar", "safetensors"])
@pytest.mark.parametrize("write", [torch.save, save_legacy, write_pickle], ids=["zip", "legacy", "plain pickle"])
@pytest.mark.parametrize("place", ["alone", "beside the tensors", "as a name"])
def test_a_pickle_with_code_is_refused_and_runs_nothing(tmp_path, write, place, suffix):
    mark, path = tmp_path / "ran", tmp_path / f"tracker.{suffix}"
    bomb = Bomb(mark)
    content = {
        "alone": bomb,
        "beside the tensors": {"net": {"a": torch.zeros(1)}, "settings": bomb},
        "as a name": {"net": {bomb: torch.zeros(1)}},
    }[place]
    write(content, path)
    with pytest.raises(CheckpointError, match=re.escape(str(path))) as raised:
        read_tensors(path)
    assert "\n" not in str(raised.value)
    assert "weights_only" not in str(raised.value)  # PyTorch's own words advise to run the code
    for weights in (BackboneWeights, TrackerWeights):
        with pytest.raises(CheckpointError):
            weights(str(path))(toy_model())
    assert not mark.exists()


def test_the_bomb_is_live(tmp_path):
    """What the test above refuses would have run."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "write", [torch.save, save_legacy, safetensors.torch.save_file], ids=["zip", "legacy", "safetensors"]
)
def test_truncated_anywhere(tmp_path, write):
    path = tmp_path / ("w.safetensors" if write is safetensors.torch.save_file else "w.pth")
    write({"a": torch.arange(500.0), "b": torch.zeros(3, 5)}, path)
    assert torch.equal(read_tensors(path)["a"], torch.arange(500.0))
    whole = path.read_bytes()
    for end in sorted({0, 1, 7, 8, 9, 64, *range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1}):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError) as raised:
            read_tensors(path)
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, save_legacy], ids=["zip", "legacy"])
def test_flipped_bytes_are_an_error_or_harmless(tmp_path, write):
    path, rng = tmp_path / "w.pth", random.Random(0)
    write({"net": {"a": torch.arange(50.0), "b": torch.zeros(3, 5)}, "epoch": 3}, path)
    whole = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 3))):
            damaged[rng.randrange(min(len(whole), 1200))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_tensors(path)
        except CheckpointError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("suffix", ["pth", "pth.tar", "safetensors"])
@pytest.mark.parametrize(
    "content", [b"\0" * 100, b"<html>not found</html>\n", bytes(range(256)) * 4, b"PK\x03\x04"], ids=range(4)
)
def test_anything_else_is_refused(tmp_path, content, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        read_tensors(path)


@pytest.mark.parametrize("content", [{}, {"net": {}}, {"net": {"a": 1}}, [torch.zeros(1)], torch.zeros(2), 3], ids=str)
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_tensors(tmp_path / "w.pth")


def test_resampling_is_seen_by_the_tracker(tmp_path):
    """A ViT's weights reach the joint pass: another file, another output."""
    images = torch.randn(1, 3, 32, 32), torch.randn(1, 1, 3, 64, 64), torch.tensor([[0.2, 0.2, 0.5, 0.5]])
    scores = []
    for seed in (0, 1):
        torch.save(plain_vit(seed), tmp_path / "vit.pth")
        model = toy_model(patch=16)
        BackboneWeights(str(tmp_path / "vit.pth"))(model)
        with torch.no_grad():
            scores.append(model.track_clip(*images)[0][1].maps.score_logits)
    assert scores[0].isfinite().all() and not torch.allclose(*scores)
