"""Schedules as plain functions of the position in a stage: nothing to save, nothing to restore.

Each is called with (epoch, epochs): the position as a real number of epochs done, and the stage's length. It gives the
factor of the learning rate. One that could not do what it says in a stage of some length says so in `problem(epochs)`.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

import gin

from hiptrack.errors import ConfigError
from hiptrack.ranges import Count, Index, NonNegative, Positive, Share, ShareAboveZero

FIRST = 1e-3  # the very first step of a warm-up counts a little


@gin.register
class ConstantSchedule:
    """The learning rate stays as it is."""

    def __call__(self, epoch, epochs):
        return 1.0


@gin.register
@dataclass
class StepSchedule:
    """The learning rate is multiplied by `factor` at each milestone.

    Args:
        milestones: epochs at whose start it drops.
        factor: of each drop.
    """

    milestones: tuple[Index, ...] = (80,)
    factor: ShareAboveZero = 0.1

    def __post_init__(self):
        self.milestones = sorted(self.milestones)

    def problem(self, epochs):
        """What is wrong in a stage of so many epochs, or None."""
        if not self.milestones or self.milestones[0] >= epochs:
            return f"StepSchedule.milestones = {tuple(self.milestones)}: the rate would never drop"
        return None

    def __call__(self, epoch, epochs):
        return self.factor ** bisect_right(self.milestones, epoch)


class _Fall:
    """Linear warm-up of `warmup_epochs`, then a fall from 1 to `final`; `left` says how, as a share of the way."""

    cycles = 1

    def problem(self, epochs):
        """What is wrong in a stage of so many epochs, or None."""
        if self.warmup_epochs > epochs / self.cycles:
            name = type(self).__name__
            return f"{name}.warmup_epochs = {self.warmup_epochs:g}: the full rate would never be reached"
        return None

    def __call__(self, epoch, epochs):
        if epoch < self.warmup_epochs:
            return (epoch + FIRST) / self.warmup_epochs
        done = min((epoch - self.warmup_epochs) / max(epochs - self.warmup_epochs, 1e-9), 1.0)
        return self.final + (1 - self.final) * self.left(done)


@gin.register
@dataclass
class CosineSchedule(_Fall):
    """Linear warm-up, then a cosine down to `final` (SGDR, Loshchilov and Hutter, ICLR 2017, one cycle).

    Args:
        warmup_epochs: length of the warm-up; fractions are allowed.
        final: factor at the end of the stage.
    """

    warmup_epochs: NonNegative = 0.0
    final: Share = 0.0

    def left(self, done):
        return _half_cosine(done)


@gin.register
@dataclass
class PolynomialSchedule(_Fall):
    """Linear warm-up, then (1 - share done)^power down to `final`.

    The "poly" policy of Liu et al., ParseNet, 2015 (arXiv 1506.04579) and Chen et al., DeepLab, TPAMI 2018.

    Args:
        power: 1 is a straight line.
        warmup_epochs: length of the warm-up; fractions are allowed.
        final: factor at the end of the stage.
    """

    power: Positive = 1.0
    warmup_epochs: NonNegative = 0.0
    final: Share = 0.0

    def left(self, done):
        return (1 - done) ** self.power


@gin.register
@dataclass
class TimmSchedule(_Fall):
    """The rates of timm's schedulers at a position; what differs from the others here: restarts and tanh.

    Args:
        name: timm's; "cosine" restarts `cycles` times (SGDR, Loshchilov and Hutter, ICLR 2017), "tanh" is of Hsueh et
            al. (WACV 2019), which ends above `final`.
        cycles: equal parts of the stage, each of which starts anew.
        cycle_decay: factor of the rate from each part to the next.
        warmup_epochs: length of the linear warm-up, which takes the place of the first epochs.
        final: factor at the end of each part.

    Raises ConfigError where the last part starts at `final` or below.
    """

    name: Literal["cosine", "tanh"] = "cosine"
    cycles: Count = 1
    cycle_decay: ShareAboveZero = 1.0
    warmup_epochs: NonNegative = 0.0
    final: Share = 0.0

    def __post_init__(self):
        if self.cycle_decay ** (self.cycles - 1) <= self.final:
            raise ConfigError(
                f"TimmSchedule.cycles = {self.cycles}, cycle_decay = {self.cycle_decay}, final = {self.final}: it was "
                "expected that the last cycle starts above `final`."
            )

    def __call__(self, epoch, epochs):
        if epoch < self.warmup_epochs:
            full = self._falling(self.warmup_epochs, epochs) if self.name == "tanh" else 1.0
            return FIRST + epoch * ((full - FIRST) / self.warmup_epochs)
        return self._falling(epoch, epochs)

    def _falling(self, epoch, epochs):
        length = epochs / self.cycles
        cycle = epoch // length
        if cycle >= self.cycles:
            return self.final
        place = epoch - length * cycle
        if self.name == "tanh":
            done = place / length
            left = 0.5 * (1 - math.tanh(3 * done - 7 * (1 - done)))
        else:
            left = _half_cosine(place, length)
        return self.final + (self.cycle_decay**cycle - self.final) * left


@gin.register
@dataclass
class KeepRatioSchedule:
    """Keep ratio of candidate elimination: 1 at first, then a cosine down to the model's own (OSTrack).

    Args:
        start: epochs with all tokens.
        length: epochs the cosine takes.
    """

    start: NonNegative = 20
    length: Positive = 80

    def problem(self, epochs):
        """What is wrong in a stage of so many epochs, or None."""
        if self.start >= epochs:
            return f"KeepRatioSchedule.start = {self.start:g}: no token would ever be eliminated"
        return None

    def __call__(self, epoch, final):
        """Keep ratio after `epoch` epochs (a real number); `final` is the backbone's own."""
        done = min(max((epoch - self.start) / self.length, 0.0), 1.0)
        return final + (1 - final) * _half_cosine(done)


def _half_cosine(place, length=1.0):
    """From 1 at place 0 down to 0 at `length`."""
    return 0.5 * (1 + math.cos(math.pi * place / length))
