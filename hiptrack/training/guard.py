"""What may stop a run: unusable clips, numbers that are not finite, signals, errors of one process."""

import json
import math
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict

import torch
from accelerate.utils import broadcast, gather_object, send_to_device

from hiptrack.config import config_text
from hiptrack.errors import DataError, HiptrackError
from hiptrack.files import check_own, encoded, write_atomically
from hiptrack.models.weights import save_weights
from hiptrack.processes import on_main, raise_together, write_together
from hiptrack.signals import Preempted
from hiptrack.training.checkpoint import finished_checkpoints, rng_state, save_tensors
from hiptrack.training.log import REJECTED

CONFIG, FAULT, WEIGHTS = "config.gin", "fault.json", "weights.safetensors"  # of a step that is kept to be run again
UNREADABLE = "unreadable image"
FEWEST_DRAWS = 100  # below them a share says little
SHOWN = 20


class DataFaults:
    """Counts the rejected draws of a run by reason, and stops it when too many are unreadable. Alike on every process.

    Args:
        limit: largest share of the draws that may be unreadable, of at least FEWEST_DRAWS.
        state: what `state` gave at the checkpoint to go on from, or None.
    """

    def __init__(self, limit, state=None):
        state = state or {"clips": 0, "reasons": {}, "files": {}}
        self.limit, self.clips = limit, state["clips"]
        self.reasons, self.files = Counter(state["reasons"]), Counter(state["files"])

    def add(self, clips, rejected):
        """Take up the clips of one global batch and the draws rejected for them ({reason, sequence, file} each)."""
        self.clips += clips
        self.reasons.update(draw["reason"] for draw in rejected)
        self.files.update(draw["file"] for draw in rejected if draw["reason"] == UNREADABLE)

    def problem(self):
        """A DataError with the files when more than the allowed share of the draws was unreadable, else None."""
        draws = self.clips + self.reasons.total()
        bad = self.reasons[UNREADABLE]
        if bad <= self.limit * max(draws, FEWEST_DRAWS):
            return None
        listed = [f"{file} ({count}x)" for file, count in self.files.most_common(SHOWN)]
        if len(self.files) > SHOWN:
            listed.append(f"and {len(self.files) - SHOWN} more in the run's {REJECTED}")
        return DataError(
            f"{bad} of {draws} drawn clips met an unreadable image, more than train.max_unreadable = {self.limit:g} of them "
            f"(at least {FEWEST_DRAWS} draws count). Restore these {len(self.files)} files, leave their sequences out with "
            "FolderDataset.exclude (and go on with --allow-change), or raise the limit:",
            *listed,
        )

    def state(self):
        return {"clips": self.clips, "reasons": dict(self.reasons), "files": dict(self.files)}

    def scalars(self):
        """{name: draws rejected so far} for the log; empty while all is well."""
        return {f"Rejected/{reason}": count for reason, count in self.reasons.items()}

    def describe(self):
        """What a finished run says of its data, or None where nothing was rejected."""
        if not self.reasons:
            return None
        counts = ", ".join(f"{count} for {reason}" for reason, count in self.reasons.items())
        return (
            f"{self.reasons.total()} of {self.clips + self.reasons.total()} drawn clips were rejected and drawn again: "
            f"{counts}; {len(self.files)} files were unreadable (all in the run's {REJECTED})"
        )


class NotFinite(HiptrackError):
    """A loss or a gradient became infinite or NaN."""


def require_finite_scalars(values):
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise NotFinite(", ".join(bad))


