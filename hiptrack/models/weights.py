"""Weights files: safetensors that say themselves how to build their model.

The metadata entry `model` is JSON that can name literals and this package's models only (hiptrack/config/portable.py).
Files of older versions have gin text there, which is read as the JSON that it stands for.
"""

import hashlib
import json
import pickle
import re
from contextlib import contextmanager
from pathlib import Path

import gin
import numpy as np
import safetensors
import safetensors.torch
import torch

from hiptrack.config.portable import MAX_NUMBER, build_component, component_text, from_gin
from hiptrack.errors import CheckpointError, ConfigError, NotFoundError
from hiptrack.files import ANY_SIZE, check_archive, check_file, encodable, excerpt, file_hash, write_atomically
from hiptrack.models import hiptrack as _  # noqa: F401  registers the model's parts
from hiptrack.taxonomy import TEN

ROOT_COMPONENT = "HIPTrack"
PARTS = ("hiptrack.models", "hiptrack.taxonomy")  # the modules of what a description may name
MAX_DESCRIPTION = 2**16  # characters


def model_text():
    """The description of the bound model that goes into its weights files.

    It is built from that once, without memory: a file that could not be loaded again must not cost a training run.
    """
    text = component_text(ROOT_COMPONENT)
    with torch.device("meta"):
        build_component(text, ROOT_COMPONENT, PARTS)
    return text


def save_weights(path, model, text, **notes):
    """Write a model's weights with the text that describes it, atomically and synced to disk.

    notes: further texts for the metadata (step, stage, ...).
    """
    path = Path(path)
    require_name(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"format": "hiptrack", "model": text, **{key: str(value) for key, value in notes.items()}}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def require_name(path):
    """Raise CheckpointError for a file's name that the library safetensors cannot open."""
    if not encodable(str(path)):
        raise CheckpointError(f"{path}: a weights file needs a name of UTF-8 text, and so do its folders. Rename it.")


def read_metadata(path):
    """The metadata of one of our weights files, `model` as JSON. Raises NotFoundError, or CheckpointError for any other."""
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"not found: {path} (weights)", str(path))
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: a .safetensors file written by hiptrack was expected. hiptrack strip converts a published checkpoint."
        )
    with _opened(path) as file:
        metadata, tensors = file.metadata() or {}, len(file.keys())
    if metadata.get("format") != "hiptrack" or "model" not in metadata:
        raise CheckpointError(
            f"{path} does not say how to build its model; a weights file written by hiptrack was expected. A published "
            "checkpoint is taken by TrackerWeights.path in a gin file, or by hiptrack strip."
        )
    text = metadata["model"]
    if len(text) > MAX_DESCRIPTION:
        raise CheckpointError(f"{path}: its description of the model is longer than {MAX_DESCRIPTION} characters.")
    with _description(path):
        text = text if text.startswith("{") else from_gin(text, ROOT_COMPONENT)
        _require_layers(json.loads(text), tensors)
        return {**metadata, "model": _with_taxonomy(text)}


def _require_layers(described, tensors):
    """Raise ConfigError for more layers than the file has tensors, which would take minutes to build."""
    if isinstance(described, list):
        if len(described) > tensors:
            raise ConfigError(f"a list of {len(described)}; the file has {tensors} tensors.")
        described = dict(enumerate(described))
    for name, value in described.items() if isinstance(described, dict) else ():
        if name == "depth" and isinstance(value, int) and tensors < value <= MAX_NUMBER:  # more is refused elsewhere
            raise ConfigError(f"depth = {value}; the file has {tensors} tensors.")
        _require_layers(value, tensors)


def _with_taxonomy(text):
    """A description as it is written now; before there were taxonomies a branch had a number of classes."""
    described = json.loads(text)
    match described:
        case {"parameters": {"challenge": {"parameters": {"classes": classes} as values}}}:
            if classes != len(TEN.classes):
                raise ConfigError(
                    f"its branch has {classes} classes that nothing names; {len(TEN.classes)} were expected."
                )
            del values["classes"]
            return json.dumps(described, indent=1)
    return text


def taxonomy_in(path):
    """The Taxonomy of the branch that a weights file describes; None without a branch, and where it describes no model.

    Raises NotFoundError or CheckpointError.
    """
    if path.suffix != ".safetensors":
        return None
    with _opened(path) as file:
        if "model" not in (file.metadata() or {}):
            return None
    text = read_metadata(path)["model"]
    with torch.device("meta"), _description(path):
        branch = build_component(text, ROOT_COMPONENT, PARTS).challenge
    return None if branch is None else branch.taxonomy


def load_model(path):
    """Build the model a weights file describes and fill it. Raises NotFoundError or CheckpointError."""
    text = read_metadata(path)["model"]
    tensors = read_tensors(path)
    with torch.device("meta"), _description(path):  # shapes alone: the text could ask for any amount of memory
        shapes = build_component(text, ROOT_COMPONENT, PARTS)
    require_fit(shapes, tensors, path)
    with _description(path):
        model = build_component(text, ROOT_COMPONENT, PARTS)
    load_exact(model, tensors, path)
    return model


@contextmanager
def _description(path):
    """Whatever goes wrong with a file's description of its model is a CheckpointError."""
    try:
        yield
    except Exception as error:  # values from elsewhere make a constructor fail in any way
        reason = excerpt(" ".join(str(error).split()), 500)
        raise CheckpointError(f"{path}: its description of the model does not build one: {reason}") from error


