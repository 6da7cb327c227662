"""The joint backbone against a plain implementation with the whole attention matrix, and every size derived."""

import functools
import math

import pytest
import timm
import torch
import torch.nn.functional as F
from toy import BACKBONE, randomise, toy_backbone, toy_model

from hiptrack.boxes import xyxy_to_xywh
from hiptrack.errors import ConfigError
from hiptrack.models.backbone import Backbone, ConvStem
from hiptrack.models.heads import CenterHead
from hiptrack.models.hiptrack import HIPTrack
from hiptrack.models.history import HistoricalPrompt
from hiptrack.tracking.memory import MemoryPolicy, TargetMemory, read_memories, update_memories

BOX_CELLS = [(1, 0, 3, 2), (0, 1, 1, 4)]  # x1, y1, x2, y2 in cells of the grids of two templates


def voting_cells(choice, side, box_cells):
    """Grid indices of the template tokens that vote."""
    low, high = {
        "all": (0, side),
        "centre_point": ((side - 1) // 2, (side - 1) // 2 + 1),
        "centre_rectangle": (math.ceil(side / 2) - 1, math.floor(side / 2) + 1),
        "box": (None, None),
    }[choice]
    if choice == "box":
        x1, y1, x2, y2 = box_cells
        return [row * side + column for row in range(y1, y2) for column in range(x1, x2)]
    return [row * side + column for row in range(low, high) for column in range(low, high)]


def plain_pass(backbone, template, search, choice, box_cells, ratio):
    """One template [3, Ht, Ht] and one search crop [3, Hs, Hs], token by token and in float64.

    Returns (template tokens, {grid place: search token}, [places removed by each block], class token).
    """
    weights = {name: tensor.double() for name, tensor in backbone.state_dict().items()}
    side_z, side_x, heads = backbone.template_side, backbone.search_side, BACKBONE["heads"]

    def embed(image, part):
        tokens = F.conv2d(
            image[None].double(),
            weights["patch_embed.proj.weight"],
            weights["patch_embed.proj.bias"],
            stride=backbone.stride,
        )
        return tokens[0].flatten(1).T + weights[f"{part}_position"][0] + weights[f"{part}_temporal"][0]

    names, rows = [], []
    if "class_token" in weights:
        names.append("class")
        rows.append((weights["class_token"] + weights["class_position"])[0])
    names += [("z", i) for i in range(side_z**2)] + [("x", i) for i in range(side_x**2)]
    x = torch.cat([*rows, embed(template, "template"), embed(search, "search")])
    voters = [names.index(("z", i)) for i in voting_cells(choice, side_z, box_cells)]
    removed = []
    for number in range(BACKBONE["depth"]):
        own = {k.removeprefix(f"blocks.{number}."): v for k, v in weights.items() if k.startswith(f"blocks.{number}.")}

        def linear(value, name, own=own):
            return value @ own[f"{name}.weight"].T + own[f"{name}.bias"]

        def norm(value, name, own=own):
            return F.layer_norm(value, (value.shape[1],), own[f"{name}.weight"], own[f"{name}.bias"], 1e-6)

        qkv = linear(norm(x, "norm1"), "attn.qkv")
        q, k, v = (part.view(len(x), heads, -1).transpose(0, 1) for part in qkv.chunk(3, 1))
        attention = (q @ k.transpose(1, 2) / q.shape[2] ** 0.5).softmax(2)  # [heads, tokens, tokens]
        x = x + linear((attention @ v).transpose(0, 1).reshape(len(x), -1), "attn.proj")
        if number in backbone.elimination_blocks and ratio < 1:
            score = attention[:, voters].mean((0, 1))
            present = [i for i, name in enumerate(names) if name[0] == "x"]
            keep = math.ceil(ratio * len(present))
            best = set(sorted(present, key=lambda i: -score[i].item())[:keep])
            removed.append({names[i][1] for i in present if i not in best})
            stays = [i for i in range(len(names)) if names[i][0] != "x" or i in best]
            x, names = x[stays], [names[i] for i in stays]
        x = x + linear(F.gelu(linear(norm(x, "norm2"), "mlp.fc1")), "mlp.fc2")
    x = F.layer_norm(x, (x.shape[1],), weights["norm.weight"], weights["norm.bias"], 1e-6)
    z = torch.stack([x[names.index(("z", i))] for i in range(side_z**2)])
    grid = {name[1]: x[i] for i, name in enumerate(names) if name[0] == "x"}
    return z, grid, removed, x[0] if names[0] == "class" else None


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("template_size", [32, 40])  # grids of 4 and of 5 tokens a side
@pytest.mark.parametrize("choice", ["centre_point", "centre_rectangle", "all", "box"])
def test_equals_a_plain_implementation(choice, template_size, class_token):
    backbone = toy_backbone(
        elimination_template=choice, template_size=template_size, class_token=class_token, keep_ratio=0.6
    ).eval()
    torch.manual_seed(1)
    template, search = torch.randn(2, 3, template_size, template_size), torch.randn(4, 3, 64, 64)
    box_xywh = xyxy_to_xywh(torch.tensor(BOX_CELLS) / backbone.template_side)
    with torch.no_grad():
        features = backbone(backbone.embed_template(template), search, box_xywh)
    for row in range(4):
        z, grid, removed, token = plain_pass(
            backbone, template[row // 2], search[row], choice, BOX_CELLS[row // 2], 0.6
        )
        assert [set(part[row].tolist()) for part in features.removed] == removed
        assert features.kept[row].nonzero().flatten().tolist() == sorted(grid)
        torch.testing.assert_close(features.template[row].double(), z, rtol=0, atol=1e-5)
        expected = torch.stack([grid.get(i, torch.zeros(32, dtype=torch.float64)) for i in range(64)])
        torch.testing.assert_close(features.search[row].double(), expected, rtol=0, atol=1e-5)
        assert not features.search[row, ~features.kept[row]].any()
        if class_token:
            torch.testing.assert_close(features.class_token[row].double(), token, rtol=0, atol=1e-5)
        else:
            assert features.class_token is None


@pytest.mark.parametrize("ratio", [0.7, 0.5, 0.31])
def test_number_kept_is_the_chain_of_ceilings(ratio):
    backbone = toy_backbone(search_size=72, elimination_blocks=(0, 1, 3), keep_ratio=ratio).eval()
    with torch.no_grad():
        features = backbone(backbone.embed_template(torch.randn(1, 3, 32, 32)), torch.randn(2, 3, 72, 72))
    count = 81
    for removed in features.removed:
        kept = math.ceil(ratio * count)
        assert removed.shape == (2, count - kept)
        count = kept
    assert len(features.removed) == 3 and features.kept.sum(1).tolist() == [count, count]


def test_keep_ratio_one_removes_nothing_and_the_call_decides():
    backbone = toy_backbone().eval()
    never = toy_backbone(elimination_blocks=()).eval()
    tokens, search = backbone.embed_template(torch.randn(1, 3, 32, 32)), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = backbone(tokens, search, keep_ratio=1.0)
        assert features.removed == () and features.kept.all()
        assert torch.equal(features.search, never(tokens, search).search)
        assert not backbone(tokens, search).kept.all()


def test_a_box_smaller_than_a_cell_falls_back_to_the_centre():
    backbone = toy_backbone(elimination_template="box")
    index, weight = backbone.voters(torch.tensor([[0.26, 0.26, 0.05, 0.05], [0.5, 0.0, 0.5, 0.25]]))
    voting = [index[row > 0].tolist() for row in weight]
    assert voting == [[5], [2, 3]]
    assert weight.sum(1).tolist() == [1, 1]


def test_all_frames_in_one_call_equal_frame_by_frame():
    model = toy_model(class_token=True)
    torch.manual_seed(2)
    template, search = torch.randn(2, 3, 32, 32), torch.randn(2, 4, 3, 64, 64)
    box_xywh = torch.tensor([[0.25, 0.3, 0.5, 0.4], [0.31, 0.22, 0.33, 0.55]])
    with torch.inference_mode():
        clip = model.track_clip(template, search, box_xywh)
        for row in range(2):
            part = slice(row, row + 1)
            memory = TargetMemory(MemoryPolicy(1, (1,), 1), template[part], box_xywh[part])
            tokens = model.backbone.embed_template(template[part])
            for frame, (features, prediction) in enumerate(clip):
                alone = model.backbone(tokens, search[part, frame], box_xywh[part])
                step = model.predict(alone, read_memories(model, [memory], alone))
                update_memories(model, [memory], search[part, frame], alone, step.box_cxcywh, [True])
                assert torch.equal(alone.kept[0], features.kept[row])
                for ours, theirs in (
                    (alone.search[0], features.search[row]),
                    (alone.class_token[0], features.class_token[row]),
                    (step.maps.score[0], prediction.maps.score[row]),
                    (step.maps.offset[0], prediction.maps.offset[row]),
                    (step.maps.size[0], prediction.maps.size[row]),
                    (step.box_cxcywh[0], prediction.box_cxcywh[row]),
                ):
                    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_later_frame_has_no_influence_on_an_earlier_one():
    model = toy_model()
    template, search = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 3, 64, 64)
    box_xywh = torch.tensor([[0.25, 0.25, 0.5, 0.5]])
    with torch.no_grad():
        before = model.track_clip(template, search, box_xywh)
        search[:, 1] = torch.randn(1, 3, 64, 64)
        after = model.track_clip(template, search, box_xywh)
    maps = [[clip[i][1].maps.score for clip in (before, after)] for i in range(3)]
    assert torch.equal(*maps[0])
    assert not torch.equal(*maps[1]) and not torch.allclose(*maps[2], atol=1e-6)


SIZES = {
    "patch 14, layer scale": {
        "name": "vit_small_patch14_dinov2",
        "width": 48,
        "heads": 3,
        "template_size": 28,
        "search_size": 70,
    },
    "patch 32": {"name": "vit_base_patch32_224", "width": 64, "heads": 4, "template_size": 64, "search_size": 128},
    "patch 16, norm ahead": {
        "name": "vit_base_patch16_clip_224",
        "width": 24,
        "heads": 2,
        "template_size": 48,
        "search_size": 80,
    },
    "no class token in the ViT": {
        "name": "vit_base_patch16_siglip_224",
        "width": 24,
        "heads": 2,
        "template_size": 32,
        "search_size": 64,
    },
    "conv stem": {
        "name": "vit_tiny_patch16_224",
        "width": 24,
        "heads": 2,
        "patch": 4,
        "patch_embed": ConvStem,
        "template_size": 16,
        "search_size": 36,
    },
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_every_size_is_derived(sizes):
    model = HIPTrack(
        backbone=functools.partial(Backbone, depth=2, elimination_blocks=(1,), class_token=True, **sizes),
        history=functools.partial(HistoricalPrompt, trunk_width=4),
        head=functools.partial(CenterHead, widths=(8,)),
    ).train()
    stride = sizes.get("patch") or int(sizes["name"].split("patch")[1].split("_")[0])
    side = sizes["search_size"] // stride
    assert (model.backbone.stride, model.backbone.width, model.grid_side) == (stride, sizes["width"], side)
    template = torch.randint(0, 256, (2, 3, sizes["template_size"], sizes["template_size"]), dtype=torch.uint8)
    search = torch.randint(0, 256, (2, 3, 3, sizes["search_size"], sizes["search_size"]), dtype=torch.uint8)
    prediction = model(template, search, torch.tensor([[0.25, 0.25, 0.5, 0.5]]).expand(2, 4))
    assert prediction.maps.score.shape == (2, 3, side, side)
    assert prediction.maps.size.shape == prediction.maps.offset.shape == (2, 3, 2, side, side)
    assert prediction.box_cxcywh.shape == (2, 3, 4) and prediction.box_cxcywh.isfinite().all()
    (prediction.maps.score.sum() + prediction.box_cxcywh.sum()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_forward_is_track_clip_on_normalised_images():
    model = toy_model()
    template = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    search = torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8)
    box_xywh = torch.tensor([[0.25, 0.25, 0.5, 0.5]]).expand(2, 4)
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        together = model(template, search, box_xywh, 0.5)
        images = [(part / 255.0 - mean) / deviation for part in (template, search)]
        clip = model.track_clip(*images, box_xywh, 0.5)
    for frame, (_, prediction) in enumerate(clip):
        torch.testing.assert_close(together.maps.score[:, frame], prediction.maps.score, rtol=0, atol=1e-5)
        torch.testing.assert_close(together.box_cxcywh[:, frame], prediction.box_cxcywh, rtol=0, atol=1e-5)


def test_large_vit_is_built():
    with torch.device("meta"):
        backbone = Backbone("vit_large_patch16_224", elimination_blocks=(6, 12, 18))
    assert (backbone.width, len(backbone.blocks), backbone.search_position.shape) == (1024, 24, (1, 576, 1024))


def test_drop_path_grows_to_the_last_block():
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in toy_backbone(drop_path=0.3).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    "name, words",
    [
        ("swin_tiny_patch4_window7_224", "is no plain VisionTransformer"),
        ("eva02_tiny_patch14_224", "is no plain VisionTransformer"),
        ("deit_tiny_distilled_patch16_224", "deit_tiny_distilled_patch16_224"),
        ("vit_small_patch14_reg4_dinov2", "register tokens"),
        ("vit_relpos_small_patch16_224", "vit_relpos_small_patch16_224"),  # no table of absolute positions
        ("vit_tiny_r_s16_p8_224", "vit_tiny_r_s16_p8_224"),  # a ResNet makes its patches
        ("resnet18", "resnet18"),
    ],
)
def test_other_models_are_refused(name, words):
    with pytest.raises(ConfigError, match=words) as raised:
        Backbone(name, template_size=224, search_size=224, elimination_blocks=())
    assert name in str(raised.value) and "\n" not in str(raised.value)


def test_a_vit_without_positions_is_refused(monkeypatch):
    monkeypatch.setattr(timm, "create_model", functools.partial(timm.create_model, pos_embed="none"))
    with pytest.raises(ConfigError, match="has no learned absolute positions"):
        toy_backbone()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"name": "vit_tiny_patch16_244"}, "vit_tiny_patch16_244.*vit_tiny_patch16_224"),
        ({"search_size": 60}, r"search_size = 60 .*8 px"),
        ({"template_size": 33}, r"template_size = 33 .*8 px"),
        ({"elimination_blocks": (1, 4)}, r"elimination_blocks = \(1, 4\).*0 to 3"),
        ({"heads": 5}, "heads"),
        ({"patch": 12, "template_size": 24, "search_size": 48, "patch_embed": ConvStem}, "power of two, not 12"),
    ],
)
def test_wrong_settings_are_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        toy_backbone(**changes)


def test_conv_stem_is_as_strided_as_the_patch():
    stem = randomise(ConvStem(width=40, patch=16)).eval()
    images = torch.randn(1, 3, 64, 64)
    tokens = stem(images)
    assert tokens.shape == (1, 16, 40)
    images[:, :, 48:, 48:] += 1  # reaches the last tokens, never the first
    changed = (stem(images) != tokens).any(2)[0]
    assert changed[15] and not changed[0]
