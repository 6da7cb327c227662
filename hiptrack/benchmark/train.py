"""`benchmark train`: whole training steps of an experiment's model on random clips, in several ways.

Each way has a process of its own, which shows its memory; they take their steps in turn.
"""

import multiprocessing
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import gin
import torch
from accelerate import Accelerator

from hiptrack import config
from hiptrack.benchmark.machine import peak_memory_mb
from hiptrack.benchmark.repeat import interleaved, ratio
from hiptrack.data.labels import CLASSES
from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.losses import CenterFocalLoss, ChallengeLoss, GIoULoss, L1Loss, MultiLabelChallengeLoss
from hiptrack.models.backbone import Backbone
from hiptrack.training import train  # noqa: F401  registers what experiments name
from hiptrack.training.loop import TrainingStep
from hiptrack.training.stage import Stage

PURPOSE = "training: time and memory of whole steps, everything trained, the branch alone, and other ways"
EXPERIMENT = "experiments/two_stage.gin"


@dataclass(frozen=True)
class Way:
    """How a step is taken: which modules are trained, with the branch in the model, all frames of a clip in one backbone call."""

    trainable: tuple[str, ...] = ("all",)
    branch: bool = True
    batched: bool = True
    checkpointing: bool = False
    precision: str = "no"


WAYS = {
    "everything": Way(),
    "branch stage": Way(trainable=("challenge",)),
    "everything, no branch": Way(branch=False),
    "everything, frame by frame": Way(batched=False),
    "everything, checkpointing": Way(checkpointing=True),
    "everything, bf16": Way(precision="bf16"),
    "branch stage, bf16": Way(trainable=("challenge",), precision="bf16"),
}


def add_arguments(parser):
    """The options of `benchmark train`."""
    config.add_arguments(parser)
    parser.add_argument("--clips", type=int, default=1, metavar="N", help="clips of a step (1)")
    parser.add_argument("--frames", type=int, default=3, metavar="N", help="search frames of a clip (3)")


def measure(args):
    """Returns (settings, rows): per way the time of a step, how many times as fast as `everything`, and the peak memory.

    Raises ConfigError for an experiment without a branch.
    """
    experiment = args.gin or [EXPERIMENT], args.overrides
    with torch.device("meta"):
        model = build_model(*experiment)
    if model.challenge is None:
        raise ConfigError(f"{', '.join(experiment[0])} has no challenge branch: there is no branch stage to compare.")
    with ExitStack() as stack:
        steps = {
            name: stack.enter_context(own_process(name, way, experiment, args.clips, args.frames))
            for name, way in WAYS.items()
        }
        memory = {}
        tasks = {name: partial(_keep_result, memory, name, step) for name, step in steps.items()}
        timings = interleaved(tasks, args.repetitions, warm_up=2)
    rows = [
        {
            "step": name,
            **timings[name].row(),
            "times as fast": ratio(timings["everything"], timings[name]),
            "peak MB": memory[name],
        }
        for name in WAYS
    ]
    settings = {
        "experiment": ", ".join(experiment[0]),
        "clips": args.clips,
        "frames": args.frames,
        "repetitions": args.repetitions,
    }
    return settings, rows


def _keep_result(results, name, step):
    results[name] = step()


def build_model(gin_files, overrides):
    """The model of an experiment, with random weights."""
    config.load(gin_files, overrides, root="train")
    torch.manual_seed(0)
    return gin.get_configurable("HIPTrack")()


@contextmanager
def own_process(name, way, experiment, clips, frames):
    """A function that takes one step in a process of its own and gives its peak memory in MB."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, way, experiment, clips, frames, torch.get_num_threads()))
    process.start()
    there.close()

    def step():
        try:
            here.send(None)
            return here.recv()
        except (EOFError, OSError) as error:
            process.join()
            raise HiptrackError(
                f"the process of '{name}' ended with exit code {process.exitcode}; a negative one is a signal, and -9 most often "
                "means that the memory was used up."
            ) from error

    try:
        yield step
    finally:
        here.close()
        process.join()


def _serve(pipe, way, experiment, clips, frames, threads):
    """Take a step for each message, until the other end closes."""
    torch.set_num_threads(threads)
    step = step_of(way, build_model(*experiment), clips, frames)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        step()
        cuda = torch.cuda.is_available()
        pipe.send(torch.cuda.max_memory_allocated() / 1e6 if cuda else peak_memory_mb())


def step_of(way, model, clips, frames):
    """A function that trains a model by one step on random clips, as StageRun does."""
    if not way.branch:
        model.challenge = None
    if not way.batched:
        model.backbone.forward = partial(frame_by_frame, model.backbone)
    accelerator = Accelerator(mixed_precision=way.precision)
    stage = Stage(
        None,
        losses_for(model),
        epochs=1,
        lr=1e-5,
        batch=clips,
        clips=clips,
        trainable=way.trainable,
        activation_checkpointing=way.checkpointing,
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
    """The terms of a loss that suit a model."""
    losses = [GIoULoss(), L1Loss(), CenterFocalLoss()]
    if model.challenge is None:
        return losses
    return [*losses, ChallengeLoss() if model.challenge.activation == "softmax" else MultiLabelChallengeLoss()]


def random_clips(model, clips, frames, device):
    """A batch of noise as ClipDataset's batches are, all frames labelled."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape, below):
        return torch.randint(below, shape, generator=generator).to(device)

    box = torch.tensor([0.4, 0.4, 0.2, 0.2], device=device)
    return {
        "template": noise(clips, 3, model.template_size, model.template_size, below=256).byte(),
        "search": noise(clips, frames, 3, model.search_size, model.search_size, below=256).byte(),
        "template_box": box.expand(clips, 4),
        "boxes_xywh": box.expand(clips, frames, 4),
        "labels": noise(clips, frames, below=len(CLASSES)),
        "flags": noise(clips, frames, len(CLASSES), below=2),
    }


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