class Guard:
    """What may end a run, at three places: before a step, in it, and in a validation. Every process calls it alike.

    Args:
        signals: the Preemption of this process.
        folder: the RunFolder.
        faults: the DataFaults so far.
        save_steps, save_minutes: when a checkpoint is due, besides the ends of epochs.
    """

    def __init__(self, accelerator, signals, folder, faults, save_steps, save_minutes):
        self.accelerator, self.signals, self.folder, self.faults = accelerator, signals, folder, faults
        self.save_steps, self.save_minutes = save_steps, save_minutes
        self.restart_clock()

    def restart_clock(self):
        """A checkpoint was written: the next is due in `save_minutes`."""
        self._saved_at = time.monotonic()

    def agree(self, batches, error, stage, at, save):
        """What all processes must decide alike before a step: to stop for an error, to save, to stop as asked.

        batches: this process's passes of the global batch; error: why there are none; save: writes a checkpoint. Raises
        the error of any process on all, Preempted where a signal asks for it, DataError for too many unreadable images.
        """
        error = error or self.folder.log.failure
        rejected = [draw for batch in batches for draw in batch["rejected"]]
        late = time.monotonic() - self._saved_at > self.save_minutes * 60
        votes = [error is not None, bool(rejected), late, self.signals.requested]
        failed, any_rejected, late, stop = self._on_any(votes)
        if failed:
            raise_together(error)
        if stop or late or self.save_steps and at.epoch_step and at.step % self.save_steps == 0:
            save()
        if stop:
            raise Preempted
        self._count(stage.batch, gather_object(rejected) if any_rejected else [], at)

    def _on_any(self, votes):
        votes = torch.tensor([float(vote) for vote in votes], device=self.accelerator.device)
        return (self.accelerator.reduce(votes) > 0).tolist()

    def _count(self, clips, rejected, at):
        for draw in rejected:
            self.folder.log.reject(at.step + 1, draw)
        self.faults.add(clips, rejected)
        problem = self.faults.problem()
        if problem:  # on all processes alike
            raise_together(problem if self.accelerator.is_main_process else None)

    @contextmanager
    def finite(self, stage, at, batches, keep_ratio, model, text):
        """Around a step: at NotFinite what it needs to be run again is kept, and a HiptrackError says where.

        text: the model's description. The numbers are the same on all processes, so all come here or none.
        """
        rng = rng_state()
        try:
            yield
        except NotFinite as error:
            share = {"batches": send_to_device(batches, "cpu"), "rng": rng}
            self._keep_fault(stage, at, share, keep_ratio, model, text, str(error))

    def _keep_fault(self, stage, at, share, keep_ratio, model, text, names):
        folder = self.folder.path / f"fault-step-{at.step + 1:08d}"
        sources = [name for batch in share["batches"] for name in batch["source"]]
        checkpoints = finished_checkpoints(self.folder.checkpoints)
        last = checkpoints[-1].name if checkpoints else None
        told = (
            f"{names} became infinite or NaN in stage '{stage.name}', step {at.step + 1}, on the clips "
            f"{', '.join(sources)}. Nothing of this step was kept; the last checkpoint is {last or 'none yet'}. Lower Stage.lr, "
            "keep Stage.grad_clip, or train with train.mixed_precision = 'no' (with --allow-change: the same run again would "
            "come to the same step)."
        )
        fault = {
            "not_finite": names,
            "stage": stage.name,
            "position": asdict(at),
            "keep_ratio": keep_ratio,
            "last_checkpoint": last,
            "processes": self.accelerator.num_processes,
        }

        def write():
            check_own(folder)
            folder.mkdir(exist_ok=True)
            write_atomically(folder / CONFIG, encoded(config_text()))
            save_weights(folder / WEIGHTS, model, text, step=at.step)
            write_atomically(folder / FAULT, json.dumps(fault, indent=1).encode())

        try:
            on_main(self.accelerator, write, f"{folder}")
            share["scaler"] = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
            file = folder / f"batch-{self.accelerator.process_index}.pt"
            write_together(lambda: save_tensors(file, share), f"{folder}")
        except HiptrackError as error:
            raise HiptrackError(f"{told} The batch could not be kept: {error}") from error
        raise HiptrackError(f"{told} Run the step again with: hiptrack replay {folder}")

    def stoppable(self, validation, model):
        """The values of a Validation. A signal stops each process's tracking where it is; then all stop together.

        Raises Preempted.
        """
        voted = False
        for buffer in model.buffers():  # DDP keeps those of process 0, which are the ones that are saved
            broadcast(buffer)

        def gather(outcomes):
            nonlocal voted
            self.signals.hold()
            voted = True
            self._stop_if_any(self.signals.requested)
            return gather_object(outcomes)

        try:
            with self.signals.at_once():
                return validation(model, self.accelerator, gather)
        except Preempted:
            if not voted:
                self._stop_if_any(True)
            raise

    def _stop_if_any(self, stop):
        if self._on_any([stop])[0]:
            raise Preempted
