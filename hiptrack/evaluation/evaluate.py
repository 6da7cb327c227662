"""Evaluation of a checkpoint on a data set: the root of hiptrack eval."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gin
from accelerate import Accelerator
from accelerate.utils import gather_object

from hiptrack.config import bound_values, config_text, used_values
from hiptrack.config.portable import arguments_of
from hiptrack.data.sequence import Sequence, SequenceDataset
from hiptrack.errors import ConfigError, DataError, NotFoundError
from hiptrack.evaluation.identity import code_identity
from hiptrack.evaluation.score import REPORT, Report, as_dict, evaluate_sequences
from hiptrack.files import write_atomically
from hiptrack.models.challenge import taxonomy_of
from hiptrack.models.weights import content_hash, load_model
from hiptrack.nano import checkpoint_name
from hiptrack.processes import on_main, open_accelerator
from hiptrack.ranges import Count
from hiptrack.taxonomy import Taxonomy
from hiptrack.tracking.hub import WEIGHTS
from hiptrack.tracking.tracker import Tracker, parts_of


@dataclass(frozen=True)
class EvaluationOptions:
    """What the command line says: the weights file or tracker's folder, the data set, where results go, and which
    sequences count for a challenge (`analysis.by_challenge`)."""

    checkpoint: Path
    dataset: SequenceDataset
    out: Path | None = None
    attribute_sequences: str = "majority"


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found, alike on all processes of `accelerator`; `folder` holds report.json and the result files."""

    report: Report
    sequences: list[Sequence]
    folder: Path
    accelerator: Accelerator


@gin.configurable(denylist=["options"])
def evaluate(
    options: EvaluationOptions, tracker: Callable = Tracker, batch: Count = 1, taxonomy: Taxonomy | None = None
) -> Evaluation:
    """Track every sequence of a data set, write result files in GOT-10k form and the benchmark's numbers: an Evaluation.

    Args:
        tracker: called with the model and the device.
        batch: sequences that each process tracks side by side as one batch; boxes differ by rounding alone. It pays on a GPU.
        taxonomy: the classes by which the data are labelled where the weights have no branch that names them; None: the ten.

    Results go to options.out, by default `results/<checkpoint>/<data set>-<key>`; the key changes with the weights, the
    configuration and the code, so that results are never taken for those of another model. Each tells of what sequence it is.
    """
    accelerator = open_accelerator()
    weights_file, settings = parts_of(options.checkpoint)
    if weights_file.is_dir():
        own = weights_file / WEIGHTS
        hint = f" Of this run it is {own}." if own.is_file() else ""
        raise ConfigError(
            f"{weights_file} is a folder: --checkpoint expects a weights file (.safetensors), or a folder of save_pretrained.{hint}"
        )
    if not weights_file.is_file():
        raise NotFoundError(f"not found: {options.checkpoint} (--checkpoint: a weights file)", str(options.checkpoint))
    model = load_model(weights_file)
    labels = _taxonomy(model, taxonomy, options.checkpoint)
    options.dataset.label_by(labels)
    sequences = options.dataset.sequences
    if options.dataset.annotations and not options.dataset.labelled_frames:
        raise DataError(
            f"{options.dataset.annotations} annotates no frame of {options.dataset.name}. Expected a folder of "
            "<sequence>/<sequence>.jsonl files, or no --annotations."
        )
    weights, data = content_hash(weights_file), [(s.name, len(s), s.boxes_xywh[0].tolist()) for s in sequences]
    # Of all that decides the results but the sequences, each of whose results tells what it was made of.
    key = _digest([weights, config_text(), settings, code_identity()])
    out = options.out or Path("results") / checkpoint_name(options.checkpoint) / f"{options.dataset.name}-{key[:8]}"
    report = evaluate_sequences(
        tracker(model=model, device=str(accelerator.device), **settings),
        sequences,
        results_dir=out,
        key=key,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
        gather=gather_object,
        protocol=options.dataset.PROTOCOL,
        batch=batch,
        taxonomy=labels,
        attribute_sequences=options.attribute_sequences,
    )

    def write():
        made_with = {
            "weights": weights,
            "data": _digest(data),
            "tracking": used_values("evaluate"),
            "settings": settings,
        }
        values = {**as_dict(report), "made_with": made_with}
        text = json.dumps(values, default=arguments_of, indent=2, allow_nan=False) + "\n"
        write_atomically(out / REPORT, text.encode())

    on_main(accelerator, write, f"The report in {out}")
    return Evaluation(report, sequences, out, accelerator)


def _taxonomy(model, wanted, checkpoint):
    """The classes of a model's branch, or the wanted ones where it has none; ConfigError where both differ."""
    known = taxonomy_of(model)
    if wanted is None:
        return known
    if model.challenge is not None and known != wanted:
        raise ConfigError(
            f"evaluate.taxonomy has the classes {', '.join(wanted.classes)} ({wanted}), but the branch of {checkpoint} was trained "
            f"with {', '.join(known.classes)} ({known}). Leave evaluate.taxonomy out."
        )
    return wanted


def configured_tracker() -> Callable:
    """What the loaded configuration (root `evaluate`) tracks with: called with a model and, if not "auto", a device.

    Raises ConfigError for a setting of `evaluate` itself: whoever tracks without it would pass over that.
    """
    idle = [name for name in bound_values() if name.startswith("evaluate.") and name != "evaluate.tracker"]
    if idle:
        raise ConfigError(f"{idle[0]} belongs to hiptrack eval and changes nothing here. Leave it out.")
    return gin.query_parameter("evaluate.tracker").scoped_configurable_fn


def _digest(values):
    return hashlib.sha256(json.dumps(values, default=arguments_of).encode()).hexdigest()
