"""Optimisers and their parameter groups."""

import pytest
import torch
from accelerate import Accelerator
from timm.optim import list_optimizers
from torch import nn
from toy import toy_branch, toy_model

from hiptrack.errors import ConfigError
from hiptrack.training.checkpoint import Checkpoint, Position, save_checkpoint
from hiptrack.training.optimizers import SGD, AdamW, TimmOptimizer, carry_over, parameter_groups
from hiptrack.training.stage import freeze_all_but

FAMILIES = [
    "adabelief",
    "adadelta",
    "adafactor",
    "adafactorbv",
    "adagrad",
    "adamax",
    "adamp",
    "adamw",
    "adan",
    "adopt",
    "clamb",
    "cadamw",
    "lamb",
    "lambc",
    "laprop",
    "lars",
    "lion",
    "madgrad",
    "mars",
    "muon",
    "nadam",
    "nadamw",
    "novograd",
    "radam",
    "rmsproptf",
    "sgd",
    "sgdp",
]


class Net(nn.Module):
    """A convolution, a normalisation and a matrix large enough for factored moments."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(64, 160)

    def train_step(self, optimizer, number):
        images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(number))
        self.head(self.stem(images)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def groups(net):
    return parameter_groups(net, 1e-2, {"stem": 0.1})


@pytest.mark.parametrize("name", FAMILIES)
def test_training_with_timms_optimisers_resumes_exactly(name, tmp_path):
    whole = Net()
    optimizer = TimmOptimizer(groups(whole), name)
    for number in range(3):
        whole.train_step(optimizer, number)
    save_checkpoint(tmp_path, Accelerator(), whole, "", optimizer, Position(step=3), {"validation": None}, 3, True)
    before = {key: value.clone() for key, value in whole.state_dict().items()}

    resumed = Net()
    again = TimmOptimizer(groups(resumed), name)
    checkpoint = Checkpoint.open(tmp_path / "step-00000003-end")
    checkpoint.load_weights(resumed)
    assert checkpoint.load_optimizer(resumed, again) == ""
    for number in range(3, 6):
        whole.train_step(optimizer, number)
        resumed.train_step(again, number)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    moved = [key for key, _ in whole.named_parameters() if not torch.equal(before[key], whole.state_dict()[key])]
    assert {"stem.0.weight", "head.weight"} <= set(moved)


@pytest.mark.parametrize("name", ["adafactor", "adafactorbv", "lamb", "lion", "adamw"])
def test_the_rates_of_the_groups_are_what_the_optimiser_uses(name):
    """With a rate of 0 in one group that group stands still, though the optimiser would choose a rate by itself."""
    net = Net()
    optimizer = TimmOptimizer(groups(net), name)
    assert [(group["name"], group["lr"]) for group in optimizer.param_groups] == [("stem", 1e-3), ("rest", 1e-2)]
    optimizer.param_groups[0]["lr"] = 0.0
    before = {key: value.clone() for key, value in net.named_parameters()}
    net.train_step(optimizer, 0)
    still = {key for key, value in net.named_parameters() if torch.equal(value, before[key])}
    assert still == {key for key in before if key.startswith("stem")}


def test_settings_reach_the_optimiser():
    optimizer = TimmOptimizer(groups(Net()), "lion", weight_decay=0.3, betas=(0.95, 0.98))
    assert all(group["weight_decay"] == 0.3 and group["betas"] == (0.95, 0.98) for group in optimizer.param_groups)


@pytest.mark.parametrize(
    "name, words",
    [
        ("lambb", "timm has no optimiser 'lambb'. Did you mean 'lamb"),
        ("lookahead_lamb", "timm has no optimiser"),
        ("adahessian", "second derivatives"),
        ("kron", "could not be resumed exactly"),
    ],
)
def test_names_that_cannot_be_used_are_refused(name, words):
    with pytest.raises(ConfigError, match=words):
        TimmOptimizer(groups(Net()), name)


def test_betas_may_be_written_as_whole_numbers():
    (group,) = AdamW([torch.nn.Parameter(torch.zeros(2))], betas=(0, 0.9)).param_groups
    assert group["betas"] == (0.0, 0.9)


@pytest.mark.parametrize("name, betas, number", [("adan", (0.9, 0.99), 3), ("lamb", (0.9,), 2)])
def test_more_or_fewer_betas_than_an_optimiser_has_are_refused(name, betas, number):
    with pytest.raises(ConfigError, match=f"betas = .*'{name}' has {number}"):
        TimmOptimizer(groups(Net()), name, betas=betas)


def test_every_name_of_timm_builds_or_is_an_error_in_words():
    for name in list_optimizers():
        try:
            TimmOptimizer(groups(Net()), name)
        except ConfigError as error:
            assert f"'{name}'" in str(error) and len(str(error)) > 50


def test_what_an_optimiser_knows_is_handed_on():
    for build in (AdamW, SGD, lambda own: TimmOptimizer(own, "lamb"), lambda own: TimmOptimizer(own, "adan")):
        once, twice = Net(), Net()
        first, second = build(groups(once)), build(groups(twice))
        once.train_step(first, 0)
        twice.train_step(second, 0)
        new = build(groups(twice))
        carry_over(second, new)
        once.train_step(first, 1)
        twice.train_step(new, 1)
        assert all(torch.equal(a, b) for a, b in zip(once.state_dict().values(), twice.state_dict().values()))


def rates(model, **settings):
    """{group: (its rate, names of its parameters)}."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = parameter_groups(model, **settings)
    assert len({group["name"] for group in found}) == len(found)
    assert all(group["lr"] == group["base_lr"] for group in found)
    return {group["name"]: (group["lr"], {names[parameter] for parameter in group["params"]}) for group in found}


