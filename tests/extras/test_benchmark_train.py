"""The benchmark of training steps."""

import pytest
import torch
from accelerate.state import AcceleratorState
from toy import toy_branch, toy_model
from training_runs import TOY_BRANCH, TOY_MODEL

from hiptrack.cli.benchmark import options_parser
from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.extras.benchmark import train

pytestmark = pytest.mark.usefixtures("clean_gin")


def measured(*arguments):
    overrides = [*TOY_MODEL, *(TOY_BRANCH if "two_stage" in arguments[1] else [])]
    return train.measure(options_parser().parse_args(["train", "--repetitions", "1", *arguments, *overrides]))


def test_rows_tell_time_ratio_and_memory_of_each_way(monkeypatch):
    name = "branch stage, bf16"
    monkeypatch.setattr(train, "VARIANTS", {name: train.VARIANTS[name]})
    settings, rows = measured("--gin", "experiments/two_stage.gin", "--clips", "2", "--frames", "2")
    assert settings["clips"] == 2 and settings["frames"] == 2
    assert [row["step"] for row in rows] == ["everything", name]
    assert all(row["ms p50"] > 0 and row["peak MB"] > 100 for row in rows)
    assert rows[0]["times as fast"] == 1.0 and rows[1]["times as fast"] > 0


def test_a_process_that_ends_is_an_error(monkeypatch):
    monkeypatch.setattr(train, "VARIANTS", {"another": train.StepVariant(trainable=("nothing",))})
    with pytest.raises(HiptrackError, match="the process of 'another' ended with exit code 1"):
        measured("--gin", "experiments/two_stage.gin")


def test_an_experiment_without_branch_is_refused():
    with pytest.raises(ConfigError, match="has no challenge branch"):
        measured("--gin", "experiments/hiptrack_got10k.gin")


@pytest.mark.parametrize(
    "variant", [train.StepVariant(), *train.VARIANTS.values()], ids=["everything", *train.VARIANTS]
)
def test_every_variant_trains_what_it_says(variant):
    AcceleratorState._reset_state(reset_partial_state=True)
    model = toy_model(toy_branch)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    step = train.step_of(variant, model, 2, 3)
    step()
    after = dict(model.named_parameters())
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed and ("backbone.blocks.0.mlp.fc1.weight" in changed) == (variant.trainable == ("all",))
    assert (model.challenge is None) != variant.branch


def test_frame_by_frame_predicts_the_same():
    model = toy_model()
    clips = train.random_clips(model, 2, 3, torch.device("cpu"))
    with torch.no_grad():
        batched = model(clips["template"], clips["search"], clips["template_box"])
        model.backbone.forward = lambda *inputs: train.frame_by_frame(model.backbone, *inputs)
        apart = model(clips["template"], clips["search"], clips["template_box"])
    assert torch.allclose(batched.box_cxcywh, apart.box_cxcywh, atol=1e-4)
    assert torch.allclose(batched.maps.score_logits, apart.maps.score_logits, atol=1e-3)
