"""The training run: a pipeline of stages, built from gin and driven by Accelerate."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import gin
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from tqdm import tqdm

import hiptrack.losses  # noqa: F401  registers the losses
from hiptrack.component import component_text
from hiptrack.config import config_text, operative_text
from hiptrack.data.clips import ClipDataset, Geometry
from hiptrack.data.loader import ShardedBatches, divide_batch, make_loader, shut_down
from hiptrack.errors import HiptrackError
from hiptrack.models.hiptrack import HIPTrack
from hiptrack.models.weights import ROOT_COMPONENT, save_weights
from hiptrack.processes import check_processes
from hiptrack.run_folder import open_run, record, record_operative
from hiptrack.tracking.pictures import draw_box, score_overlay
from hiptrack.training.checkpoint import Checkpoint, Position, finished_checkpoints, remove_unfinished, save_checkpoint
from hiptrack.training.log import RunLog
from hiptrack.training.loop import TrainingStep, require_finite
from hiptrack.training.stage import carry_over, freeze_all_but, parameter_groups
from hiptrack.training.summary import describe_pipeline
from hiptrack.training.validation import Validation


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
    stages: list[object],
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
    accelerator = Accelerator(mixed_precision=mixed_precision)
    check_processes(accelerator)
    if options.dry_run:
        text, complete = describe_pipeline(model(), stages, initial_weights, validation, accelerator.num_processes)
        accelerator.print(text)
        return 0 if complete else 1
    run = Run(accelerator, options, stages, validation, seed, workers, log_every, save_steps, save_minutes, pictures)
    run.start(model, initial_weights)
    run.all_stages()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


class Run:
    """A run in progress: its model, its position and its folder."""

    def __init__(self, accelerator, options, stages, validation, seed, workers, log_every, save_steps, save_minutes, pictures):
        self.accelerator, self.options, self.stages, self.validation = accelerator, options, stages, validation
        self.seed, self.workers, self.log_every, self.pictures = seed, workers, log_every, pictures
        self.save_steps, self.save_seconds = save_steps, save_minutes * 60
        self.checkpoints = options.folder / "checkpoints"
        self.is_main = accelerator.is_main_process
        self.position = Position()
        self.checkpoint = None

    def start(self, build_model, initial_weights):
        """Open the folder, build the model, and take up the newest checkpoint where there is one."""
        if self.is_main:
            open_run(self.options.folder, self.options.resume)
            record(self.options.folder, config_text(), self.options.argv)
            remove_unfinished(self.checkpoints)
        self.accelerator.wait_for_everyone()
        set_seed(self.seed)
        self.model = build_model()
        self.bindings = component_text(ROOT_COMPONENT)
        self.checkpoint = self._checkpoint_to_resume()
        if self.checkpoint is not None:
            self.position = self.checkpoint.position
            self.checkpoint.load_weights(self.model)
            self._say(f"resuming from {self.checkpoint.path}")
        else:
            for weights in initial_weights:
                self._say(weights(self.model))
        # read all data now: what is wrong with them stops the run at its start
        self.data = [self._stage_data(stage) for stage in self.stages]
        set_seed(self.seed, device_specific=True)
        self.log = RunLog(self.options.folder, self.is_main, self.position.step)
        self.log.text("config", config_text())

    def _checkpoint_to_resume(self):
        if self.options.resume not in ("auto", "never"):
            return Checkpoint.open(self.options.resume)
        found = finished_checkpoints(self.checkpoints)
        return Checkpoint.open(found[-1]) if found else None

    def _stage_data(self, stage):
        with gin.config_scope(stage.scope or None):
            data = stage.data()
        stage.check_targets(self.model, data)
        return ClipDataset(data, Geometry.of(self.model), self.seed, self.stages.index(stage))

    def all_stages(self):
        """Every stage from the present position to the end."""
        for number in range(self.position.stage, len(self.stages)):
            stage = self.stages[number]
            with gin.config_scope(stage.scope or None):
                stage_run = StageRun(self, stage, self.data[number])
                try:
                    stage_run.epochs()
                finally:
                    shut_down(stage_run.loader)
            if self.is_main:
                self.save_weights(stage.name)
                record_operative(self.options.folder, stage.name, operative_text())
        if self.is_main:
            self.save_weights("model")
        self.log.close()
        self._say(f"finished: {self.options.folder / 'model.safetensors'}")

    def save_weights(self, name):
        """Write the model as it is to the run's folder."""
        save_weights(self.options.folder / f"{name}.safetensors", self.model, self.bindings, step=self.position.step)

    def save_checkpoint(self, optimizer):
        """Write a checkpoint of the present position."""
        save_checkpoint(self.checkpoints, self.accelerator, self.model, self.bindings, optimizer, self.position)
        self.saved_at = time.monotonic()

    def _say(self, text):
        if text and self.is_main:
            tqdm.write(text)


