"""The training run: a pipeline of stages, built from gin and driven by Accelerate."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gin
import torch
from accelerate import Accelerator

import hiptrack.losses  # noqa: F401  registers the losses
from hiptrack.config_walk import current_bindings
from hiptrack.errors import ConfigError
from hiptrack.models.hiptrack import HIPTrack
from hiptrack.processes import PATIENCE, check_processes
from hiptrack.training.layout import lay_out
from hiptrack.training.replay import replay
from hiptrack.training.run import Run
from hiptrack.training.stage import Stage
from hiptrack.training.summary import describe_pipeline
from hiptrack.training.validation import Validation

MODEL = ("hiptrack.training.train.train", "model")  # as gin knows it


@dataclass(frozen=True)
class RunOptions:
    """What the command line says of a run.

    folder: of the run, or with `replay` of a step it kept; resume: "auto", "never" or a checkpoint's path; allow_change:
    resume with another configuration; dry_run: only describe it; replay: only run the kept step again.
    """

    folder: Path
    argv: tuple[str, ...] = ()
    resume: str = "auto"
    allow_change: bool = False
    dry_run: bool = False
    replay: bool = False


@gin.configurable(denylist=["options"])
def train(
    options: RunOptions,
    stages: list[Stage],
    model: Callable = HIPTrack,
    initial_weights: list[object] = (),
    validation: Validation | None = None,
    seed: int = 0,
    deterministic: bool = True,
    mixed_precision: Literal["no", "bf16", "fp16"] = "no",
    workers: int = 2,
    loader_timeout: float = 600.0,
    max_unreadable: float = 0.1,
    log_every: int = 10,
    save_steps: int | None = None,
    save_minutes: float = 15.0,
    keep_checkpoints: int = 3,
    pictures: int = 4,
):
    """Train a model through its stages.

    Args:
        stages: the pipeline, in order.
        model: called to build the model, after seeding.
        initial_weights: applied to the new model in order.
        validation: tracking of held-out sequences, every few epochs.
        seed: of everything random.
        deterministic: only kernels that give the same result each time, where PyTorch has them (GPUs are a little slower).
        mixed_precision: number format of matrix products.
        workers: loader processes of each training process.
        loader_timeout: seconds after which a worker that gives no batch is taken to hang.
        max_unreadable: largest share of the drawn clips that may meet an unreadable image (they are drawn again).
        log_every: steps between two logged lines.
        save_steps, save_minutes: a checkpoint after so many steps or minutes, besides those at the end of an epoch.
        keep_checkpoints: so many of the newest are kept, and the best by AO.
        pictures: clips of an epoch that are drawn into TensorBoard.

    Returns the exit code. Raises a HiptrackError for whatever the user can mend.
    """
    check_names(stages)
    check_model_scope()
    if keep_checkpoints < 1 or loader_timeout <= 0:
        raise ConfigError(
            f"train.keep_checkpoints = {keep_checkpoints} and train.loader_timeout = {loader_timeout:g}: at least 1 checkpoint "
            "and a time above 0 were expected."
        )
    try:
        accelerator = Accelerator(mixed_precision=mixed_precision, kwargs_handlers=[PATIENCE])
    except ValueError as error:
        raise ConfigError(
            f"train.mixed_precision = '{mixed_precision}' cannot be used on this device: {error}"
        ) from error
    check_processes(accelerator)

    def build():
        return lay_out(model(), accelerator.device, accelerator.mixed_precision)

    if options.dry_run:
        text, complete = describe_pipeline(model(), stages, initial_weights, validation, accelerator.num_processes)
        accelerator.print(text)
        return 0 if complete else 1
    if deterministic:
        use_deterministic_kernels()
    if options.replay:
        return replay(options.folder, accelerator, build(), stages)
    run = Run(
        accelerator=accelerator,
        folder=options.folder,
        stages=stages,
        validation=validation,
        seed=seed,
        workers=workers,
        loader_timeout=loader_timeout,
        max_unreadable=max_unreadable,
        log_every=log_every,
        save_steps=save_steps,
        save_minutes=save_minutes,
        keep_checkpoints=keep_checkpoints,
        pictures=pictures,
    )
    return run.whole(build, initial_weights, options)


def use_deterministic_kernels():
    """Have PyTorch choose kernels that repeat their results; it warns where it has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, and nothing reads such memory


def check_model_scope():
    """Raise ConfigError where train.model is built in a scope: a weights file describes its model without scopes."""
    bound = [value for (_, selector, name), value in current_bindings().items() if (selector, name) == MODEL]
    for scope in ("/".join(value.scopes) for value in bound if value.scopes):
        raise ConfigError(
            f'train.model is built in the scope "{scope}", but a weights file describes its model without scopes: write '
            f"train.model = @HIPTrack, and its bindings without {scope}/."
        )


def check_names(stages):
    """Raise ConfigError where two stages share a name, or one has that of the run's last file."""
    names = [stage.name for stage in stages]
    taken = [name for name in names if names.count(name) > 1 or name == "model"]
    if taken:
        raise ConfigError(
            f"train.stages: the name '{taken[0]}' is taken. A stage is called after its scope: give each its own, as in "
            "[@branch/Stage(), @finetune/Stage()], and none the scope 'model'."
        )
