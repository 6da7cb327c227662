"""One stage of a run: its phases, epochs and steps."""

import time
from itertools import islice

import torch
from accelerate.utils import broadcast, send_to_device
from tqdm import tqdm

from hiptrack.data.loader import ShardedBatches, divide_batch, make_loader
from hiptrack.errors import HiptrackError
from hiptrack.tracking.pictures import draw_box, score_overlay
from hiptrack.training.loop import TrainingStep, require_finite
from hiptrack.training.stage import carry_over, freeze_all_but, parameter_groups


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
        self.saved_at = time.monotonic()

    def epochs(self):
        """All epochs of the stage that are left."""
        run, position = self.run, self.run.position
        while position.epoch < self.stage.epochs:
            self._resume_optimizer()
            self._enter_phase(self.stage.phase_at(position.epoch))
            if run.checkpoint is not None:  # last before the loop: nothing may draw a number in between
                run.checkpoint.load_scaler(self.accelerator)
                run.checkpoint.load_rng(self.accelerator.process_index)
                run.checkpoint = None
            self._epoch()
            position.epoch, position.epoch_step = position.epoch + 1, 0
            self._validate()
            if position.epoch == self.stage.epochs:
                self._release()
                run.end_stage(self.stage)
                position.stage, position.epoch = position.stage + 1, 0
                run.save_checkpoint(None)
                return
            self._save()

    def _resume_optimizer(self):
        """Load the optimiser into the phase of the last step that was trained; a new phase then takes it over."""
        position, checkpoint = self.run.position, self.run.checkpoint
        trained = position.epoch if position.epoch_step else position.epoch - 1
        if checkpoint is not None and trained >= 0:
            self._enter_phase(self.stage.phase_at(trained))
            checkpoint.load_optimizer(self.optimizer)

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
            bar.set_postfix(
                {"loss": f"{scalars['Loss/total']:.3f}", "iou": f"{scalars.get('IoU', 0):.3f}"}, refresh=False
            )
            if not last and self._save_is_due():
                self._save()
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
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        most = float("inf") if stage.grad_clip is None else stage.grad_clip
        scalars["GradientNorm"] = float(self.accelerator.clip_grad_norm_(parameters, most))
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
        late = time.monotonic() - self.saved_at > run.save_minutes * 60
        # the processes' clocks differ: one that is late is enough for all
        return bool(self.accelerator.reduce(torch.tensor(float(late), device=self.accelerator.device)) > 0)

    def _save(self):
        self.run.save_checkpoint(self.optimizer)
        self.saved_at = time.monotonic()

    def _validate(self):
        run, position = self.run, self.run.position
        if run.validation is None or position.epoch % run.validation.every and position.epoch != self.stage.epochs:
            return
        for buffer in run.model.buffers():  # DDP keeps those of process 0, which are the ones that are saved
            broadcast(buffer)
        values = run.validation(run.model, self.accelerator)
        run.log.scalars(position.step, values)
        run.say(f"{self.stage.name} epoch {position.epoch}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))

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
