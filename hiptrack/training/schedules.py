"""Schedules as plain functions of the position in a stage: nothing to save, nothing to restore.

Each is called with (epoch, epochs): the position as a real number of epochs done, and the stage's length. One that could not
do what it says in a stage of some length says so in `problem(epochs)`.
"""

import math
from bisect import bisect_right
from typing import Literal

import gin
import torch
from timm.scheduler import create_scheduler_v2

from hiptrack.errors import ConfigError


@gin.register
class ConstantSchedule:
    """The learning rate stays as it is."""

    def __call__(self, epoch, epochs):
        """Factor 1."""
        return 1.0


@gin.register
class StepSchedule:
    """The learning rate is multiplied by `factor` at each milestone.

    Args:
        milestones: epochs at whose start it drops.
        factor: of each drop.
    """

    def __init__(self, milestones: tuple[int, ...] = (80,), factor: float = 0.1):
        self.milestones, self.factor = sorted(milestones), factor

    def problem(self, epochs):
        """What is wrong in a stage of so many epochs, or None."""
        if not self.milestones or self.milestones[0] >= epochs:
            return f"StepSchedule.milestones = {tuple(self.milestones)}: the rate would never drop"
        return None

    def __call__(self, epoch, epochs):
        """Factor of the learning rate."""
        return self.factor ** bisect_right(self.milestones, epoch)


@gin.register
class CosineSchedule:
    """Linear warm-up, then a cosine down to `final` (SGDR, Loshchilov and Hutter, ICLR 2017, one cycle).

    Args:
        warmup_epochs: length of the warm-up; fractions are allowed.
        final: factor at the end of the stage.
    """

    def __init__(self, warmup_epochs: float = 0.0, final: float = 0.0):
        self.warmup_epochs, self.final = warmup_epochs, final

    def problem(self, epochs):
        """What is wrong in a stage of so many epochs, or None."""
        return long_warm_up("CosineSchedule", self.warmup_epochs, epochs)

    def __call__(self, epoch, epochs):
        """Factor of the learning rate."""
        if epoch < self.warmup_epochs:
            return warm_up(epoch, self.warmup_epochs)
        done = share_done(epoch, epochs, self.warmup_epochs)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


@gin.register
class PolynomialSchedule:
    """Linear warm-up, then (1 - share done)^power down to `final`.

    The "poly" policy of Liu et al., ParseNet, 2015 (arXiv 1506.04579) and Chen et al., DeepLab, TPAMI 2018.

    Args:
        power: 1 is a straight line.
        warmup_epochs: length of the warm-up; fractions are allowed.
        final: factor at the end of the stage.
    """

    def __init__(self, power: float = 1.0, warmup_epochs: float = 0.0, final: float = 0.0):
        self.power, self.warmup_epochs, self.final = power, warmup_epochs, final

    def problem(self, epochs):
        """What is wrong in a stage of so many epochs, or None."""
        return long_warm_up("PolynomialSchedule", self.warmup_epochs, epochs)

    def __call__(self, epoch, epochs):
        """Factor of the learning rate."""
        if epoch < self.warmup_epochs:
            return warm_up(epoch, self.warmup_epochs)
        done = share_done(epoch, epochs, self.warmup_epochs)
        return self.final + (1 - self.final) * (1 - done) ** self.power


@gin.register
class TimmSchedule:
    """A scheduler of timm, asked for the rate at a position; what differs from the others here: restarts and tanh.

    Args:
        name: timm's; "cosine" restarts `cycles` times (SGDR, Loshchilov and Hutter, ICLR 2017), "tanh" is of Hsueh et al.
            (WACV 2019), which ends above `final`.
        cycles: equal parts of the stage, each of which starts anew.
        cycle_decay: factor of the rate from each part to the next.
        warmup_epochs: length of the linear warm-up, which takes the place of the first epochs.
        final: factor at the end of each part.

    Raises ConfigError for fewer than one cycle.
    """

    def __init__(
        self,
        name: Literal["cosine", "tanh"] = "cosine",
        cycles: int = 1,
        cycle_decay: float = 1.0,
        warmup_epochs: float = 0.0,
        final: float = 0.0,
    ):
        if cycles < 1 or cycle_decay ** (cycles - 1) <= final:
            raise ConfigError(
                f"TimmSchedule.cycles = {cycles}, cycle_decay = {cycle_decay}, final = {final}: at least one cycle was expected, "
                "and that the last one starts above `final`."
            )
        self.name, self.cycles, self.cycle_decay = name, cycles, cycle_decay
        self.warmup_epochs, self.final = warmup_epochs, final

    def problem(self, epochs):
        """What is wrong in a stage of so many epochs, or None."""
        return long_warm_up("TimmSchedule", self.warmup_epochs, epochs / self.cycles)

    def __call__(self, epoch, epochs):
        """Factor of the learning rate."""
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        scheduler, _ = create_scheduler_v2(
            optimizer,
            self.name,
            num_epochs=epochs / self.cycles,
            min_lr=self.final,
            warmup_lr=1e-3,
            warmup_epochs=self.warmup_epochs,
            cycle_decay=self.cycle_decay,
            cycle_limit=self.cycles,
        )
        scheduler.step(epoch)
        return optimizer.param_groups[0]["lr"]


def long_warm_up(name, warmup_epochs, epochs):
    """What is wrong with a warm-up that is longer than the (part of a) stage it begins, or None."""
    if warmup_epochs > epochs:
        return f"{name}.warmup_epochs = {warmup_epochs:g}: the full rate would never be reached"
    return None


def warm_up(epoch, warmup_epochs):
    """Factor within a linear warm-up; the very first step counts a little."""
    return (epoch + 1e-3) / warmup_epochs


def share_done(epoch, epochs, warmup_epochs):
    """Share in [0, 1] of what follows the warm-up."""
    return min((epoch - warmup_epochs) / max(epochs - warmup_epochs, 1e-9), 1.0)


@gin.register
class KeepRatioSchedule:
    """Keep ratio of candidate elimination: 1 at first, then a cosine down to the model's own (OSTrack).

    Args:
        start: epochs with all tokens.
        length: epochs the cosine takes.
    """

    def __init__(self, start: float = 20, length: float = 80):
        if length <= 0:
            raise ConfigError(f"KeepRatioSchedule.length = {length}: a number of epochs above 0 was expected.")
        self.start, self.length = start, length

    def problem(self, epochs):
        """What is wrong in a stage of so many epochs, or None."""
        if self.start >= epochs:
            return f"KeepRatioSchedule.start = {self.start:g}: no token would ever be eliminated"
        return None

    def __call__(self, epoch, final):
        """Keep ratio after `epoch` epochs (a real number); `final` is the backbone's own."""
        done = min(max((epoch - self.start) / self.length, 0.0), 1.0)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
