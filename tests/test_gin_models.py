"""The sizes of the model files, built without memory."""

import math

import gin
import pytest
import torch

from hiptrack import config
from hiptrack.config import REPO_ROOT
from hiptrack.training import train  # noqa: F401  registers everything

pytestmark = pytest.mark.usefixtures("clean_gin")

# width, depth, heads, grid sides of template and search, factors of their crops, blocks that eliminate
SIZES = {
    "hiptrack_b384": (768, 12, 12, 12, 24, 2.0, 5.0, (3, 6, 9)),
    "hiptrack_b256": (768, 12, 12, 8, 16, 2.0, 4.0, (3, 6, 9)),
    "hiptrack_l384": (1024, 24, 16, 12, 24, 2.0, 5.0, (6, 12, 18)),
    "hiptrack_t256": (192, 12, 3, 8, 16, 2.0, 4.0, (3, 6, 9)),
}


def build(name):
    """The model of gin/model/<name>.gin on the meta device."""
    config.load([str(REPO_ROOT / "gin" / "model" / f"{name}.gin")], ["train.stages=[]"], root="train")
    with torch.device("meta"):
        return gin.get_configurable("HIPTrack")()


@pytest.mark.parametrize("name", SIZES)
def test_model_file_has_the_sizes_it_names(name):
    width, depth, heads, template_side, search_side, template_factor, search_factor, eliminating = SIZES[name]
    model = build(name)
    backbone = model.backbone
    assert (backbone.width, len(backbone.blocks), backbone.blocks[0].attn.num_heads) == (width, depth, heads)
    assert (backbone.template_side, backbone.search_side) == (template_side, search_side)
    assert (model.template_factor, model.search_factor) == (template_factor, search_factor)
    assert backbone.elimination_blocks == eliminating and backbone.keep_ratio == 0.7
    tables = (template_side**2 + search_side**2 + 2) * width
    patches, blocks = 3 * 16 * 16 * width + width, depth * (12 * width**2 + 13 * width)
    assert sum(p.numel() for p in backbone.parameters()) == tables + patches + blocks + 2 * width


def test_published_size():
    assert sum(p.numel() for p in build("hiptrack_b384").parameters()) == 120_258_816


@pytest.mark.parametrize("name", SIZES)
@torch.no_grad()
def test_a_frame_passes_the_backbone_and_the_head(name):
    model, side = build(name).eval(), SIZES[name][4]
    with torch.device("meta"):
        template = torch.zeros(2, 3, model.template_size, model.template_size)
        search = torch.zeros(2, 3, model.search_size, model.search_size)
        features = model.backbone(model.backbone.embed_template(template), search)
        maps = model.box_head(model.history.fuse(model._as_grid(features.search)))
    assert maps.score_logits.shape == (2, side, side)
    left = side**2
    for removed in features.removed:
        assert removed.shape[1] == left - math.ceil(0.7 * left)
        left = math.ceil(0.7 * left)