def default_text():
    """The description of a model with every default; gin's own configuration is cleared for it."""
    parts = {"backbone": "Backbone", "history": "HistoricalPrompt", "head": "CenterHead"}
    with gin.unlock_config():
        gin.clear_config()
        gin.parse_config([f"{ROOT_COMPONENT}.{parameter} = @{part}" for parameter, part in parts.items()])
    return component_text(ROOT_COMPONENT)


def content_hash(path):
    """SHA-256 of what a weights file holds, in hexadecimal: the model's description and its tensors, by name.

    Equal weights have equal ones, though their files differ: safetensors writes metadata in random order, and notes
    (step, stage) do not count. Of a file that is no .safetensors, that of its bytes. Raises OSError, or CheckpointError
    where the file is damaged.
    """
    if Path(path).suffix != ".safetensors":
        return file_hash(path)
    with _opened(path) as file:
        digest = hashlib.sha256((file.metadata() or {}).get("model", "").encode())
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def _opened(path):
    """A safetensors file, opened. Raises OSError for what is no file, CheckpointError where it is damaged."""
    check_file(path, ANY_SIZE)
    require_name(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged, truncated, or no safetensors file: {excerpt(str(error))}."
        ) from error


def load_exact(module, state, source, may_miss=None):
    """Load tensors by name; missing (save those `may_miss` fits), unexpected and misshapen ones are errors.

    A module on the meta device has no memory to load into: it is checked alone. Returns the names that were allowed to
    miss and did.
    """
    excused = require_fit(module, state, source, may_miss)
    if not is_without_memory(module):
        module.load_state_dict(state, strict=False)
    return excused


def is_without_memory(module):
    """Whether a module is on the meta device: shapes alone."""
    return any(parameter.is_meta for parameter in module.parameters())


def require_fit(module, state, source, may_miss=None):
    """The check of `load_exact` alone; the module may be without memory, on the meta device."""
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    excused = [name for name in missing if may_miss and re.match(may_miss, name)]
    missing = [name for name in missing if name not in excused]
    unexpected = [name for name in state if name not in own]
    both = [(name, state[name], own[name]) for name in own if name in state]
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": [
            f"{name} {list(theirs.shape)} in the file, {list(ours.shape)} in the model"
            for name, theirs, ours in both
            if theirs.shape != ours.shape
        ],
        "of another kind": [
            f"{name} {theirs.dtype} in the file, {ours.dtype} in the model"
            for name, theirs, ours in both
            if theirs.is_floating_point() != ours.is_floating_point()
        ],
    }
    found = [f"{len(names)} {what}: {some_of(names)}" for what, names in problems.items() if names]
    if found:
        raise CheckpointError(f"The tensors of {source} do not fit the model. " + ". ".join(found) + ".")
    return excused


def read_tensors(path):
    """{name: tensor} of a safetensors or torch file, on the CPU; nothing in the file is ever executed.

    Takes a bare state dict or one under `net`, `model` or `state_dict`. Raises NotFoundError, or CheckpointError
    where the file is damaged, could unpack to more than its own size, holds more than tensors and plain containers, or
    holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"not found: {path} (weights)", str(path))
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for key in ("net", "model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    named = content.items() if isinstance(content, dict) else ()
    tensors = {name: tensor for name, tensor in named if isinstance(name, str) and isinstance(tensor, torch.Tensor)}
    if not tensors:
        raise CheckpointError(
            f"{path} holds no tensors: a state dict, bare or under 'net', 'model' or 'state_dict', was expected."
        )
    size = path.stat().st_size
    hollow = [name for name, tensor in tensors.items() if not _is_stored(tensor, size)]
    if hollow:
        raise CheckpointError(f"{path} is refused: it does not hold every value of {some_of(hollow)}.")
    return tensors


def _read_safetensors(path):
    require_name(path)
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {excerpt(str(error))}.") from error


def _read_torch(path):
    try:
        with open(path, "rb") as file:
            is_archive = file.read(4) == b"PK\x03\x04"  # as PyTorch tells its two forms apart
        if is_archive:
            check_archive(path)
        with torch.serialization.safe_globals([*_STUBS, *_NUMPY_SCALARS]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it {_what_it_holds(path)}. Expected tensors in plain dicts; save its tensors alone where it was made."
        ) from error
    except Exception as error:  # a damaged file makes PyTorch's reader fail in any way
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{path} is refused, for it is damaged, truncated or no torch file: {excerpt(reason)}."
        ) from error


def _is_stored(tensor, size):
    """Whether a file of `size` bytes holds each value of a tensor: no expanded view, not sparse or without memory."""
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.nbytes <= size


class _Stub:
    """Stands in for a record of the published trainers: takes its attributes, runs nothing."""


# What published trainers pickle beside the tensors: their settings and running statistics.
_STUBS = [
    (_Stub, f"lib.train.admin.{name}")
    for name in ("settings.Settings", "stats.AverageMeter", "stats.StatValue", "local.EnvironmentSettings")
]
_NUMPY_SCALARS = [
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
]


def _what_it_holds(path):
    """Why a torch file is refused, in words."""
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, ValueError, pickle.UnpicklingError, EOFError):
        foreign = []
    known = {name for _module, name in _STUBS}
    foreign = [name for name in foreign if name not in known]
    if not foreign:
        return "is damaged, or holds pickled objects besides tensors"
    return f"holds pickled objects besides tensors, which could run code when loaded: {some_of(foreign)}"


def some_of(names):
    """The first names of many, and how many more there are, as one line."""
    names = list(names)
    return ", ".join(map(excerpt, names[:6])) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
