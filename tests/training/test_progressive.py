"""Thawing the backbone from the top, with a rate for each layer: what is trained when, and that it resumes exactly."""

import itertools
import shutil

import pytest
import torch
from training_runs import TOY_BRANCH, TOY_MODEL, TOY_RUN, run_here, same_log, same_tensors

from hiptrack.errors import ConfigError
from hiptrack.models.weights import read_tensors
from hiptrack.training.checkpoint import finished_checkpoints, load_tensors
from hiptrack.training.log import read_metrics

FILES = ["experiments/progressive.gin"]
THAW = {
    0: ["challenge", "box_head"],
    1: ["challenge", "box_head", "backbone.norm", "backbone.blocks.1"],
    2: ["all"],
}

pytestmark = pytest.mark.usefixtures("clean_gin")


def toy_progressive(root):
    """experiments/progressive.gin for two blocks, three steps an epoch, and a checkpoint after every step."""
    return [
        *(*TOY_MODEL, *TOY_BRANCH, *TOY_RUN),
        *("WEIGHTS=None", f"DATA_ROOT={root}", f"ANNOTATIONS={root}/annotations", "CausalSampler.search_frames=2"),
        *("branch/Stage.epochs=1", "finetune/Stage.epochs=3", "finetune/Stage.lr=1e-3"),
        *(f"finetune/Stage.trainable={THAW}", "finetune/Stage.layer_decay=0.5"),
        *("Stage.optimizer=@TimmOptimizer", "TimmOptimizer.name=lamb"),
        *("train.save_steps=1", "train.keep_checkpoints=20"),
    ]


@pytest.fixture(scope="module")
def whole(synthetic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "progressive"
    assert run_here(FILES, toy_progressive(synthetic), folder) == 0
    return folder


def weights(folder, step):
    return read_tensors(folder / "checkpoints" / step / "weights.safetensors")


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_blocks_are_thawed_from_the_top(whole):
    ends = [weights(whole, f"step-{step:08d}-end") for step in (3, 6, 9, 12)]
    first, second, third = (changed(*pair) for pair in itertools.pairwise(ends))
    assert {name.split(".")[0] for name in first} == {"challenge", "box_head"}
    backbone = {name for name in second if name.startswith("backbone.")}
    assert backbone and all(name.startswith(("backbone.blocks.1.", "backbone.norm.")) for name in backbone)
    assert not any(name.startswith("history.") for name in second)
    assert {"backbone.blocks.0.attn.qkv.weight", "backbone.search_position", "history.key_proj.weight"} <= third


def test_each_layer_has_its_rate_in_the_log(whole):
    last = {name: curve[-1][1] for name, curve in read_metrics(whole).items() if name.startswith("LR/")}
    assert last == pytest.approx(
        {
            "LR/rest": 1e-3,
            "LR/backbone.blocks.1": 0.5e-3,
            "LR/backbone.blocks.0": 0.25e-3,
            "LR/backbone.embeddings": 0.125e-3,
        }
    )


def test_the_optimiser_keeps_what_it_knows_of_what_was_trained(whole):
    """LAMB counts steps for each group: "rest" since the stage began, a block since it was thawed."""
    content = load_tensors(whole / "checkpoints" / "step-00000011" / "optimizer.pt")
    steps = {name: int(step) for name, step in content["group_steps"].items()}
    assert steps == {"rest": 8, "backbone.blocks.1": 5, "backbone.blocks.0": 2, "backbone.embeddings": 2}
    assert content["optimizer"].keys() == {name for name, _ in weights_and_shapes(whole) if is_parameter(name)}


def weights_and_shapes(whole):
    return [(name, tensor.shape) for name, tensor in weights(whole, "step-00000011").items()]


def is_parameter(name):
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked", "mean_added", "updates"))


@pytest.mark.parametrize(
    "step", ["step-00000004", "step-00000006-end", "step-00000007", "step-00000009-end", "step-00000010"]
)
def test_it_goes_on_from_any_place_to_the_same_weights(whole, synthetic, tmp_path, step):
    """In the midst of a phase, and between two of them."""
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    (cut / "model.safetensors").unlink()
    assert step in [path.name for path in finished_checkpoints(cut / "checkpoints")]
    assert run_here(FILES, toy_progressive(synthetic), cut, resume=str(cut / "checkpoints" / step)) == 0
    assert same_tensors(whole / "model.safetensors", cut / "model.safetensors")
    assert same_log(whole, cut)


@pytest.mark.parametrize(
    "override, words",
    [
        ("TimmOptimizer.name=lambb", "timm has no optimiser 'lambb'"),
        (
            "finetune/Stage.trainable={0: ['backbone.blocks.2']}",
            "no module of the model. Did you mean 'backbone.blocks",
        ),
    ],
)
def test_mistakes_of_the_second_stage_stop_the_run_before_the_first(synthetic, tmp_path, override, words):
    name = override.partition("=")[0]
    overrides = [line for line in toy_progressive(synthetic) if not line.startswith(name)]
    with pytest.raises(ConfigError, match=words):
        run_here(FILES, [*overrides, override], tmp_path / "run")
    assert not (tmp_path / "run").exists()
