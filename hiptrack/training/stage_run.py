"""One stage of a run: its phases, epochs and steps."""

import time
from functools import partial

import torch
from accelerate.utils import broadcast, gather_object, send_to_device
from tqdm import tqdm

from hiptrack.data.loader import ShardedBatches, collate, divide_batch, make_loader, next_batch, shut_down, worker_fault
from hiptrack.errors import HiptrackError
from hiptrack.processes import raise_together
from hiptrack.tracking.pictures import draw_box, score_overlay
from hiptrack.training.checkpoint import rng_state
from hiptrack.training.loop import TrainingStep
from hiptrack.training.numerical_fault import NotFinite, keep_fault, require_finite
from hiptrack.training.optimizers import carry_over
from hiptrack.training.preemption import Preempted


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
            fault = worker_fault(self.loader, error)
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
