"""Taking the challenge branch out of a checkpoint, to ship the tracker alone."""

import io
import json
import logging
import os
from pathlib import Path

import torch

from hiptrack.errors import CheckpointError, ConfigError
from hiptrack.files import write_atomically
from hiptrack.models.hiptrack import HIPTrack
from hiptrack.models.published import load_published, to_published, without_prefix
from hiptrack.models.weights import (
    default_text,
    load_model,
    read_metadata,
    read_tensors,
    save_weights,
)

logger = logging.getLogger(__name__)


def load_any(path):
    """(model, its description) of a weights file of ours or a published checkpoint (HIPTrack B/384).

    Raises NotFoundError or CheckpointError.
    """
    if Path(path).suffix == ".safetensors":
        return load_model(path), read_metadata(path)["model"]
    model = HIPTrack()
    tensors, prefix = without_prefix(read_tensors(path))
    if prefix:
        logger.warning("%s: %s left out of its names", path, prefix)
    load_published(model, tensors, path)
    return model, default_text()


def strip_branch(source, output, fold=False, form="safetensors"):
    """Write a checkpoint without its challenge branch.

    fold: keep the branch's mean effect as a bias of the layer that feeds the box head.
    form: "safetensors" (ours) or "published" (torch file with the published names under `net`).
    Raises CheckpointError where there is nothing to fold, the published form cannot hold the model, or the output is
    the source.
    """
    if (Path(output).suffix == ".safetensors") != (form == "safetensors"):
        suffix = "must end in .safetensors" if form == "safetensors" else "must not end in .safetensors"
        raise CheckpointError(f"{output}: the output of --format {form} {suffix}.")
    if os.path.realpath(output) == os.path.realpath(source):
        raise CheckpointError(f"{output} is what is read: its branch would be lost. Name another output.")
    model, text = load_any(source)
    if fold:
        try:
            model.fold_challenge()
        except ConfigError as error:
            raise CheckpointError(f"{source}: {error}") from error
    model.challenge = None
    if form == "safetensors":
        save_weights(output, model, without_branch(text), stripped_from=Path(source).name, folded=fold)
        return
    content = io.BytesIO()  # PyTorch's own writer ends the process where the disk is full
    torch.save({"net": to_published(model)}, content)
    write_atomically(output, content.getbuffer())


def without_branch(text):
    """The description of a model, its challenge branch taken out."""
    described = json.loads(text)
    described["parameters"]["challenge"] = None
    return json.dumps(described, indent=1)


def halve(source, output):
    """Write a weights file of ours in float16, with what it says of itself.

    Raises NotFoundError, or CheckpointError for a file that is none of ours, a value beyond float16's range (65,504),
    and an output that is the source or does not end in .safetensors.
    """
    source, output = Path(source), Path(output)
    if output.suffix != ".safetensors":
        raise CheckpointError(f"{output}: an output that ends in .safetensors was expected.")
    if os.path.realpath(output) == os.path.realpath(source):
        raise CheckpointError(f"{output} is what is read: its precision would be lost. Name another output.")
    metadata = read_metadata(source)
    text = metadata.pop("model")
    del metadata["format"]  # save_weights says it again
    model = load_model(source).half()
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"{source}: {name} has values that float16 cannot hold (beyond 65,504, or not finite)."
            )
    save_weights(output, model, text, **metadata)
