"""What a step is said to cost, beside what it costs."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.autograd.graph import saved_tensors_hooks
from toy import toy_branch, toy_model

from hiptrack.data.sampling import CausalSampler, RandomIntervalSampler
from hiptrack.training import cost
from hiptrack.training.cost import (
    duration,
    largest_phases,
    memory_of_step,
    random_clips,
    search_frames,
    time_of_step,
)
from hiptrack.training.losses import CenterFocalLoss, ChallengeLoss, GIoULoss, L1Loss
from hiptrack.training.optimizers import SGD
from hiptrack.training.stage import Stage
from hiptrack.training.step import TrainingStep

FRAMES = 3


@pytest.fixture(scope="module")
def accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def model():
    return toy_model(toy_branch)


def stage_of(batch=8, **settings):
    losses = [GIoULoss(), L1Loss(), CenterFocalLoss(), ChallengeLoss()]
    return Stage(None, losses, epochs=1, lr=1e-3, batch=batch, clips=batch, **settings)


def said(model, accelerator, stage):
    return memory_of_step(stage, stage.phases[0], model, FRAMES, accelerator)


def kept(model, accelerator, stage):
    """Bytes that autograd keeps of the pass, taken with numbers."""
    stage.prepare(model, stage.phases[0])
    model.train()
    own = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    sizes = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes(), storage  # held, so that no address is used again
        return tensor

    batch = random_clips(model, stage.batch, FRAMES, torch.device("cpu"))
    step = TrainingStep(accelerator, model, stage.losses_in(model))
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        step.forward(batch, [torch.ones(())] * 4)
    return sum(size for size, _ in sizes.values())


def parameters(model):
    return sum(parameter.numel() * 4 for parameter in model.parameters())


def test_the_memory_is_what_autograd_keeps_and_the_optimisers_state(model, accelerator):
    stage = stage_of()
    expected = kept(model, accelerator, stage) + 2 * parameters(model)  # AdamW's moments
    assert expected < said(model, accelerator, stage) < 1.1 * expected


def test_it_grows_with_the_clips_of_a_pass(model, accelerator):
    one, two, four = (said(model, accelerator, stage_of(batch)) for batch in (8, 16, 32))
    assert four - two == pytest.approx(2 * (two - one), rel=0.02)


def test_it_depends_on_what_a_stage_trains_and_how(model, accelerator):
    whole = said(model, accelerator, stage_of())
    assert said(model, accelerator, stage_of(trainable=["challenge"])) < 0.5 * whole
    assert said(model, accelerator, stage_of(activation_checkpointing=True)) < 0.8 * whole
    passes = said(model, accelerator, stage_of(largest_pass=2))
    assert passes < 0.5 * whole
    plain = said(model, accelerator, stage_of(optimizer=lambda groups: SGD(groups, momentum=0.0)))
    assert whole - plain == pytest.approx(2 * parameters(model), rel=0.01)


@pytest.mark.parametrize(
    "trainable, largest",
    [
        ({0: ["challenge"], 4: ["challenge", "box_head"], 8: ["all"]}, [8]),
        ({0: ["all"], 4: ["backbone", "history", "box_head"]}, [0]),
        ({0: ["backbone", "box_head"], 4: ["backbone.blocks.1"], 8: ["challenge"]}, [0, 8]),
    ],
)
def test_only_phases_that_may_take_most_are_looked_at(model, accelerator, trainable, largest):
    stage = Stage(None, [GIoULoss(), ChallengeLoss()], epochs=9, lr=1e-3, batch=4, clips=4, trainable=trainable)
    told = {phase.first: memory_of_step(stage, phase, model, FRAMES, accelerator) for phase in stage.phases}
    assert [phase.first for phase in largest_phases(stage, model)] == largest
    assert max(told.values()) == max(told[first] for first in largest)


def test_the_model_is_left_as_it_is(model, accelerator):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said(model, accelerator, stage_of())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_what_decides_by_values_is_refused(model, accelerator):
    class Choosy(GIoULoss):
        def __call__(self, prediction, target):
            return super().__call__(prediction, target) * (2 if prediction.box_cxcywh.sum() > 0 else 1)

    stage = Stage(None, [Choosy()], epochs=1, lr=1e-3, batch=2, clips=2)
    with pytest.raises(RuntimeError):
        said(model, accelerator, stage)


def test_a_step_is_timed_and_taken(accelerator):
    model = toy_model(toy_branch)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    stage = stage_of(batch=2, largest_pass=1)
    assert 0 < time_of_step(stage, stage.phases[0], model, FRAMES, accelerator) < 60
    assert not torch.equal(before["backbone.blocks.0.mlp.fc1.weight"], model.backbone.blocks[0].mlp.fc1.weight)


def test_of_a_long_pass_a_part_is_timed(accelerator, monkeypatch):
    """Two passes of 16 clips, each clip a second."""
    now, taken = [0.0], []

    def backward(step, batches, keep_ratio):
        taken.append(len(batches[0]["search"]))
        now[0] += taken[-1]

    monkeypatch.setattr(TrainingStep, "backward", backward)
    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])
    stage = stage_of(batch=32, largest_pass=16)
    assert time_of_step(stage, stage.phases[0], toy_model(toy_branch), FRAMES, accelerator) == 32
    assert sum(taken) <= cost.PATIENCE


def test_samplers_say_how_many_frames_a_clip_has():
    assert [search_frames(sampler) for sampler in (CausalSampler(2), RandomIntervalSampler(7))] == [2, 7]


def test_durations():
    told = [duration(seconds) for seconds in (0.4, 59, 61, 3600 * 3 + 125, 86400 * 2 + 3700)]
    assert told == ["0 s", "59 s", "1 min 1 s", "3 h 2 min", "2 d 1 h"]
