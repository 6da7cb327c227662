"""Clips that could not be used: drawn again by the loader, counted and listed here, and a limit to them."""

import json
import math
from collections import Counter
from dataclasses import asdict

from accelerate.utils import send_to_device

from hiptrack.config import config_text
from hiptrack.errors import DataError, HiptrackError
from hiptrack.models.weights import save_weights
from hiptrack.processes import write_together
from hiptrack.training.checkpoint import finished_checkpoints, save_tensors
from hiptrack.training.log import REJECTED

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
        listed = "".join(f"\n  {file} ({count}x)" for file, count in self.files.most_common(SHOWN))
        more = f"\n  and {len(self.files) - SHOWN} more in the run's {REJECTED}" if len(self.files) > SHOWN else ""
        return DataError(
            f"{bad} of {draws} drawn clips met an unreadable image, more than train.max_unreadable = {self.limit:g} of them "
            f"(at least {FEWEST_DRAWS} draws count). Restore these {len(self.files)} files, leave their sequences out with "
            f"FolderDataset.exclude (and go on with --allow-change), or raise the limit:{listed}{more}"
        )

    def state(self):
        """The counts, JSON-ready."""
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


CONFIG, FAULT, WEIGHTS = "config.gin", "fault.json", "weights.safetensors"


class NotFinite(HiptrackError):
    """A loss or a gradient became infinite or NaN."""


def require_finite(values):
    """Raise NotFinite naming the numbers that are not finite."""
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise NotFinite(", ".join(bad))


def keep_fault(run, stage, batches, keep_ratio, rng, names):
    """Write what the failed step needs to be run again into the run's folder; raises the HiptrackError that says so.

    Every process calls it with its own passes. batches: as the step got them; rng: state of the generators before the step;
    names: what is not finite.
    """
    folder = run.folder / f"fault-step-{run.position.step + 1:08d}"
    sources = [name for batch in batches for name in batch["source"]]
    checkpoints = finished_checkpoints(run.checkpoints)
    last = checkpoints[-1].name if checkpoints else None
    told = (
        f"{names} became infinite or NaN in stage '{stage.name}', step {run.position.step + 1}, on the clips "
        f"{', '.join(sources)}. Nothing of this step was kept; the last checkpoint is {last or 'none yet'}. Lower Stage.lr, "
        "keep Stage.grad_clip, or train with train.mixed_precision = 'no' (with --allow-change: the same run again would come "
        "to the same step)."
    )

    def write():
        folder.mkdir(exist_ok=True)
        (folder / CONFIG).write_text(config_text(), encoding="utf-8")
        save_weights(folder / WEIGHTS, run.model, run.bindings, step=run.position.step)
        fault = {
            "not_finite": names,
            "stage": stage.name,
            "position": asdict(run.position),
            "keep_ratio": keep_ratio,
            "last_checkpoint": last,
            "processes": run.accelerator.num_processes,
        }
        (folder / FAULT).write_text(json.dumps(fault, indent=1), encoding="utf-8")

    try:
        write_together(lambda: run.is_main and write(), f"{folder}")
        scaler = run.accelerator.scaler.state_dict() if run.accelerator.scaler else None
        share = {"batches": send_to_device(batches, "cpu"), "rng": rng, "scaler": scaler}
        write_together(lambda: save_tensors(folder / f"batch-{run.accelerator.process_index}.pt", share), f"{folder}")
    except HiptrackError as error:
        raise HiptrackError(f"{told} The batch could not be kept: {error}") from error
    raise HiptrackError(f"{told} Run the step again with: python tools/replay.py {folder}")