class StageRun:
    """The part of a run that is one stage."""

    def __init__(self, run, stage, dataset):
        self.run, self.stage, self.accelerator = run, stage, run.accelerator
        processes = self.accelerator.num_processes
        _, self.passes = divide_batch(stage.batch, processes, stage.largest_pass)
        rank = self.accelerator.process_index
        self.batches = ShardedBatches(stage.steps_per_epoch, stage.batch, rank, processes, self.passes)
        self.loader = make_loader(dataset, self.batches, run.workers, run.seed)
        self.phase = self.wrapped = self.optimizer = None
        run.saved_at = time.monotonic()

    def epochs(self):
        """All epochs of the stage that are left."""
        run, position = self.run, self.run.position
        while position.epoch < self.stage.epochs:
            self._resume_optimizer()
            self._enter_phase(self.stage.phase_at(position.epoch))
            if run.checkpoint is not None:  # last before the loop: nothing may draw a number in between
                run.checkpoint.load_rng(self.accelerator.process_index)
                run.checkpoint = None
            self._epoch()
            position.epoch, position.epoch_step = position.epoch + 1, 0
            self._validate()
            if position.epoch == self.stage.epochs:
                position.stage, position.epoch = position.stage + 1, 0
                self._release()
                run.save_checkpoint(None)
                return
            run.save_checkpoint(self.optimizer)

    def _resume_optimizer(self):
        """Load the optimiser into the phase of the last step that was trained; a new phase then takes it over."""
        position, checkpoint = self.run.position, self.run.checkpoint
        trained = position.epoch if position.epoch_step else position.epoch - 1
        if checkpoint is not None and trained >= 0:
            self._enter_phase(self.stage.phase_at(trained))
            checkpoint.load_optimizer(self.accelerator, self.optimizer)

    def _enter_phase(self, phase):
        """Freeze, build optimiser and wrapper anew where the trainable modules change."""
        if phase == self.phase:
            return
        self.phase = phase
        model, old = self.run.model, self.optimizer
        self._release()
        freeze_all_but(model, phase.trainable)
        groups = parameter_groups(model, self.stage.lr, self.stage.lr_multipliers)
        optimizer = self.stage.optimizer(groups)
        if old is not None:
            carry_over(old.optimizer, optimizer)
        self.wrapped, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.step = TrainingStep(self.accelerator, self.wrapped, self.stage.losses_in(model))

    def _release(self):
        """Take the wrappers off the model, so that the next ones go round the bare one."""
        self.wrapped = self.optimizer = self.step = None
        self.accelerator.free_memory()
        for leftover in ("_is_accelerate_prepared", "forward", "_original_forward"):
            self.run.model.__dict__.pop(leftover, None)

    def _epoch(self):
        run, position, stage = self.run, self.run.position, self.stage
        self.batches.start_at(position.epoch, position.epoch_step)
        self.wrapped.train()
        passes = iter(self.loader)
        bar = tqdm(
            total=stage.steps_per_epoch,
            initial=position.epoch_step,
            desc=f"{stage.name} {position.epoch + 1}/{stage.epochs}",
            disable=not run.is_main,
            leave=False,
            mininterval=1.0,
        )
        while position.epoch_step < stage.steps_per_epoch:
            started = time.perf_counter()
            batches = [self._to_device(batch) for batch in islice(passes, self.passes)]
            loaded = time.perf_counter()
            scalars, prediction = self._optimize(batches)
            position.epoch_step, position.step = position.epoch_step + 1, position.step + 1
            last = position.epoch_step == stage.steps_per_epoch
            if position.step % run.log_every == 0 or last:
                scalars["Time/data"], scalars["Time/compute"] = loaded - started, time.perf_counter() - loaded
                scalars["Epoch"] = position.epoch + 1
                run.log.scalars(position.step, scalars)
            if last and run.is_main and run.pictures:
                self._draw(batches[-1], prediction)
            bar.update()
            bar.set_postfix({"loss": f"{scalars['Loss/total']:.3f}", "iou": f"{scalars.get('IoU', 0):.3f}"}, refresh=False)
            if not last and self._save_is_due():
                run.save_checkpoint(self.optimizer)
        bar.close()

    def _to_device(self, batch):
        if isinstance(batch, HiptrackError):
            raise batch
        return send_to_device(batch, self.accelerator.device)

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
        scalars, prediction = self.step.backward(batches, keep_ratio)
        sources = [name for batch in batches for name in batch["source"]]
        where = f"in stage '{stage.name}', step {position.step + 1}, on the clips {', '.join(sources)}"
        require_finite(scalars, where)
        if stage.grad_clip is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            scalars["GradientNorm"] = float(self.accelerator.clip_grad_norm_(parameters, stage.grad_clip))
            if self.accelerator.scaler is None:  # a loss scaler skips such a step by itself
                require_finite({"GradientNorm": scalars["GradientNorm"]}, where)
        self.optimizer.step()
        self.optimizer.zero_grad()
        scalars.update(rates)
        scalars["KeepRatio"] = backbone.keep_ratio if keep_ratio is None else keep_ratio
        return scalars, prediction

    def _save_is_due(self):
        run, position = self.run, self.run.position
        if run.save_steps and position.step % run.save_steps == 0:
            return True
        due = torch.tensor(float(time.monotonic() - run.saved_at > run.save_seconds), device=self.accelerator.device)
        return bool(self.accelerator.reduce(due) > 0)

    def _validate(self):
        run, position = self.run, self.run.position
        if run.validation is None or position.epoch % run.validation.every and position.epoch != self.stage.epochs:
            return
        values = run.validation(run.model, self.accelerator)
        run.log.scalars(position.step, values)
        run._say(f"{self.stage.name} epoch {position.epoch}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))

    def _draw(self, batch, prediction):
        """Search crops with true and predicted boxes and score maps, to TensorBoard."""
        size = self.run.model.search_size
        images = batch["search"].flatten(0, 1).permute(0, 2, 3, 1).cpu().numpy()
        truth = (batch["boxes_xywh"].flatten(0, 1) * size).cpu().numpy()
        centre, sides = prediction.box_cxcywh.detach().float().cpu().split(2, 1)
        boxes = (torch.cat((centre - sides / 2, sides), 1) * size).numpy()
        scores = prediction.maps.score.detach().cpu().numpy()
        for number in range(min(self.run.pictures, len(images))):
            image = score_overlay(images[number], scores[number])
            image = draw_box(draw_box(image, truth[number], (0, 255, 0)), boxes[number], (255, 0, 0))
            self.run.log.picture(self.run.position.step, f"{self.stage.name}/{number}", image)
