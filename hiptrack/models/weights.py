"""Weights files: safetensors that say themselves how to build their model.

The metadata entry `model` holds gin bindings of literals and references to this package's models only; it is read by a
parser that can neither import nor include (hiptrack/component.py).
"""

import hashlib
from pathlib import Path

import gin
import safetensors
import safetensors.torch
import torch

from hiptrack.bounded import excerpt
from hiptrack.component import build_component, component_text
from hiptrack.errors import CheckpointError, NotFoundError
from hiptrack.files import write_atomically
from hiptrack.models import hiptrack as _  # noqa: F401  registers the model's parts
from hiptrack.models.pretrained import load_exact, load_published, read_tensors, require_fit
from hiptrack.nano import weights_path

ROOT_COMPONENT = "HIPTrack"
MAX_DESCRIPTION = 2**16  # characters


def save_weights(path, model, bindings, **notes):
    """Write a model's weights with the bindings that rebuild it, atomically and synced to disk.

    notes: further texts for the metadata (step, stage, ...).
    """
    path = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"format": "hiptrack", "model": bindings, **{key: str(value) for key, value in notes.items()}}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def read_metadata(path):
    """The metadata of one of our weights files. Raises NotFoundError, or CheckpointError for any other file."""
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"not found: {path} (weights)", str(path))
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: a .safetensors file written by hiptrack was expected. tools/strip_cls.py converts a published checkpoint."
        )
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged, truncated, or no safetensors file: {excerpt(str(error))}."
        ) from error
    if metadata.get("format") != "hiptrack" or "model" not in metadata:
        raise CheckpointError(
            f"{path} does not say how to build its model; a weights file written by hiptrack was expected. A published "
            "checkpoint is taken by TrackerWeights.path in a gin file, or by tools/strip_cls.py."
        )
    return metadata


def load_model(path):
    """Build the model a weights file describes and fill it. Raises NotFoundError or CheckpointError."""
    bindings = read_metadata(path)["model"]
    if len(bindings) > MAX_DESCRIPTION:
        raise CheckpointError(f"{path}: its description of the model is longer than {MAX_DESCRIPTION} characters.")
    tensors = read_tensors(path)
    with torch.device("meta"):  # shapes alone: the description could ask for any amount of memory
        require_fit(_build(bindings, path), tensors, path)
    model = _build(bindings, path)
    load_exact(model, tensors, path)
    return model


def _build(bindings, path):
    try:
        return build_component(bindings, ROOT_COMPONENT, "hiptrack.models")
    except Exception as error:  # values from elsewhere make a constructor fail in any way
        reason = excerpt(" ".join(str(error).split()), 500)
        raise CheckpointError(f"{path}: its description of the model does not build one: {reason}") from error


def default_bindings():
    """The bindings of a model with every default; gin's own configuration is cleared for it."""
    parts = {"backbone": "Backbone", "history": "HistoricalPrompt", "head": "CenterHead"}
    with gin.unlock_config():
        gin.clear_config()
        gin.parse_config([f"{ROOT_COMPONENT}.{parameter} = @{part}" for parameter, part in parts.items()])
    return component_text(ROOT_COMPONENT)


def content_hash(path):
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@gin.register
class TrackerWeights:
    """Initial weights: the whole tracker's, from a file of ours or a published HIPTrack checkpoint.

    A branch or a neck that the file does not hold keeps its initial values; everything else must fit.

    Args:
        path: .safetensors of ours, .pth or .pth.tar of the published form, or "nano", the weights that come with the package. None
            starts from random weights.
        branch: False leaves out the file's branch, for one that starts anew or has another form.

    Raises NotFoundError, or CheckpointError naming the tensors that do not fit.
    """

    def __init__(self, path: str | None, branch: bool = True):
        self.path, self.branch = path, branch

    def describe(self):
        """What is filled from where."""
        without = "" if self.branch else ", without its branch"
        return f"tracker <- {self.path}{without}" if self.path else "random"

    def missing_paths(self):
        """The file, where it is absent."""
        return [] if self.path is None or weights_path(self.path).is_file() else [self.path]

    def __call__(self, model):
        """Fill the model; returns a line that says what was done."""
        if self.path is None:
            return "initial weights: random"
        tensors = read_tensors(weights_path(self.path))
        if not self.branch:
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("challenge.")}
        if any(name.startswith("HIP.") for name in tensors):
            kept = load_published(model, tensors, self.path)
        else:
            kept = self._load_ours(model, tensors)
        return self.describe() + (f" ({len(kept)} other tensors keep their initial values)" if kept else "")

    def _load_ours(self, model, tensors):
        try:
            return load_exact(model, tensors, self.path, may_miss=r"challenge\.|neck\.")
        except CheckpointError as error:
            if "challenge." not in str(error):
                raise
            raise CheckpointError(f"{error} TrackerWeights.branch = False leaves out the file's branch.") from error
