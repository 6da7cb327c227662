"""A stage of training: what is trained, on what, for how long."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import gin
from annotated_types import MinLen

from hiptrack.config.meaning import CHANGES_NO_RESULT
from hiptrack.data.clips import ClipDataset, Geometry
from hiptrack.data.loader import divide_batch
from hiptrack.errors import ConfigError
from hiptrack.models.challenge import taxonomy_of
from hiptrack.ranges import Count, Index, NonNegative, Positive, ShareAboveZero
from hiptrack.training.optimizers import (
    AdamW,
    carry_over,
    freeze_all_but,
    parameter_groups,
    require_module,
    trainable_parameters,
)
from hiptrack.training.schedules import ConstantSchedule
from hiptrack.training.step import TrainingStep


@dataclass(frozen=True)
class Phase:
    """From epoch `first` of its stage on, these modules are trained."""

    first: int
    trainable: tuple[str, ...]


@gin.register
class Stage:
    """One stage of the pipeline. Its name is the gin scope it was built in: `@branch/Stage()` is "branch".

    Args:
        data: called to give the training clips (ClipData).
        losses: the terms of the loss.
        epochs, lr, batch: length, base learning rate, and the *global* batch, to which the rate belongs.
        clips: clips of one epoch.
        trainable: modules that are trained, by dotted name ("all": everything), or a freeze schedule
            {epoch of the stage: modules}. All others are frozen: in eval mode, without gradients, outside the
            optimiser.
        lr_multipliers: {module: factor of lr}; the longest name that fits a parameter decides.
        layer_decay: factor of lr from each backbone layer to the one below it, beside lr_multipliers (see
            `parameter_groups`); None has the same rate in all layers.
        optimizer: called with the parameter groups.
        schedule: factor of the learning rates over the stage.
        keep_ratio: schedule of the keep ratio; None trains with the backbone's own.
        grad_clip: largest gradient norm; None does not clip.
        largest_pass: most clips a process takes at once; a larger share of the batch is accumulated.
        activation_checkpointing: the backbone's blocks keep their inputs alone for the backward pass and are run again
            there: less memory, more time, the same gradients.
    """

    def __init__(
        self,
        data: Callable,
        losses: Annotated[list[object], MinLen(1)],
        epochs: Count,
        lr: Positive,
        batch: Count = 32,
        clips: Count = 60000,
        trainable: list[str] | Annotated[dict[Index, list[str]], MinLen(1)] = ("all",),
        lr_multipliers: dict[str, NonNegative] | None = None,
        layer_decay: ShareAboveZero | None = None,
        optimizer: Callable = AdamW,
        schedule: Callable | None = None,
        keep_ratio: Callable | None = None,
        grad_clip: Positive | None = 0.1,
        largest_pass: Count | None = None,
        activation_checkpointing: Annotated[bool, CHANGES_NO_RESULT] = False,
    ):
        self.scope = gin.current_scope_str()
        self.name = self.scope.replace("/", "-") or "train"
        self.data, self.losses = data, losses
        self.epochs, self.lr, self.batch, self.clips = epochs, lr, batch, clips
        schedule_of_modules = trainable if isinstance(trainable, dict) else {0: trainable}
        self.phases = [Phase(first, tuple(schedule_of_modules[first])) for first in sorted(schedule_of_modules)]
        self.lr_multipliers, self.layer_decay = dict(lr_multipliers or {}), layer_decay
        self.optimizer, self.schedule = optimizer, schedule or ConstantSchedule()
        self.keep_ratio = keep_ratio
        self.grad_clip, self.largest_pass = grad_clip, largest_pass
        self.activation_checkpointing = activation_checkpointing
        names = [loss.name for loss in self.losses]
        if len(set(names)) < len(names):
            raise ConfigError(f"Stage.losses of stage '{self.name}' holds a term twice: {', '.join(names)}.")
        if self.clips < self.batch:
            raise ConfigError(
                f"Stage.clips = {self.clips} in stage '{self.name}' is less than one global batch (Stage.batch = {self.batch})."
            )
        if self.phases[0].first != 0 or self.phases[-1].first >= self.epochs:
            raise ConfigError(
                f"Stage.trainable of stage '{self.name}' changes at epochs {[phase.first for phase in self.phases]}: the first "
                f"must be 0, and all below Stage.epochs = {self.epochs}."
            )

    @property
    def steps_per_epoch(self):
        """Optimiser steps of an epoch; clips that fill no whole global batch are left."""
        return self.clips // self.batch

    def phase_at(self, epoch):
        return [phase for phase in self.phases if phase.first <= epoch][-1]

    def prepare(self, model, phase):
        """Freeze all that a phase does not train, and have the backbone keep what this stage has it keep."""
        freeze_all_but(model, phase.trainable)
        model.backbone.checkpointing = self.activation_checkpointing

    def begin_phase(self, phase, model, accelerator, clips, earlier=None):
        """The TrainingStep of a phase: all else frozen, the model wrapped anew around what is trained.

        clips: the stage's; earlier: the optimiser of the phase before, whose state is carried over.
        """
        step = self.wrap(phase, model, accelerator, earlier)
        if accelerator.num_processes > 2:
            step.settle_buckets(clips)
        return step

    def wrap(self, phase, model, accelerator, earlier=None):
        """`begin_phase` without a look at the clips."""
        unwrap(model, accelerator)
        self.prepare(model, phase)
        optimizer = self.optimizer(self.parameter_groups(model))
        if earlier is not None:
            carry_over(earlier.optimizer, optimizer)
        wrapped, optimizer = accelerator.prepare(model, optimizer)
        return TrainingStep(accelerator, wrapped, self.losses_in(model), optimizer)

    def follow_schedules(self, optimizer, at, backbone):
        """Set a Position's learning rates; returns (keep ratio, None for the backbone's own; all of it for the log)."""
        epoch = at.epoch + at.epoch_step / self.steps_per_epoch
        factor = self.schedule(epoch, self.epochs)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        rates = {f"LR/{group['name']}": group["lr"] for group in optimizer.param_groups}
        keep_ratio = self.keep_ratio(epoch, backbone.keep_ratio) if self.keep_ratio else None
        return keep_ratio, {**rates, "KeepRatio": backbone.keep_ratio if keep_ratio is None else keep_ratio}

    def losses_in(self, model):
        """The losses that count now: the classification's only while something of the branch is trained."""
        branch = model.challenge
        trains = branch is not None and any(parameter.requires_grad for parameter in branch.parameters())
        return [loss for loss in self.losses if loss.part != "classification" or trains]

    def open_data(self, model, annotations):
        """The stage's ClipData, labelled by the classes of the model's branch; nothing is read yet."""
        with gin.config_scope(self.scope or None):
            data = self.data()
        data.label_by(taxonomy_of(model), annotations)
        return data

    def parameter_groups(self, model):
        return parameter_groups(model, self.lr, self.lr_multipliers, self.layer_decay)

    def check(self, model, processes):
        """Raise ConfigError for whatever would stop this stage at its start or at a change of its freeze schedule.

        The model is left frozen as in the last phase.
        """
        divide_batch(self.batch, processes, self.largest_pass)
        for schedule in (self.schedule, self.keep_ratio):
            problem = getattr(schedule, "problem", lambda epochs: None)(self.epochs)
            if problem:
                raise ConfigError(f"{problem}; stage '{self.name}' has {self.epochs} epochs.")
        for module in self.lr_multipliers:
            require_module(model, module, "Stage.lr_multipliers")
        for phase in self.phases:
            freeze_all_but(model, phase.trainable)
            with gin.config_scope(self.scope or None):
                self.optimizer(self.parameter_groups(model))

    def check_targets(self, model, data):
        """Raise ConfigError where a loss of this stage does not suit the branch, or finds no target in the data.

        Its class weights are settled.
        """
        if data.priority is not None and (model.challenge is None or data.labelled_frames == 0):
            raise ConfigError(
                f"Stage '{self.name}': ClipData.priority draws by how sure the challenge branch is of labelled frames; "
                + ("the model has no branch." if model.challenge is None else "its data have none (ANNOTATIONS).")
            )
        trained = {name for phase in self.phases for name in trainable_parameters(model, phase.trainable)}
        branch_trains = model.challenge is None or any(name.startswith("challenge.") for name in trained)
        for loss in self.losses:
            if loss.part != "classification" or not branch_trains:
                continue
            if model.challenge is None:
                raise ConfigError(
                    f"Stage '{self.name}' has a classification loss, but the model no challenge branch: bind "
                    "HIPTrack.challenge = @ChallengeBranch, or leave the loss out of Stage.losses."
                )
            suits = getattr(loss, "activation", model.challenge.activation)
            if suits != model.challenge.activation:
                raise ConfigError(
                    f"Stage '{self.name}': {type(loss).__name__} needs ChallengeBranch.activation = '{suits}', not "
                    f"'{model.challenge.activation}'."
                )
            if loss.target == "gaps" and getattr(data.sampler, "search_frames", 2) < 2:
                raise ConfigError(
                    f"Stage '{self.name}': {type(loss).__name__} ties the search frames of a clip, but the sampler's search_frames "
                    "is 1: at least 2 were expected."
                )
            if data.labelled_frames == 0:
                raise ConfigError(
                    f"Stage '{self.name}': the classification loss finds no labelled frame in its whole data "
                    f"({', '.join(dataset.name for dataset in data.datasets)}). Set ANNOTATIONS to the folder of "
                    "<sequence>/<sequence>.jsonl files, or leave the loss out of Stage.losses."
                )
            if hasattr(loss, "weigh"):
                loss.weigh(model.challenge.taxonomy, data.class_shares)


def unwrap(model, accelerator):
    """Take the wrappers off a model, so that the next ones go round the bare one."""
    accelerator.free_memory()
    for leftover in ("_is_accelerate_prepared", "forward", "_original_forward"):
        model.__dict__.pop(leftover, None)


def read_data(stages, model, seed, annotations, say):
    """The clips of every stage: all at once, so that what is wrong with the data stops a run at its start.

    annotations: the folder for data sets that name none themselves. Raises DataError, and ConfigError as
    `Stage.check_targets` does.
    """
    shared, clips = {}, []
    for number, stage in enumerate(stages):
        data = stage.open_data(model, annotations)
        for dataset in data.datasets:
            dataset.share(shared)  # what several stages read is read once
        stage.check_targets(model, data)
        for dataset in data.datasets:
            say(f"{stage.name}: {dataset.describe()}")
        clips.append(ClipDataset(data, Geometry.of(model), seed, number))
    return clips
