"""The training run: a pipeline of stages, built from gin and driven by Accelerate."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import gin
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm import tqdm

import hiptrack.losses  # noqa: F401  registers the losses
from hiptrack.component import build_component, component_text
from hiptrack.config import config_text, operative_text
from hiptrack.data.clips import ClipDataset, Geometry
from hiptrack.data.loader import shut_down
from hiptrack.errors import ConfigError
from hiptrack.models.hiptrack import HIPTrack
from hiptrack.models.weights import ROOT_COMPONENT, save_weights
from hiptrack.processes import PATIENCE, check_processes
from hiptrack.run_folder import open_run, record, record_operative
from hiptrack.training.checkpoint import (
    Checkpoint,
    Position,
    finished_checkpoints,
    remove_unfinished,
    save_checkpoint,
    set_aside_after,
)
from hiptrack.training.log import RunLog
from hiptrack.training.stage import Stage
from hiptrack.training.stage_run import StageRun
from hiptrack.training.summary import describe_pipeline
from hiptrack.training.validation import Validation

CHECKPOINTS = "checkpoints"  # below the run's folder


@dataclass(frozen=True)
class RunOptions:
    """What the command line says of a run: its folder, its arguments, and how to resume (auto, never or a checkpoint)."""

    folder: Path
    argv: tuple[str, ...] = ()
    resume: str = "auto"
    dry_run: bool = False


@gin.configurable
def train(
    options: RunOptions,
    stages: list[Stage],
    model: Callable = HIPTrack,
    initial_weights: list[object] = (),
    validation: Validation | None = None,
    seed: int = 0,
    mixed_precision: Literal["no", "bf16", "fp16"] = "no",
    workers: int = 2,
    log_every: int = 10,
    save_steps: int | None = None,
    save_minutes: float = 15.0,
    pictures: int = 4,
):
    """Train a model through its stages.

    Args:
        stages: the pipeline, in order.
        model: called to build the model, after seeding.
        initial_weights: applied to the new model in order.
        validation: tracking of held-out sequences, every few epochs.
        seed: of everything random.
        mixed_precision: number format of matrix products.
        workers: loader processes of each training process.
        log_every: steps between two logged lines.
        save_steps, save_minutes: a checkpoint after so many steps or minutes, besides those at the end of an epoch.
        pictures: clips of an epoch that are drawn into TensorBoard.

    Returns the exit code. Raises a HiptrackError for whatever the user can mend.
    """
    check_names(stages)
    try:
        accelerator = Accelerator(mixed_precision=mixed_precision, kwargs_handlers=[PATIENCE])
    except ValueError as error:
        raise ConfigError(
            f"train.mixed_precision = '{mixed_precision}' cannot be used on this device: {error}"
        ) from error
    check_processes(accelerator)
    if options.dry_run:
        text, complete = describe_pipeline(model(), stages, initial_weights, validation, accelerator.num_processes)
        accelerator.print(text)
        return 0 if complete else 1
    run = Run(
        accelerator, options.folder, stages, validation, seed, workers, log_every, save_steps, save_minutes, pictures
    )
    run.start(model, initial_weights, options)
    run.all_stages()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


def check_names(stages):
    """Raise ConfigError where two stages share a name, or one has that of the run's last file."""
    names = [stage.name for stage in stages]
    taken = [name for name in names if names.count(name) > 1 or name == "model"]
    if taken:
        raise ConfigError(
            f"train.stages: the name '{taken[0]}' is taken. A stage is called after its scope: give each its own, as in "
            "[@branch/Stage(), @finetune/Stage()], and none the scope 'model'."
        )


@dataclass
class Run:
    """A run in progress: the arguments of `train` (which see), its model, its position and its folder."""

    accelerator: Accelerator
    folder: Path
    stages: list[Stage]
    validation: Validation | None
    seed: int
    workers: int
    log_every: int
    save_steps: int | None
    save_minutes: float
    pictures: int
    position: Position = field(default_factory=Position)
    checkpoint: Checkpoint | None = None  # to resume from, until that is done

    @property
    def is_main(self):
        """Whether this process writes."""
        return self.accelerator.is_main_process

    def start(self, build_model, initial_weights, options):
        """Build the model, take up the newest checkpoint where there is one, read the data, and open the folder.

        The folder comes last: a run that cannot start leaves nothing behind.
        """
        if self.is_main and self.folder.exists():
            open_run(self.folder, options.resume)  # refuses a used folder before anything is read
        set_seed(self.seed)
        self.model = build_model()
        self.bindings = component_text(ROOT_COMPONENT)
        with torch.device("meta"):  # a weights file that could not be loaded again must not cost a training run
            build_component(self.bindings, ROOT_COMPONENT, "hiptrack.models")
        self.checkpoint = self._checkpoint_to_resume(options.resume)
        for stage in self.stages:
            stage.check(self.model, self.accelerator.num_processes)
        if self.checkpoint is not None:
            self.checkpoint.require_outline(self._outline())
            self.position = self.checkpoint.position
            self.checkpoint.load_weights(self.model)
            self.say(f"resuming from {self.checkpoint.path}")
        else:
            for weights in initial_weights:
                self.say(weights(self.model))
        # all of them now: what is wrong with the data stops the run at its start
        read = {}
        self.data = [self._stage_data(stage, read) for stage in self.stages]
        if self.is_main:
            open_run(self.folder, options.resume)
            record(self.folder, config_text(), options.argv)
            remove_unfinished(self.folder / CHECKPOINTS)
            set_aside_after(self.folder / CHECKPOINTS, self.position.step)
        self.accelerator.wait_for_everyone()
        set_seed(self.seed, device_specific=True)
        self.log = RunLog(self.folder, self.is_main, self.position.step)
        self.log.text("config", config_text())

    def _checkpoint_to_resume(self, resume):
        if resume == "never":
            return None
        if resume != "auto":
            return Checkpoint.open(resume)
        found = finished_checkpoints(self.folder / CHECKPOINTS)
        return Checkpoint.open(found[-1]) if found else None

    def _stage_data(self, stage, read):
        with gin.config_scope(stage.scope or None):
            data = stage.data()
        for dataset in data.datasets:
            dataset.share(read)
        stage.check_targets(self.model, data)
        for dataset in data.datasets:
            self.say(f"{stage.name}: {dataset.describe()}")
        return ClipDataset(data, Geometry.of(self.model), self.seed, self.stages.index(stage))

    def all_stages(self):
        """Every stage from the present position to the end."""
        for number in range(self.position.stage, len(self.stages)):
            with gin.config_scope(self.stages[number].scope or None):
                stage_run = StageRun(self, self.stages[number], self.data[number])
                try:
                    stage_run.epochs()
                finally:
                    shut_down(stage_run.loader)
        if self.is_main:
            self._save_weights("model")
        self.log.close()
        self.say(f"finished: {self.folder / 'model.safetensors'}")

    def end_stage(self, stage):
        """Write the weights a stage ends with, and the values it used."""
        if self.is_main:
            self._save_weights(stage.name)
            record_operative(self.folder, stage.name, operative_text())

    def save_checkpoint(self, optimizer):
        """Write a checkpoint of the present position; optimizer: None between two stages."""
        folder = self.folder / CHECKPOINTS
        save_checkpoint(folder, self.accelerator, self.model, self.bindings, optimizer, self.position, self._outline())

    def say(self, text):
        """Print on the main process."""
        if self.is_main:
            tqdm.write(text)

    def _outline(self):
        return [stage.outline for stage in self.stages]

    def _save_weights(self, name):
        save_weights(self.folder / f"{name}.safetensors", self.model, self.bindings, step=self.position.step)
