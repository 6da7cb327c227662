"""Evaluation of a checkpoint on a data set: the root of tools/eval.py."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gin
from accelerate import Accelerator
from accelerate.utils import gather_object

from hiptrack.config import config_text
from hiptrack.data.sequences import FolderDataset
from hiptrack.errors import NotFoundError
from hiptrack.models.weights import content_hash, load_model
from hiptrack.processes import PATIENCE, check_processes
from hiptrack.tracking.evaluate import evaluate_sequences, format_table, write_json
from hiptrack.tracking.tracker import Tracker


@dataclass(frozen=True)
class EvaluationOptions:
    """What the command line says: the weights file, the data set, and where results go."""

    checkpoint: Path
    dataset: FolderDataset
    out: Path | None = None


@gin.configurable(denylist=["options"])
def evaluate(options: EvaluationOptions, tracker: Callable = Tracker):
    """Track every sequence of a data set and write result files in GOT-10k form.

    Args:
        tracker: called with the model and the device.

    Results go to options.out, by default `results/<checkpoint>/<data set>-<key>`; the key changes with the weights, the
    configuration and the sequences, so that results are never taken for those of another model. Returns
    the exit code: 1 when a sequence failed.
    """
    accelerator = Accelerator(kwargs_handlers=[PATIENCE])
    check_processes(accelerator)
    if not options.checkpoint.is_file():
        raise NotFoundError(f"not found: {options.checkpoint} (--checkpoint: a weights file)", str(options.checkpoint))
    sequences = options.dataset.sequences
    key = evaluation_key(options, sequences)
    out = options.out or Path("results") / options.checkpoint.stem / f"{options.dataset.name}-{key[:8]}"
    report = evaluate_sequences(
        tracker(model=load_model(options.checkpoint), device=str(accelerator.device)),
        sequences,
        results_dir=out,
        key=key,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
        gather=gather_object,
    )
    if accelerator.is_main_process:
        write_json(report, out / "report.json")
        accelerator.print(format_table(report))
        accelerator.print(f"results: {out}")
    accelerator.end_training()
    return 1 if report.failures else 0


def evaluation_key(options, sequences):
    """Digest of all that decides the results: weights, configuration, sequences and their first boxes."""
    told = [
        content_hash(options.checkpoint),
        config_text(),
        [(s.name, len(s), s.boxes_xywh[0].tolist()) for s in sequences],
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
