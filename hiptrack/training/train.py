"""The training run: stages of epochs of steps, from the first to the last, built from gin and driven by Accelerate."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import gin
from accelerate.utils import send_to_device, set_seed
from annotated_types import Ge, Interval, MinLen

import hiptrack.models.initial
import hiptrack.training.losses  # noqa: F401  both register their names
from hiptrack.config.meaning import CHANGES_NO_RESULT
from hiptrack.data.loader import open_loader
from hiptrack.models.challenge import taxonomy_of
from hiptrack.models.hiptrack import HIPTrack
from hiptrack.models.prepare import choose_kernels, device_faults, lay_out
from hiptrack.models.weights import model_text
from hiptrack.processes import on_every_process, open_accelerator, raise_together, wait_for_all
from hiptrack.ranges import Count, Share
from hiptrack.signals import Preempted, Preemption, exit_code
from hiptrack.training.checkpoint import Position, save_checkpoint
from hiptrack.training.difficulty import Difficulty
from hiptrack.training.dry_run import check_run, print_pipeline, run_warnings
from hiptrack.training.guard import DataFaults, Guard, require_finite_scalars
from hiptrack.training.log import run_bar
from hiptrack.training.resume import checkpoint_to_resume, run_state, take_up
from hiptrack.training.run_folder import run_folder
from hiptrack.training.selection import may_choose
from hiptrack.training.stage import Stage, read_data, unwrap
from hiptrack.training.validation import Validation


@gin.configurable("train")
@dataclass
class Training:
    """Train a model through its stages.

    Args:
        stages: the pipeline, in order.
        model: called to build the model, after seeding.
        initial_weights: applied to the new model in order.
        validation: tracking of held-out sequences, every few epochs.
        annotations: folder of challenge annotations (`<sequence>/<sequence>.jsonl`) of all data that name none themselves.
        seed: of everything random.
        deterministic: only kernels that give the same result each time (GPUs are a little slower); a model that needs
            another one is refused.
        mixed_precision: number format of matrix products.
        tf32: GPUs compute float32 products with 10 bits of mantissa, several times as fast; False: IEEE float32.
        workers: loader processes of each training process.
        loader_timeout: seconds after which a worker that gives no batch is taken to hang.
        max_unreadable: largest share of the drawn clips that may meet an unreadable image (they are drawn again).
        log_every: steps between two logged lines.
        save_steps, save_minutes: a checkpoint after so many steps or minutes, besides those at the end of an epoch.
        keep_checkpoints: so many of the newest are kept, and the best by AO unless the validation is on test data.
        pictures: clips of an epoch that are drawn into TensorBoard.
    """

    stages: Annotated[list[Stage], MinLen(1)]
    model: Callable = HIPTrack
    initial_weights: list[object] = ()
    validation: Validation | None = None
    annotations: str | None = None
    seed: Annotated[int, Interval(ge=0, lt=2**31)] = 0
    deterministic: bool = True
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    tf32: bool = True
    workers: Annotated[int, Ge(0), CHANGES_NO_RESULT] = 2
    loader_timeout: Annotated[float, Interval(gt=0, le=10**6), CHANGES_NO_RESULT] = 600.0
    max_unreadable: Annotated[Share, CHANGES_NO_RESULT] = 0.1
    log_every: Annotated[Count, CHANGES_NO_RESULT] = 10
    save_steps: Annotated[Count | None, CHANGES_NO_RESULT] = None
    save_minutes: Annotated[float, Ge(0), CHANGES_NO_RESULT] = 15.0
    keep_checkpoints: Annotated[Count, CHANGES_NO_RESULT] = 3
    pictures: Annotated[int, Ge(0), CHANGES_NO_RESULT] = 4

    def run(self, request):
        """All that is left of a TrainRequest's run; returns the exit code. Raises HiptrackError for a user's faults."""
        check_run(self)
        accelerator = self.accelerator = open_accelerator(self.mixed_precision)
        if request.dry_run:
            return print_pipeline(self, accelerator, request.timed)
        choose_kernels(self.deterministic, self.tf32)
        code = 0
        with device_faults(), Preemption() as self.signals, run_folder(request, accelerator) as self.folder:
            try:
                self.start(request)
                with run_bar(self.stages, self.at, accelerator) as self.bar:
                    self.train()
            except Preempted:
                self.folder.leave_marker(self.signals.signal, self.at.step)
                code = exit_code()
        wait_for_all()  # until the last file is written
        accelerator.end_training()
        return code

    def start(self, request):
        """Build the model, take up a checkpoint, read the data, open the folder last: no trace of a failed start."""
        accelerator, folder, say = self.accelerator, self.folder, self.folder.say
        set_seed(self.seed)
        self.net = lay_out(self.model(), accelerator.device, accelerator.mixed_precision)
        self.text = model_text()
        path, passed_over = checkpoint_to_resume(folder, request.resume)
        for stage in self.stages:
            stage.check(self.net, accelerator.num_processes)
        if self.validation is not None:
            on_every_process(lambda: self.validation.check(self.net, accelerator))
        self.checkpoint, self.at, state = None, Position(), {}
        if path is None:
            on_every_process(lambda: [say(weights(self.net)) for weights in self.initial_weights])
        else:
            goes_on = partial(take_up, path, self.net, self.stages, folder, passed_over, request)
            self.checkpoint = on_every_process(goes_on)
            self.at, state = self.checkpoint.position, self.checkpoint.state
        self.clips = on_every_process(lambda: read_data(self.stages, self.net, self.seed, self.annotations, say))
        if self.validation is not None:
            self.validation.data.label_by(taxonomy_of(self.net), self.annotations)
        warnings = on_every_process(lambda: run_warnings(self, self.clips))
        self.chooses = may_choose(self.validation, warnings)
        for warning in warnings.values():
            say(f"warning: {warning}")
        self.faults = DataFaults(self.max_unreadable, state.get("data_faults"))
        self.difficulty = Difficulty(state.get("difficulty"), accelerator.is_main_process)
        folder.open(path, self.at, state.get("log"), request.argv, warnings, self.chooses)
        self.guard = Guard(accelerator, self.signals, folder, self.faults, self.save_steps, self.save_minutes)
        self.phase = self.step = None  # what is trained, and the TrainingStep that trains it
        self.saved = self.at.folder_name
        set_seed(self.seed, device_specific=True)

    def train(self):
        """Every stage, epoch and step, from the present position to the end."""
        at, folder, guard = self.at, self.folder, self.guard
        for stage, clips in list(zip(self.stages, self.clips))[at.stage :]:
            values = None  # of the validation after an epoch
            with (
                gin.config_scope(stage.scope or None),
                open_loader(clips, stage, self.accelerator, self.workers, self.seed, self.loader_timeout) as loader,
            ):
                while at.epoch < stage.epochs:
                    self.begin_epoch(stage, clips)
                    self.bar.begin_epoch(stage, at)
                    for batches, error, seconds in loader.steps(at.epoch, at.epoch_step):
                        guard.agree(batches, error, stage, at, self.save)
                        self.bar.step(self.take_step(stage, clips, batches, seconds))
                    self.difficulty.end_epoch(clips, at, folder.log)
                    raise_together(folder.log.failure)
                    values = None
                    if self.validation is not None and self.validation.is_due(at.epoch + 1, stage.epochs):
                        self.save()
                        values = guard.stoppable(self.validation, self.net)
                        folder.log_validation(at, values)
                    folder.say(self.bar.end_epoch(stage, at, values))
                    at.end_epoch()
                    if at.epoch < stage.epochs:
                        self.save(values)
            self.phase = self.step = None
            unwrap(self.net, self.accelerator)
            folder.end_stage(stage.name, self.net, self.text, at.step)
            at.end_stage()
            self.save(values)
        folder.end_run(self.net, self.text, at.step, self.faults.describe())

    def begin_epoch(self, stage, clips):
        """Wrap the model anew where other modules are trained from here; then go on as the checkpoint says, if any."""
        at, checkpoint, accelerator = self.at, self.checkpoint, self.accelerator
        last = at.epoch if at.epoch_step else at.epoch - 1  # the epoch of the last step
        if checkpoint is not None and last >= 0:
            self.begin_phase(stage, clips, stage.phase_at(last))
            self.folder.say(checkpoint.load_optimizer(self.net, self.step.optimizer.optimizer))
        self.begin_phase(stage, clips, stage.phase_at(at.epoch))
        self.step.model.train()
        self.difficulty.begin_epoch(clips)
        if checkpoint is not None:  # last before the steps: nothing may draw a number in between
            checkpoint.load_scaler(accelerator)
            checkpoint.load_rng(accelerator.process_index)
            self.checkpoint = None

    def begin_phase(self, stage, clips, phase):
        """Freeze, group and wrap for a phase of a stage, unless it is the present one."""
        if phase != self.phase:
            earlier = self.step and self.step.optimizer
            self.step = None  # the old wrapper goes before the new one comes
            self.phase, self.step = phase, stage.begin_phase(phase, self.net, self.accelerator, clips, earlier)

    def take_step(self, stage, clips, batches, seconds):
        """One optimiser step on a global batch that took `seconds` to read; returns its scalars."""
        at, step, log = self.at, self.step, self.folder.log
        batches = [send_to_device(batch, self.accelerator.device, non_blocking=True) for batch in batches]
        began = time.perf_counter()
        keep_ratio, settings = stage.follow_schedules(step.optimizer, at, self.net.backbone)
        with self.guard.finite(stage, at, batches, keep_ratio, self.net, self.text):
            scalars, prediction = step.backward(batches, keep_ratio, self.difficulty.observer(clips, self.net))
            require_finite_scalars(scalars)
            scalars["GradientNorm"] = step.clip_gradients(stage.grad_clip)
            if not step.skips_overflow:
                require_finite_scalars({"GradientNorm": scalars["GradientNorm"]})
        step.optimizer.step()
        step.optimizer.zero_grad()
        if at.epoch_step == 0 and self.pictures:
            log.clips(at.step, stage.name, batches[-1], prediction, self.net.search_size, self.pictures)
        at.advance()
        if at.step % self.log_every == 0 or at.epoch_step == stage.steps_per_epoch:
            times = {"Time/data": seconds, "Time/compute": time.perf_counter() - began, "Epoch": at.epoch + 1}
            log.scalars(at.step, scalars | settings | times | self.faults.scalars())
        return scalars

    def save(self, validation=None):
        """Write a checkpoint, unless nothing was done since the last. validation: its values, if one was just made."""
        if self.at.folder_name != self.saved:
            choice = validation if self.chooses else None
            state = run_state(self.stages, self.folder.log, self.faults, self.difficulty, choice)
            what = self.net, self.text, self.step and self.step.optimizer.optimizer, self.at, state
            kept = self.keep_checkpoints, self.chooses
            save_checkpoint(self.folder.checkpoints, self.accelerator, *what, *kept)
        self.saved = self.at.folder_name
        self.guard.restart_clock()