def test_layer_decay_lowers_the_rate_block_by_block():
    model = toy_model(challenge=toy_branch, class_token=True)
    found = rates(model, lr=1.0, multipliers={}, layer_decay=0.5)
    expected = {f"backbone.blocks.{block}": 0.5 ** (4 - block) for block in range(4)}
    expected |= {"backbone.embeddings": 0.5**5, "rest": 1.0}
    assert {name: rate for name, (rate, _) in found.items()} == expected
    assert found["backbone.embeddings"][1] == {
        *("backbone.patch_embed.proj.weight", "backbone.patch_embed.proj.bias", "backbone.class_token"),
        *("backbone.template_position", "backbone.search_position", "backbone.class_position"),
        *("backbone.template_temporal", "backbone.search_temporal"),
    }
    assert found["backbone.blocks.2"][1] == {
        name for name, _ in model.named_parameters() if name.startswith("backbone.blocks.2.")
    }
    assert {"backbone.norm.weight", "history.fuse.conv1.weight"} < found["rest"][1]
    assert sum(len(names) for _, names in found.values()) == len(list(model.parameters()))


def test_layer_decay_and_multipliers_are_multiplied():
    multipliers = {"backbone": 0.1, "backbone.blocks.3.attn": 0.2, "backbone.patch_embed": 0.3, "history": 2.0}
    found = rates(toy_model(), lr=1.0, multipliers=multipliers, layer_decay=0.5)
    assert {name: rate for name, (rate, _) in found.items()} == pytest.approx(
        {
            **{f"backbone.blocks.{block}": 0.1 * 0.5 ** (4 - block) for block in range(4)},
            "backbone.blocks.3.attn": 0.2 * 0.5,
            "backbone.patch_embed": 0.3 * 0.5**5,
            "backbone.embeddings": 0.1 * 0.5**5,
            "backbone": 0.1,
            "history": 2.0,
            "rest": 1.0,
        }
    )
    assert found["backbone"][1] == {"backbone.norm.weight", "backbone.norm.bias"}


def test_groups_hold_what_is_trained_alone():
    model = toy_model()
    freeze_all_but(model, ["backbone.blocks.3", "box_head"])
    assert rates(model, lr=1.0, multipliers={}, layer_decay=0.5).keys() == {"backbone.blocks.3", "rest"}
    assert rates(model, lr=1.0, multipliers={}).keys() == {"rest"}
