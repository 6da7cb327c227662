"""The training run: a pipeline of stages, built from gin and driven by Accelerate."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import gin
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object, send_to_device, set_seed
from tqdm import tqdm

import hiptrack.models.initial  # noqa: F401  registers the initial weights
import hiptrack.training.losses  # noqa: F401  registers the losses
from hiptrack.config import bound_values, config_text, operative_text
from hiptrack.config.meaning import current_bindings
from hiptrack.config.portable import build_component, component_text
from hiptrack.data.clips import ClipDataset, Geometry
from hiptrack.data.loader import ShardedBatches, collate, divide_batch, make_loader, next_batch, shut_down, worker_fault
from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.files import remove_leftovers
from hiptrack.models.hiptrack import HIPTrack
from hiptrack.models.prepare import lay_out
from hiptrack.models.tf32 import allow_tf32
from hiptrack.models.weights import ROOT_COMPONENT, save_weights
from hiptrack.pictures import draw_box, score_overlay
from hiptrack.processes import (
    PATIENCE,
    check_processes,
    kernel_fault,
    on_main,
    raise_together,
    together,
    use_deterministic_kernels,
    write_together,
)
from hiptrack.signals import Preempted, Preemption, exit_code, leave_marker, remove_marker
from hiptrack.training.checkpoint import (
    BEST,
    Checkpoint,
    Position,
    newest_sound,
    publish_best,
    remove_unfinished,
    rng_state,
    save_checkpoint,
    set_aside_after,
)
from hiptrack.training.difficulty import Difficulty
from hiptrack.training.dry_run import describe_pipeline
from hiptrack.training.guard import DataFaults, NotFinite, keep_fault, require_finite
from hiptrack.training.log import NoLog, RunLog
from hiptrack.training.optimizers import carry_over
from hiptrack.training.replay import replay
from hiptrack.training.resume import check_config, check_position, outline
from hiptrack.training.run_folder import LOCK, open_run, record, record_operative, run_lock
from hiptrack.training.stage import Stage
from hiptrack.training.step import TrainingStep
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
    tf32: bool = True,
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
        deterministic: only kernels that give the same result each time (GPUs are a little slower); a model that needs another
            one is refused.
        mixed_precision: number format of matrix products.
        tf32: whether GPUs compute what is left in float32 in TF32, which is faster; False: IEEE float32.
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
    allow_tf32(tf32)
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


class StageRun:
    """The part of a run that is one stage."""

    def __init__(self, run, stage, dataset):
        self.run, self.stage, self.dataset, self.accelerator = run, stage, dataset, run.accelerator
        processes = self.accelerator.num_processes
        _, self.passes = divide_batch(stage.batch, processes, stage.largest_pass)
        rank = self.accelerator.process_index
        self.batches = ShardedBatches(stage.steps_per_epoch, stage.batch, rank, processes, self.passes)
        self.loader = make_loader(dataset, self.batches, run.workers, run.seed, run.loader_timeout)
        self.phase = self.wrapped = self.optimizer = None
        self.saved, self.saved_at = self._place(), time.monotonic()

    def epochs(self):
        """All epochs of the stage that are left."""
        try:
            for _ in range(self.run.position.epoch, self.stage.epochs):
                self._epoch()
        except RuntimeError as error:  # the death of a worker is raised wherever the loop happens to be
            fault = worker_fault(self.loader, error) or kernel_fault(error)
            if fault is None:
                raise
            raise fault from error
        finally:
            shut_down(self.loader)

    def _epoch(self):
        run, position = self.run, self.run.position
        self._resume_optimizer()
        self._enter_phase(self.stage.phase_at(position.epoch))
        if run.checkpoint is not None:  # last before the steps: nothing may draw a number in between
            run.checkpoint.load_scaler(self.accelerator)
            run.checkpoint.load_rng(self.accelerator.process_index)
            run.checkpoint = None
        self._steps()
        values = None
        if run.validation is not None and run.validation.is_due(position.epoch + 1, self.stage.epochs):
            self._save()
            values = self._validate()
        position.epoch, position.epoch_step = position.epoch + 1, 0
        if position.epoch == self.stage.epochs:
            self._release()
            run.end_stage(self.stage)
            position.stage, position.epoch = position.stage + 1, 0
        self._save(values)

    def _resume_optimizer(self):
        """Load the optimiser into the phase of the last step that was trained; a new phase then takes it over."""
        position, checkpoint = self.run.position, self.run.checkpoint
        trained = position.epoch if position.epoch_step else position.epoch - 1
        if checkpoint is not None and trained >= 0:
            self._enter_phase(self.stage.phase_at(trained))
            fresh = checkpoint.load_optimizer(self.run.model, self.optimizer.optimizer)
            if fresh:
                self.run.say(f"the optimiser starts anew for {len(fresh)} parameters, {fresh[0]} among them")

    def _enter_phase(self, phase):
        """Freeze, build optimiser and wrapper anew where the trainable modules change."""
        if phase == self.phase:
            return
        self.phase = phase
        model, old = self.run.model, self.optimizer
        self._release()
        self.stage.prepare(model, phase)
        optimizer = self.stage.optimizer(self.stage.parameter_groups(model))
        if old is not None:
            carry_over(old.optimizer, optimizer)
        self.wrapped, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.step = TrainingStep(self.accelerator, self.wrapped, self.stage.losses_in(model))
        if self.accelerator.num_processes > 2:
            self._settle_buckets()

    def _settle_buckets(self):
        """One step whose result is thrown away.

        DDP orders its buckets anew after the first step, and with three processes or more the order decides how a sum is
        rounded: without this a resumed run would differ from an uninterrupted one in the last bit.
        """
        model = self.run.model
        kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
        batch = collate([self.dataset[0, 0]])
        raise_together(batch if isinstance(batch, HiptrackError) else None)
        self.wrapped.train()
        with torch.random.fork_rng([self.accelerator.device] if self.accelerator.device.type == "cuda" else []):
            self.step.backward([send_to_device(batch, self.accelerator.device)])
        self.optimizer.zero_grad()
        for name, buffer in model.named_buffers():
            buffer.copy_(kept[name])

    def _release(self):
        """Take the wrappers off the model, so that the next ones go round the bare one."""
        self.wrapped = self.optimizer = self.step = None
        self.accelerator.free_memory()
        for leftover in ("_is_accelerate_prepared", "forward", "_original_forward"):
            self.run.model.__dict__.pop(leftover, None)

    def _steps(self):
        run, position, stage = self.run, self.run.position, self.stage
        priority = self.dataset.data.priority
        if priority is not None:
            self.dataset.prioritise(run.difficulty.known)
        self.batches.start_at(position.epoch, position.epoch_step)
        self.wrapped.train()
        passes = iter(self.loader)
        with tqdm(
            total=stage.steps_per_epoch,
            initial=position.epoch_step,
            desc=f"{stage.name} {position.epoch + 1}/{stage.epochs}",
            disable=not run.is_main,
            leave=False,
            mininterval=1.0,
        ) as bar:
            while position.epoch_step < stage.steps_per_epoch:
                started = time.perf_counter()
                batches, error = self._read(passes)
                read = time.perf_counter()
                self._agree_to_go_on(batches, error)
                batches = [send_to_device(batch, self.accelerator.device, non_blocking=True) for batch in batches]
                agreed = time.perf_counter()
                scalars, prediction = self._optimize(batches)
                if position.epoch_step == 0 and run.is_main and run.pictures:
                    self._draw(batches[-1], prediction)
                position.epoch_step, position.step = position.epoch_step + 1, position.step + 1
                if position.step % run.log_every == 0 or position.epoch_step == stage.steps_per_epoch:
                    scalars["Time/data"], scalars["Time/compute"] = read - started, time.perf_counter() - agreed
                    scalars["Epoch"] = position.epoch + 1
                    run.log.scalars(position.step, {**scalars, **run.data_faults.scalars()})
                bar.update()
                bar.set_postfix(
                    {"loss": f"{scalars['Loss/total']:.3f}", "iou": f"{scalars.get('IoU', 0):.3f}"}, refresh=False
                )
        if priority is not None and run.difficulty.end_epoch(priority):
            run.log.scalars(position.step, run.difficulty.scalars())
        raise_together(run.log.failure)

    def _observer(self):
        """What is told of the passes of a step to keep the difficulty of sequences; None where that decides nothing."""
        if self.dataset.data.priority is None:
            return None
        return partial(self.run.difficulty.observe, multi_label=self.run.model.challenge.activation == "sigmoid")

    def _read(self, passes):
        """(this process's passes of the next global batch, None), or ([], what went wrong)."""
        batches = []
        for _ in range(self.passes):
            batch = next_batch(self.loader, passes)
            if isinstance(batch, HiptrackError):
                return [], batch
            batches.append(batch)
        return batches, None

    def _agree_to_go_on(self, batches, error):
        """What all processes must decide alike before a step: to stop for an error, to save, to stop as asked."""
        run, position = self.run, self.run.position
        error = error or run.log.failure
        rejected = [draw for batch in batches for draw in batch["rejected"]]
        late = time.monotonic() - self.saved_at > run.save_minutes * 60
        votes = [error is not None, bool(rejected), late, run.preemption.requested]
        votes = torch.tensor([float(vote) for vote in votes], device=self.accelerator.device)
        failed, any_rejected, late, preempted = (self.accelerator.reduce(votes) > 0).tolist()
        if failed:
            raise_together(error)
        if preempted or late or run.save_steps and position.epoch_step and position.step % run.save_steps == 0:
            self._save()
        if preempted:
            raise Preempted
        run.count_clips(self.stage.batch, gather_object(rejected) if any_rejected else [])

    def _optimize(self, batches):
        """One step on a global batch; returns its scalars and the prediction of the last pass."""
        stage, position = self.stage, self.run.position
        epoch = position.epoch + position.epoch_step / stage.steps_per_epoch
        factor = stage.schedule(epoch, stage.epochs)
        rates = {}
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
            rates[f"LR/{group['name']}"] = group["lr"]
        backbone = self.run.model.backbone
        keep_ratio = stage.keep_ratio(epoch, backbone.keep_ratio) if stage.keep_ratio else None
        rng = rng_state()
        try:
            scalars, prediction = self.step.backward(batches, keep_ratio, self._observer())
            require_finite(scalars)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            most = float("inf") if stage.grad_clip is None else stage.grad_clip
            scalars["GradientNorm"] = float(self.accelerator.clip_grad_norm_(parameters, most))
            if self.accelerator.scaler is None or self.accelerator.scaler.get_scale() < 1:
                require_finite({"GradientNorm": scalars["GradientNorm"]})  # else a loss scaler skips the step by itself
        except NotFinite as error:  # the numbers are the same on all processes
            keep_fault(self.run, stage, batches, keep_ratio, rng, str(error))
        self.optimizer.step()
        self.optimizer.zero_grad()
        scalars.update(rates)
        scalars["KeepRatio"] = backbone.keep_ratio if keep_ratio is None else keep_ratio
        return scalars, prediction

    def _save(self, validation=None):
        """Write a checkpoint, unless nothing was done since the last one."""
        if self._place() != self.saved:
            self.run.save_checkpoint(self.optimizer, validation)
        self.saved, self.saved_at = self._place(), time.monotonic()

    def _place(self):
        return self.run.position.folder_name

    def _validate(self):
        run, position = self.run, self.run.position
        for buffer in run.model.buffers():  # DDP keeps those of process 0, which are the ones that are saved
            broadcast(buffer)
        values = self._validate_unless_stopped()
        run.log.scalars(position.step, {f"Validation/{name}": value for name, value in values.items()})
        text = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        run.say(f"{self.stage.name} epoch {position.epoch + 1}: {text}")
        return values

    def _validate_unless_stopped(self):
        """Validation's values. A signal stops each process's tracking where it is; then all stop together."""
        run, voted = self.run, False

        def gather(outcomes):
            nonlocal voted
            run.preemption.hold()
            voted = True
            self._stop_if_any(run.preemption.requested)
            return gather_object(outcomes)

        try:
            with run.preemption.at_once():
                return run.validation(run.model, self.accelerator, gather)
        except Preempted:
            if not voted:
                self._stop_if_any(True)
            raise

    def _stop_if_any(self, stop):
        """Raise Preempted on all processes when one is asked to stop; every process calls this."""
        if self.accelerator.reduce(torch.tensor(float(stop), device=self.accelerator.device)) > 0:
            raise Preempted

    def _draw(self, batch, prediction):
        """Search crops with true and predicted boxes and score maps, to TensorBoard."""
        size = self.run.model.search_size
        images = batch["search"].flatten(0, 1).permute(0, 2, 3, 1).cpu().numpy()
        truth = (batch["boxes_xywh"].flatten(0, 1) * size).cpu().numpy()
        centre, sides = prediction.box_cxcywh.detach().float().cpu().split(2, 1)
        boxes = (torch.cat((centre - sides / 2, sides), 1) * size).numpy()
        scores = prediction.maps.score.detach().cpu().numpy()
        for number in range(0, len(images), batch["search"].shape[1])[: self.run.pictures]:  # each clip's first frame
            image = score_overlay(images[number], scores[number])
            image = draw_box(draw_box(image, truth[number], (0, 255, 0)), boxes[number], (255, 0, 0))
            self.run.log.picture(self.run.position.step, f"{self.stage.name}/{number}", image)
