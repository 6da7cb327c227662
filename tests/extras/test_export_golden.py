"""The published model at its size, B/384, with the golden weights: the ONNX step against PyTorch reading just the used frames."""

import json
import tempfile
from pathlib import Path

import pytest
import torch
from golden_rule import DATA, arr, fill

from hiptrack.extras.export.formats import FORMATS
from hiptrack.extras.export.write import export
from hiptrack.models.hiptrack import HIPTrack
from hiptrack.models.published import load_published

TOLERANCE = 1e-3
CAPACITY = 150


@pytest.fixture(scope="module")
def model():
    shapes = json.loads((DATA / "state_dict_shapes.json").read_text())
    model = HIPTrack()
    load_published(
        model, {name: fill(name, shape, dtype, 0) for name, (shape, dtype) in shapes.items()}, "the golden rule"
    )
    return model.eval()


@pytest.fixture(scope="module")
def run(model):
    """Runs a graph of the export by its name. The 490 MB of files are gone with the test."""
    with tempfile.TemporaryDirectory() as folder:
        export(model, Path(folder) / "b384", "onnx", [CAPACITY], say=lambda line: None)
        files = {path.stem: path for path in (Path(folder) / "b384").glob("*.onnx")}
        yield {name: FORMATS["onnx"].load(path) for name, path in files.items()}


def pixels(tag, side):
    """A golden image as pixels: uint8 [1, 3, side, side]."""
    return (arr(tag, (1, 3, side, side), 0) * 50 + 120).clamp(0, 255).to(torch.uint8)


def close(ours, theirs):
    assert (ours.float() - theirs.float()).abs().max() <= TOLERANCE


def long_memory(remembered):
    """Keys and values of CAPACITY frames: the given ones, over and over, each time somewhat different."""
    generator = torch.Generator().manual_seed(0)

    def varied(tensors, noise):
        many = torch.cat([tensors[slot % len(tensors)] for slot in range(CAPACITY)], 1)
        return many + noise * many.std() * torch.randn(many.shape, generator=generator)

    key = varied([keys[..., :-1] for keys, _ in remembered], 0.1)
    keys = torch.cat((key, -key.square().sum(-1, keepdim=True)), -1)
    return keys, varied([values for _, values in remembered], 0.5)


@torch.inference_mode()
def test_the_graphs_at_full_size_are_pytorch(model, run):
    template, searches = pixels("template", 192), [pixels(f"search{i}", 384) for i in range(3)]
    tokens = model.backbone.embed_template(model.normalise(template))
    close(run["template"](template)[0], tokens)
    box, remembered = torch.tensor([[0.45, 0.55, 0.3, 0.2]]), []
    for search in searches:
        features = model.backbone(tokens, model.normalise(search))
        template_grid, search_grid, kept = run["features"](tokens, search)
        close(template_grid.transpose(1, 2).unflatten(2, (24, 24)), model.template_grid(features))
        close(search_grid, features.search)
        assert torch.equal(kept, features.kept)
        remembered.append(model.frame_memory(model.normalise(search), features, box))
        for ours, theirs in zip(run["remember"](search.float(), features.search, box, features.kept), remembered[-1]):
            close(ours, theirs)

    keys, values = long_memory(remembered)
    scores = []
    for frames in (150, 20, 1):  # downwards, for the slots behind are spoilt
        places = frames * features.search.shape[1]
        keys[:, places:], values[:, places:] = torch.nan, torch.nan
        score, offset, size, peak = run[f"step-{CAPACITY}"](features.search, keys, values, torch.tensor([frames]))
        exact = model.predict(features, [(keys[:, :places], values[:, :places])])
        close(score, exact.maps.score)
        close(offset, exact.maps.offset)
        close(size, exact.maps.size)
        close(peak, exact.box_cxcywh)
        scores.append(score)
    assert not torch.allclose(scores[0], scores[1], atol=1e-4) and not torch.allclose(scores[1], scores[2], atol=1e-4)
