"""`benchmark train`: whole training steps of an experiment's model on random clips, in several variants.

Each has a process of its own, which shows its memory; it takes its steps in turn with one that trains everything.
"""

import multiprocessing
from dataclasses import dataclass
from functools import partial

import gin
import torch

from hiptrack import config
from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.extras.benchmark.measure import Timing, interleaved, peak_memory_mb, ratio
from hiptrack.extras.world import world  # noqa: F401  what experiments of before name without importing it
from hiptrack.models.backbone import Backbone
from hiptrack.models.prepare import choose_kernels, lay_out
from hiptrack.processes import open_accelerator
from hiptrack.training import train  # noqa: F401  registers what experiments name
from hiptrack.training.cost import random_clips
from hiptrack.training.losses import CenterFocalLoss, ChallengeLoss, GIoULoss, L1Loss, MultiLabelChallengeLoss
from hiptrack.training.stage import Stage
from hiptrack.training.step import TrainingStep

EXPERIMENT = "experiments/two_stage.gin"


@dataclass(frozen=True)
class StepVariant:
    """How a step is taken: what is trained, whether with the branch, whether all frames of a clip in one call."""

    trainable: tuple[str, ...] = ("all",)
    branch: bool = True
    batched: bool = True
    checkpointing: bool = False
    precision: str = "no"


BASE = "everything"
VARIANTS = {
    "branch stage": StepVariant(trainable=("challenge",)),
    "everything, no branch": StepVariant(branch=False),
    "everything, frame by frame": StepVariant(batched=False),
    "everything, checkpointing": StepVariant(checkpointing=True),
    "everything, bf16": StepVariant(precision="bf16"),
    "branch stage, bf16": StepVariant(trainable=("challenge",), precision="bf16"),
}


def measure(args):
    """Returns (settings, rows): the time of a step of each variant, its ratio to BASE's, and the peak memory.

    Raises ConfigError for an experiment without a branch.
    """
    experiment = args.gin or [config.packaged(EXPERIMENT)], args.overrides
    with torch.device("meta"):
        model = build_model(*experiment)
    if model.challenge is None:
        raise ConfigError(f"{', '.join(experiment[0])} has no challenge branch: there is no branch stage to compare.")
    rows, base_seconds = [], []
    with OwnProcess(BASE, StepVariant(), experiment, args) as base:
        for name, variant in VARIANTS.items():  # in pairs: all at once would take the memory of a large machine
            with OwnProcess(name, variant, experiment, args) as step:
                timings = interleaved({BASE: base, name: step}, args.repetitions, warm_up=2)
            base_seconds.extend(timings[BASE].seconds)
            rows.append(row(name, timings[name], ratio(timings[BASE], timings[name]), step.peak_mb))
    rows.insert(0, row(BASE, Timing(base_seconds), 1.0, base.peak_mb))
    settings = {
        "experiment": ", ".join(experiment[0]),
        "clips": args.clips,
        "frames": args.frames,
        "repetitions": args.repetitions,
    }
    return settings, rows


def row(name, timing, times_as_fast, peak_mb):
    return {"step": name, **timing.row(), "times as fast": times_as_fast, "peak MB": peak_mb}


def build_model(gin_files, overrides):
    config.load(gin_files, overrides, root="train")
    torch.manual_seed(0)
    return gin.get_configurable("HIPTrack")()


class OwnProcess:
    """Takes a step of one variant at each call, in a process of its own; `peak_mb`: that process's peak memory so far.

    Raises HiptrackError where the process has ended by itself.
    """

    def __init__(self, name, variant, experiment, args):
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, there = context.Pipe()
        threads = torch.get_num_threads()
        self.process = context.Process(
            target=_serve, args=(there, variant, experiment, args.clips, args.frames, threads)
        )
        self.process.start()
        there.close()

    def __call__(self):
        try:
            self.pipe.send(None)
            self.peak_mb = self.pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join()
            raise HiptrackError(
                f"the process of '{self.name}' ended with exit code {self.process.exitcode}; a negative one is a signal, and -9 "
                "most often means that the memory was used up."
            ) from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pipe.close()
        self.process.join()


def _serve(pipe, variant, experiment, clips, frames, threads):
    """Take a step for each message, until the other end closes."""
    torch.set_num_threads(threads)
    step = step_of(variant, build_model(*experiment), clips, frames)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        step()
        cuda = torch.cuda.is_available()
        pipe.send(torch.cuda.max_memory_allocated() / 1e6 if cuda else peak_memory_mb())


def step_of(variant, model, clips, frames):
    """A function that trains a model by one step on random clips, as Training does."""
    if not variant.branch:
        model.challenge = None
    if not variant.batched:
        model.backbone.forward = partial(frame_by_frame, model.backbone)
    accelerator = open_accelerator(variant.precision)
    choose_kernels(deterministic=True, tf32=True)  # as `train` does by default
    model = lay_out(model, accelerator.device, accelerator.mixed_precision)
    stage = Stage(
        None,
        losses_for(model),
        epochs=1,
        lr=1e-5,
        batch=clips,
        clips=clips,
        trainable=variant.trainable,
        activation_checkpointing=variant.checkpointing,
    )
    stage.prepare(model, stage.phase_at(0))
    batch = random_clips(model, clips, frames, accelerator.device)
    wrapped, optimizer = accelerator.prepare(model, stage.optimizer(stage.parameter_groups(model)))
    wrapped.train()
    training = TrainingStep(accelerator, wrapped, stage.losses_in(model))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def step():
        training.backward([batch])
        float(accelerator.clip_grad_norm_(parameters, stage.grad_clip))
        optimizer.step()
        optimizer.zero_grad()
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def losses_for(model):
    losses = [GIoULoss(), L1Loss(), CenterFocalLoss()]
    if model.challenge is None:
        return losses
    return [*losses, ChallengeLoss() if model.challenge.activation == "softmax" else MultiLabelChallengeLoss()]


def frame_by_frame(backbone, template_tokens, search, template_box_xywh, keep_ratio):
    """Backbone.forward, called for each frame of the clips by itself."""
    frames = len(search) // len(template_tokens)
    calls = [search[frame::frames] for frame in range(frames)]
    return FramesApart(
        Backbone.forward(backbone, template_tokens, call, template_box_xywh, keep_ratio) for call in calls
    )


class FramesApart(list):
    """Features of each frame, for who asks for the rows of a frame."""

    def rows(self, rows):
        """rows: slice(frame, None, frames)."""
        return self[rows.start]
