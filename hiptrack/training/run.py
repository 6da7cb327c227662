"""A training run in progress: its model, its position, its folder."""

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import gin
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm import tqdm

from hiptrack.component import build_component, component_text
from hiptrack.config import bound_values, config_text, operative_text
from hiptrack.data.clips import ClipDataset, Geometry
from hiptrack.errors import HiptrackError
from hiptrack.files import remove_leftovers
from hiptrack.models.weights import ROOT_COMPONENT, save_weights
from hiptrack.processes import on_main, raise_together, together, write_together
from hiptrack.run_folder import open_run, record, record_operative
from hiptrack.run_lock import LOCK, run_lock
from hiptrack.training.checkpoint import (
    BEST,
    Checkpoint,
    Position,
    newest_sound,
    publish_best,
    remove_unfinished,
    save_checkpoint,
    set_aside_after,
)
from hiptrack.training.data_faults import DataFaults
from hiptrack.training.difficulty import Difficulty
from hiptrack.training.log import NoLog, RunLog
from hiptrack.training.preemption import Preempted, Preemption, exit_code, leave_marker, remove_marker
from hiptrack.training.resume import check_config, check_position, outline
from hiptrack.training.stage import Stage
from hiptrack.training.stage_run import StageRun
from hiptrack.training.validation import Validation

TABLED = ("Loss/total", "IoU", "Accuracy", "Validation/AO", "Validation/SR0.5", "Validation/balanced_accuracy")


