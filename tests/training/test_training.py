"""The loop: stages, freezing, exact resume, several processes, errors."""

import os
import re
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from gradients import gradients
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from training_runs import launch, run_here, same_tensors, toy_stages

from hiptrack import config
from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.models.hiptrack import HIPTrack
from hiptrack.models.weights import read_tensors
from hiptrack.processes import LAUNCHERS, check_processes, open_accelerator
from hiptrack.training.log import read_metrics
from hiptrack.training.train import Training

FROM_SCRATCH = ["tests/support/toy.gin"]
SEVEN = {"Loss/total", "Loss/giou", "Loss/l1", "Loss/location", "Loss/classification", "IoU", "Accuracy"}

pytestmark = pytest.mark.usefixtures("clean_gin")


@pytest.fixture(scope="module")
def staged_run(synthetic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert run_here(FROM_SCRATCH, toy_stages(synthetic), folder) == 0
    return folder


def test_branch_stage_changes_the_branch_alone(staged_run):
    before, after = read_tensors(staged_run / "tracker.safetensors"), read_tensors(staged_run / "branch.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("challenge.") for name in changed)


def test_frozen_branch_keeps_still_while_the_tracker_trains(staged_run):
    after = read_tensors(staged_run / "tracker.safetensors")
    assert not after["challenge.to_grid.project.weight"].any()
    assert int(after["challenge.updates"]) == 0


def test_finetune_changes_everything(staged_run):
    before, after = read_tensors(staged_run / "branch.safetensors"), read_tensors(staged_run / "finetune.safetensors")
    for part in ("backbone.", "history.", "box_head.", "challenge."):
        assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith(part))
    assert same_tensors(staged_run / "finetune.safetensors", staged_run / "model.safetensors")


def test_run_folder_says_what_was_run_and_logged(staged_run):
    names = {path.name for path in staged_run.iterdir()}
    assert {
        "config.gin",
        "versions.json",
        "command.txt",
        "operative-branch.gin",
        "metrics.jsonl",
        "tensorboard",
    } <= names
    curves = read_metrics(staged_run)
    assert SEVEN <= curves.keys()
    assert {"Time/data", "Time/compute"} <= curves.keys() and any(name.startswith("LR/") for name in curves)
    assert [step for step, _ in curves["Loss/total"]] == list(range(1, 10))
    assert [step for step, _ in curves["Accuracy"]] == list(range(4, 10))  # the branch trains from stage 2 on


def test_a_model_in_a_scope_is_refused(synthetic, tmp_path):
    overrides = ["train.model=@wide/HIPTrack", "wide/HIPTrack.neck_width=8"]
    with pytest.raises(ConfigError, match='built in the scope "wide".* train.model = @HIPTrack'):
        run_here(FROM_SCRATCH, [*toy_stages(synthetic), *overrides], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tensorboard_shows_the_configuration_as_text_and_as_hparams(staged_run):
    events = EventAccumulator(str(staged_run / "tensorboard"))
    events.Reload()
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "tracker/Stage.lr = 0.001" in text
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    shown = metadata.parse_session_start_info_plugin_data(content).hparams
    assert shown["tracker/Stage.lr"].number_value == 0.001 and shown["Stage.batch"].number_value == 4
    assert shown["ClipData.sampler"].string_value == "@CausalSampler()"
    content = events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    tabled = {info.name.tag for info in metadata.parse_experiment_plugin_data(content).metric_infos}
    assert {"Loss/total", "Accuracy"} <= tabled & set(events.Tags()["scalars"])


def test_config_gin_of_a_run_trains_the_same_weights_again(staged_run, tmp_path):
    assert run_here([str(staged_run / "config.gin")], [], tmp_path / "again") == 0
    assert same_tensors(staged_run / "model.safetensors", tmp_path / "again" / "model.safetensors")


def test_changing_the_number_of_workers_changes_nothing(staged_run, synthetic, tmp_path):
    run_here(FROM_SCRATCH, [*toy_stages(synthetic), "train.workers=2"], tmp_path / "w")
    assert same_tensors(staged_run / "model.safetensors", tmp_path / "w" / "model.safetensors")


@pytest.mark.parametrize("option", [[], ["checkpointing"]])
def test_gradients_of_two_processes_are_those_of_one(synthetic, tmp_path, option):
    done = launch([str(synthetic), str(tmp_path / "two"), *option], 2, "tests/support/gradients.py")
    assert done.returncode == 0, done.stderr
    one = gradients(str(synthetic))
    for process in (0, 1):
        two = torch.load(tmp_path / f"two-{process}.pt", weights_only=True)
        assert one.keys() == two.keys()
        for name, gradient in one.items():
            assert torch.allclose(gradient, two[name], rtol=0, atol=1e-5), name


def test_gradients_do_not_depend_on_the_passes(synthetic):
    whole, parts = gradients(str(synthetic)), gradients(str(synthetic), largest_pass=2)
    assert any(gradient.abs().max() > 1e-3 for gradient in whole.values())
    for name, gradient in whole.items():
        assert torch.allclose(gradient, parts[name], rtol=1e-4, atol=1e-5), name


def test_processes_that_do_not_know_of_each_other_are_an_error(synthetic, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(HiptrackError, match="2 processes were launched, but Accelerate joined 1"):
        run_here(FROM_SCRATCH, toy_stages(synthetic), tmp_path / "run")


def test_a_launch_that_starts_fewer_processes_than_asked_is_an_error(synthetic, tmp_path):
    arguments = ["--gin", *FROM_SCRATCH, "--run", str(tmp_path / "run"), *toy_stages(synthetic)]
    done = launch(arguments, 2, accelerate=["--cpu"])
    assert done.returncode != 0
    assert "asked for 2 processes, but started 1" in done.stderr


def test_bfloat16_trains_every_stage(synthetic, tmp_path):
    assert run_here(FROM_SCRATCH, [*toy_stages(synthetic), "train.mixed_precision=bf16"], tmp_path / "run") == 0
    curves = read_metrics(tmp_path / "run")
    assert len(curves["Loss/total"]) == 9


def test_what_has_no_deterministic_kernel_stops_the_run_with_advice(synthetic, tmp_path, monkeypatch):
    normalise = HIPTrack.normalise

    def undetermined(model, images):
        torch.zeros(2).put_(torch.tensor([1]), torch.ones(1))  # stands for a kernel of GPUs
        return normalise(model, images)

    monkeypatch.setattr(HIPTrack, "normalise", undetermined)
    overrides = toy_stages(synthetic, tracker=1)
    with pytest.raises(ConfigError, match=r"no kernel for put_ on this device.*train\.deterministic = False"):
        run_here(FROM_SCRATCH, overrides, tmp_path / "run")
    torch.use_deterministic_algorithms(False)
    assert run_here(FROM_SCRATCH, [*overrides, "train.deterministic=False"], tmp_path / "other") == 0


def test_a_full_gpu_stops_the_run_with_advice(synthetic, tmp_path, monkeypatch):
    def full(model, images):
        raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB")

    monkeypatch.setattr(HIPTrack, "normalise", full)
    words = r"at most \d.* GB .*Stage.activation_checkpointing .*Stage.largest_pass .*20.00 GiB"
    with pytest.raises(HiptrackError, match=words):
        run_here(FROM_SCRATCH, toy_stages(synthetic, tracker=1), tmp_path / "run")


@pytest.mark.parametrize(("backend", "refused"), [("nccl", True), ("gloo", False)])
def test_more_processes_than_gpus_are_an_error(backend, refused, monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: backend)
    expected = pytest.raises(HiptrackError, match="4 processes .* 3 GPUs") if refused else nullcontext()
    with expected:
        check_processes(SimpleNamespace(num_processes=4))


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE = x: a launcher sets it to a whole number. Remove it (unset WORLD_SIZE)."),
        ({"LOCAL_WORLD_SIZE": ""}, "LOCAL_WORLD_SIZE = : a launcher sets it to a whole number"),
        ({"LOCAL_RANK": "3"}, "The environment has LOCAL_RANK, but no RANK: a launcher sets both."),
        ({"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}, "has LOCAL_RANK, but no MASTER_ADDR"),
        ({"LOCAL_RANK": "3", "RANK": "three"}, "has RANK = three"),
        ({"WORLD_SIZE": "4"}, "4 processes were launched, but Accelerate joined 1"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "Look at what asks it to: ACCELERATE_USE_DEEPSPEED."),
        ({"ACCELERATE_TORCH_DEVICE": "abc"}, "Look at what asks it to: ACCELERATE_TORCH_DEVICE."),
        (
            {"ACCELERATE_DYNAMO_BACKEND": "zz"},
            "'ZZ' is not a valid DynamoBackend. Look at what asks it to: ACCELERATE_DYNAMO",
        ),
    ],
)
def test_an_environment_that_asks_for_what_cannot_be_is_named(variables, words, monkeypatch):
    for name in [*LAUNCHERS, *(name for name in os.environ if name.startswith("ACCELERATE_"))]:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        with pytest.raises(HiptrackError, match=re.escape(words)):
            open_accelerator()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_freeze_schedule_keeps_what_the_optimiser_knows(synthetic, tmp_path, monkeypatch):
    from hiptrack.training import train as module

    seen = []
    take_step = module.Training.take_step

    def spy(self, *given):
        result = take_step(self, *given)
        parameters = dict(self.net.named_parameters())
        names = [
            name
            for group in self.step.optimizer.param_groups
            for p in group["params"]
            for name, own in parameters.items()
            if own is p
        ]
        state = self.step.optimizer.optimizer.state
        ages = {name: int(state[parameters[name]]["step"]) for name in names}
        seen.append((self.at.epoch, ages, [loss.name for loss in self.step.losses]))
        return result

    monkeypatch.setattr(module.Training, "take_step", spy)
    schedule = "joint/Stage.trainable={0: ['box_head', 'challenge'], 1: ['box_head', 'history']}"
    run_here(FROM_SCRATCH, [*toy_stages(synthetic, joint=2), "joint/Stage.lr=1e-3", schedule], tmp_path / "run")
    first, second = seen[2], seen[5]
    assert {name.split(".")[0] for name in first[1]} == {"box_head", "challenge"} and "classification" in first[2]
    assert {name.split(".")[0] for name in second[1]} == {"box_head", "history"} and "classification" not in second[2]
    assert all(age == (6 if name.startswith("box_head") else 3) for name, age in second[1].items())


def test_a_classification_loss_without_any_label_is_an_error(synthetic, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="finds no labelled frame in its whole data"):
        run_here(FROM_SCRATCH, [*toy_stages(synthetic)[:-1], f"ANNOTATIONS={tmp_path / 'none'}"], tmp_path / "run")


@pytest.mark.parametrize(
    "override, words",
    [
        ("tracker/Stage.trainable=['box_hed']", "Did you mean 'box_head'"),
        ("Stage.lr_multipliers={'backbne': 0.1}", "Did you mean 'backbone'"),
        ("Stage.clips=3", "less than one global batch"),
    ],
)
def test_stage_mistakes_are_named(synthetic, tmp_path, override, words):
    with pytest.raises(ConfigError, match=words):
        run_here(FROM_SCRATCH, [*toy_stages(synthetic), override], tmp_path / "run")


def test_batch_that_processes_cannot_divide_is_an_error():
    from hiptrack.data.loader import divide_batch

    assert divide_batch(32, 2) == (16, 1)
    assert divide_batch(32, 2, 4) == (4, 4)
    with pytest.raises(ConfigError, match="3 processes cannot divide it evenly"):
        divide_batch(32, 3)
    with pytest.raises(ConfigError, match="Choose a divisor of 5"):
        divide_batch(10, 2, 2)


def test_validation_reports_ao_and_accuracy(synthetic, tmp_path):
    overrides = [o for o in toy_stages(synthetic, branch=1) if not o.startswith("train.validation")]
    run_here(FROM_SCRATCH, [*overrides, "Tracker.branch=on"], tmp_path / "run")
    curves = read_metrics(tmp_path / "run")
    assert {"Validation/AO", "Validation/SR0.5", "Validation/SR0.75", "Validation/accuracy"} <= curves.keys()
    assert [step for step, _ in curves["Validation/AO"]] == [3]


def test_mistakes_of_a_later_stage_stop_the_run_before_the_first(synthetic, tmp_path):
    for override, words in (
        ("finetune/Stage.trainable=['histroy']", "Did you mean 'history'"),
        ("finetune/Stage.trainable={0: ['all'], 1: ['box_hed']}", "Did you mean 'box_head'"),
        ("finetune/Stage.lr_multipliers={'backbne': 0.1}", "Did you mean 'backbone'"),
    ):
        with pytest.raises(ConfigError, match=words):
            run_here(FROM_SCRATCH, [*toy_stages(synthetic, tracker=1, finetune=2), override], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_stages_of_one_name_are_an_error(synthetic, tmp_path):
    overrides = [*toy_stages(synthetic, tracker=1), "train.stages=[@tracker/Stage(), @tracker/Stage()]"]
    with pytest.raises(ConfigError, match="the name 'tracker' is taken"):
        run_here(FROM_SCRATCH, [o for o in overrides if o != "train.stages=[@tracker/Stage()]"], tmp_path / "run")


@pytest.mark.parametrize("parameter", ["CenterHead.in_width=5", "ConvStem.patch=16", "HistoricalPrompt.stride=4"])
def test_what_the_model_derives_cannot_be_bound(synthetic, tmp_path, parameter):
    with pytest.raises(ConfigError, match="command line"):
        run_here(FROM_SCRATCH, [*toy_stages(synthetic), parameter], tmp_path / "run")


def test_two_processes_share_the_validation(synthetic, tmp_path):
    overrides = [o for o in toy_stages(synthetic, tracker=1) if not o.startswith("train.validation")]
    done = launch(["--gin", *FROM_SCRATCH, "--run", str(tmp_path / "run"), *overrides], 2)
    assert done.returncode == 0, done.stderr
    ((step, found),) = read_metrics(tmp_path / "run")["Validation/AO"]
    assert step == 3
    # all tracked with the model that was saved, whose running statistics are those of process 0
    AcceleratorState._reset_state(reset_partial_state=True)
    weights = [
        "train.initial_weights=[@TrackerWeights()]",
        f"TrackerWeights.path={tmp_path / 'run/tracker.safetensors'}",
    ]
    config.load(FROM_SCRATCH, [*overrides, *weights], root="train")
    training = Training()
    model = training.model()
    training.initial_weights[0](model)
    assert training.validation(model, Accelerator(cpu=True))["AO"] == pytest.approx(found, abs=1e-6)
