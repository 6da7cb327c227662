"""The model files: the sizes of what they build (without memory), and that the last one decides alone."""

import itertools
import math
from types import SimpleNamespace

import gin
import pytest
import torch

from hiptrack import config
from hiptrack.config import REPO_ROOT
from hiptrack.config.portable import component_text
from hiptrack.extras.benchmark.measure import build_model
from hiptrack.training import train  # noqa: F401  registers everything

pytestmark = pytest.mark.usefixtures("clean_gin")

# width, depth, heads, grid sides of template and search, factors of their crops, blocks that eliminate
SIZES = {
    "hiptrack_b384": (768, 12, 12, 12, 24, 2.0, 5.0, (3, 6, 9)),
    "hiptrack_b256": (768, 12, 12, 8, 16, 2.0, 4.0, (3, 6, 9)),
    "hiptrack_l384": (1024, 24, 16, 12, 24, 2.0, 5.0, (6, 12, 18)),
    "hiptrack_t256": (192, 12, 3, 8, 16, 2.0, 4.0, (3, 6, 9)),
}


FILES = sorted(path.relative_to(REPO_ROOT).as_posix() for path in (REPO_ROOT / "gin" / "model").glob("*.gin"))


def build(name):
    """The model of gin/model/<name>.gin on the meta device."""
    config.load(["experiments/hiptrack_got10k.gin", f"gin/model/{name}.gin"], [], root="train")
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


def lines(file):
    """{name: value} of a gin file, as text."""
    rows = (line.partition("  #")[0] for line in (REPO_ROOT / file).read_text().splitlines())
    return dict(row.split(" = ") for row in rows if " = " in row and not row.startswith("#"))


def test_every_model_file_sets_the_same_names():
    """Those that only one of them needs too: what it leaves out, the model file before it would decide."""
    names = set().union(*map(lines, FILES))
    assert {file: names - lines(file).keys() for file in FILES if names - lines(file).keys()} == {}


@pytest.mark.parametrize("before, last", list(itertools.permutations(FILES, 2)))
def test_the_last_model_file_decides_alone(before, last):
    config.load(["experiments/two_stage.gin", last], [], root="train")
    alone, model = config.used_values("train"), component_text("HIPTrack")
    assert alone.items() >= lines(last).items()
    config.load(["experiments/two_stage.gin", before, last], [], root="train")
    assert (config.used_values("train"), component_text("HIPTrack")) == (alone, model)


def test_the_benchmark_builds_a_model_file():
    model, name = build_model(SimpleNamespace(checkpoint=None, model=["gin/model/hiptrack_nano.gin"]))
    assert (model.search_size, model.challenge, name) == (128, None, "hiptrack_nano")


def test_a_model_file_serves_clips_that_are_not_augmented(tmp_path):
    """What it says of the jitter is left out where an experiment replaces what its data file takes."""
    base = (REPO_ROOT / "experiments" / "hiptrack_got10k.gin").read_text()
    experiment = tmp_path / "mine.gin"
    experiment.write_text(base + "ClipData.augmentation = None\n")
    config.load([str(experiment)], [], root="train")
    bound = config.bound_values()
    assert bound["HIPTrack.search_factor"] == "5.0" and "Augmentation.scale_jitter" not in bound