@dataclass
class Run:
    """The arguments of `train` (which see), and what becomes of them."""

    accelerator: Accelerator
    folder: Path
    stages: list[Stage]
    validation: Validation | None
    seed: int
    workers: int
    loader_timeout: float
    max_unreadable: float
    log_every: int
    save_steps: int | None
    save_minutes: float
    keep_checkpoints: int
    pictures: int
    position: Position = field(default_factory=Position)
    preemption: Preemption = field(default_factory=Preemption)
    checkpoint: Checkpoint | None = None  # to resume from, until that is done
    log: RunLog | NoLog = field(default_factory=NoLog)

    @property
    def is_main(self):
        """Whether this process writes."""
        return self.accelerator.is_main_process

    @property
    def checkpoints(self):
        """The folder of the training checkpoints."""
        return self.folder / "checkpoints"

    def whole(self, build_model, initial_weights, options):
        """All of the run that is left; returns the exit code. Raises a HiptrackError for whatever the user can mend."""
        with ExitStack() as stack:
            stack.enter_context(self.preemption)
            folder = f"the run folder {self.folder}"
            on_main(self.accelerator, lambda: self._claim(stack, options.resume), folder)
            try:
                self._start(build_model, initial_weights, options)
                self._all_stages()
            except Preempted:
                return self._stop()
            finally:
                self.log.close()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return 0

    def _claim(self, stack, resume):
        stack.enter_context(run_lock(self.folder))
        open_run(self.folder, resume)

    def _start(self, build_model, initial_weights, options):
        """Build the model, take up the checkpoint where there is one, read the data, and open the folder.

        The folder comes last: a run that cannot start leaves nothing behind.
        """
        set_seed(self.seed)
        self.model = build_model()
        self.bindings = component_text(ROOT_COMPONENT)
        with torch.device("meta"):  # a weights file that could not be loaded again must not cost a training run
            build_component(self.bindings, ROOT_COMPONENT, "hiptrack.models")
        path, passed_over = on_main(
            self.accelerator, lambda: self._checkpoint_to_resume(options.resume), f"the run folder {self.folder}"
        )
        for stage in self.stages:
            stage.check(self.model, self.accelerator.num_processes)
        state = {}
        if path is not None:
            state = together(lambda: self._take_up(Checkpoint.open(path), passed_over, options.allow_change))
        else:
            together(lambda: [self.say(weights(self.model)) for weights in initial_weights])
        # all of them now: what is wrong with the data stops the run at its start
        self.data = together(self._read_data)
        self.data_faults = DataFaults(self.max_unreadable, state.get("data_faults"))
        self.difficulty = Difficulty(state.get("difficulty"), self.is_main)
        log_sizes = state["log"] if path is not None and path.parent == self.checkpoints else {}
        folder = f"the run folder {self.folder}"
        write_together(lambda: self.is_main and self._open_folder(path, log_sizes, options.argv), folder)
        set_seed(self.seed, device_specific=True)

    def _checkpoint_to_resume(self, resume):
        """(path or None, why newer ones are passed over)."""
        if resume == "auto":
            path, passed_over = newest_sound(self.checkpoints)
            kept = sorted(self.folder.glob("*.safetensors"))
            if path is None and kept:
                raise HiptrackError(
                    f"the run folder {self.folder} holds {kept[0].name}, but no checkpoint to go on from: a run that was "
                    "finished and tidied up would be overwritten. Choose another folder with --run DIR."
                )
            return path, passed_over
        if resume == "never":
            return None, []
        Checkpoint.open(resume).require_sound()
        path = Path(os.path.abspath(resume))
        if path.parent == Path(os.path.abspath(self.checkpoints)) and path.name.startswith("step-"):
            return self.checkpoints / path.name, []
        if any(entry.name != LOCK for entry in self.folder.iterdir()):
            raise HiptrackError(
                f"{resume} is no checkpoint of the run folder {self.folder}, which holds another run's work. Name one of "
                f"{self.checkpoints}/step-*, or an empty folder with --run DIR."
            )
        return path, []

    def _take_up(self, checkpoint, passed_over, allow_change):
        """Go to a checkpoint's position and weights; returns its state."""
        for reason in passed_over:
            self.say(f"passed over: {reason}")
        change = check_config(checkpoint, allow_change)
        check_position(checkpoint, self.stages)
        checkpoint.load_weights(self.model)
        self.checkpoint, self.position = checkpoint, checkpoint.position
        self.say(f"resuming from {checkpoint.path}")
        if change:
            self.say(change)
        if checkpoint.processes != self.accelerator.num_processes:
            self.say(f"{self.accelerator.num_processes} processes go on with what {checkpoint.processes} began")
        return checkpoint.state

    def _open_folder(self, path, log_sizes, argv):
        remove_marker(self.folder)
        remove_leftovers(self.folder)
        record(self.folder, config_text(), argv)
        remove_unfinished(self.checkpoints)
        set_aside_after(self.checkpoints, self.position.folder_name if path else "")
        publish_best(self.checkpoints, self.folder / BEST)
        self.log = RunLog(self.folder, self.position.step, log_sizes)
        self.log.text(self.position.step, "config", config_text())
        self.log.hparams(bound_values(), TABLED)

    def _read_data(self):
        read = {}
        return [self._stage_data(stage, read) for stage in self.stages]

    def _stage_data(self, stage, read):
        with gin.config_scope(stage.scope or None):
            data = stage.data()
        for dataset in data.datasets:
            dataset.share(read)
        stage.check_targets(self.model, data)
        for dataset in data.datasets:
            self.say(f"{stage.name}: {dataset.describe()}")
        return ClipDataset(data, Geometry.of(self.model), self.seed, self.stages.index(stage))

    def _all_stages(self):
        """Every stage from the present position to the end."""
        for number in range(self.position.stage, len(self.stages)):
            with gin.config_scope(self.stages[number].scope or None):
                StageRun(self, self.stages[number], self.data[number]).epochs()
        self._save_weights("model")
        self.say(self.data_faults.describe())
        self.say(f"finished: {self.folder / 'model.safetensors'}")

    def end_stage(self, stage):
        """Write the weights a stage ends with, and the values it used."""
        self._save_weights(stage.name)
        used = operative_text()
        write_together(lambda: self.is_main and record_operative(self.folder, stage.name, used), str(self.folder))

    def save_checkpoint(self, optimizer, validation):
        """Write a checkpoint of the present position; optimizer: None between two stages; validation: its values, if any."""
        state = {
            "stages": outline(self.stages),
            "config": bound_values(),
            "log": self.log.sync(),
            "data_faults": self.data_faults.state(),
            "difficulty": self.difficulty.state(),
            "validation": validation,
        }
        raise_together(self.log.failure)
        bare = optimizer and optimizer.optimizer
        save_checkpoint(
            self.checkpoints,
            self.accelerator,
            self.model,
            self.bindings,
            bare,
            self.position,
            state,
            self.keep_checkpoints,
        )

    def count_clips(self, clips, rejected):
        """Take up the clips of a global batch and the draws rejected for them. Raises DataError for too many of these."""
        for draw in rejected:
            self.log.reject(self.position.step + 1, draw)
        self.data_faults.add(clips, rejected)
        problem = self.data_faults.problem()
        if problem:  # on all processes alike
            raise_together(problem if self.is_main else None)

    def say(self, text):
        """Print on the main process."""
        if self.is_main and text:
            tqdm.write(text)

    def _stop(self):
        """Leave word that the run was asked to stop, which all processes know; returns the exit code."""
        asked = self.preemption.signal.name if self.preemption.requested else "a signal to another process"
        text = f"stopped by {asked} at step {self.position.step}; --resume auto, the default, goes on from there"
        write_together(lambda: self.is_main and leave_marker(self.folder, text), f"the run folder {self.folder}")
        self.say(text)
        return exit_code()

    def _save_weights(self, name):
        path = self.folder / f"{name}.safetensors"
        step = self.position.step
        write_together(lambda: self.is_main and save_weights(path, self.model, self.bindings, step=step), str(path))
