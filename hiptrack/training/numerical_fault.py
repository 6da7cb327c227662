"""A step whose loss or gradient is not finite: kept on disk as it was, to be run again (hiptrack/training/replay.py)."""

import json
import math
from dataclasses import asdict

from accelerate.utils import send_to_device

from hiptrack.config import config_text
from hiptrack.errors import HiptrackError
from hiptrack.models.weights import save_weights
from hiptrack.processes import write_together
from hiptrack.training.checkpoint import finished_checkpoints, save_tensors

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
