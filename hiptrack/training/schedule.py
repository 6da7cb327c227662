"""Schedules as plain functions of the position in a stage: nothing to save, nothing to restore.

Each is called with (epoch, epochs): the position as a real number of epochs done, and the stage's length.
"""

import math
from bisect import bisect_right

import gin


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

    def __call__(self, epoch, epochs):
        """Factor of the learning rate."""
        if epoch < self.warmup_epochs:
            return (epoch + 1e-3) / self.warmup_epochs  # the very first step counts a little
        done = (epoch - self.warmup_epochs) / max(epochs - self.warmup_epochs, 1e-9)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@gin.register
class KeepRatioSchedule:
    """Keep ratio of candidate elimination: 1 at first, then a cosine down to the model's own (OSTrack).

    Args:
        start: epochs with all tokens.
        length: epochs the cosine takes.
    """

    def __init__(self, start: float = 20, length: float = 80):
        self.start, self.length = start, length

    def __call__(self, epoch, final):
        """Keep ratio after `epoch` epochs (a real number); `final` is the backbone's own."""
        done = min(max((epoch - self.start) / self.length, 0.0), 1.0)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
