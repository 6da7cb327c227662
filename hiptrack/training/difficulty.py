"""How hard each training sequence is for the challenge branch, kept over the epochs of a run."""

import math
from functools import partial

import torch
from accelerate.utils import gather_object

UNIT = 2**20  # of a frame's difficulty, as a whole number: sums of those do not depend on their order


class Difficulty:
    """Difficulties in [0, 1] by sequence: `known` from the epochs that are over, alike on all processes; and what is
    being summed up in the running one, each process for its own clips.

    Args:
        state: what `state` gave at the checkpoint to go on from, or None.
        is_main: whether this is the process that takes up the sums saved there.
    """

    def __init__(self, state=None, is_main=True):
        state = state or {"known": {}, "sums": {}}
        self.known = dict(state["known"])
        self._sums = {name: tuple(sums) for name, sums in state["sums"].items()} if is_main else {}

    def observer(self, clips, model):
        """What to call with (prediction, batch) of each pass of a step; None where difficulty decides nothing."""
        if clips.data.priority is None:
            return None
        return partial(self.observe, multi_label=model.challenge.activation == "sigmoid")

    @torch.no_grad()
    def observe(self, prediction, batch, multi_label):
        """Take up the labelled frames of a pass: its Prediction (rows of frames) and its batch of clips [B, F].

        multi_label: whether the branch's classes are independent of each other.
        """
        probabilities, labels = prediction.challenge.probabilities, batch["labels"]
        if multi_label:
            difficulty, labelled = flags_difficulty(probabilities, batch["flags"].flatten(0, 1))
        else:
            difficulty, labelled = label_difficulty(probabilities, labels.flatten())
        units = torch.where(labelled, (difficulty.double() * UNIT).round().long(), 0).view_as(labels).sum(1)
        frames = labelled.view_as(labels).sum(1)
        self._add(zip(batch["sequence"], units.tolist(), frames.tolist(), strict=True))

    def begin_epoch(self, clips):
        if clips.data.priority is not None:
            clips.prioritise(self.known)

    def end_epoch(self, clips, at, log):
        """Blend what the epoch has shown into `known`, as HardExamples does, and log it. Every process calls this."""
        priority = clips.data.priority
        shown = {} if priority is None else self._gathered()
        for name, (units, frames) in shown.items():
            self.known[name] = priority.follow(self.known.get(name), units / UNIT / frames)
        self._sums = {}
        if shown:
            values = list(self.known.values())
            mean = math.fsum(values) / len(values)
            log.scalars(at.step, {"Difficulty/mean": mean, "Difficulty/largest": max(values)})

    def state(self):
        """All of it, JSON-ready. Every process calls this."""
        return {"known": self.known, "sums": self._gathered()}

    def _gathered(self):
        merged = Difficulty()
        for sums in gather_object([self._sums]):
            merged._add((name, units, frames) for name, (units, frames) in sums.items())
        return merged._sums

    def _add(self, observed):
        for name, units, frames in observed:
            if frames:
                before = self._sums.get(name, (0, 0))
                self._sums[name] = (before[0] + units, before[1] + frames)


def label_difficulty(probabilities, labels):
    """(1 - the probability [R, C] of the label [R] (-1: none), whether a frame has one): [R] in [0, 1], [R] bool."""
    return 1 - probabilities.gather(1, labels.clamp(min=0)[:, None])[:, 0], labels >= 0


def flags_difficulty(probabilities, flags):
    """(mean distance of probabilities [R, C] from flags [R, C] (-1: none) over classes; whether there are any)."""
    return (probabilities - flags).abs().mean(1), flags[:, 0] >= 0
