"""Published checkpoints and plain ViT weights -> ours, and back, by an explicit table of names."""

import pickle
import re
from pathlib import Path

import gin
import numpy as np
import safetensors.torch
import timm
import torch
import torch.nn.functional as F

from hiptrack.bounded import check_archive, excerpt
from hiptrack.errors import CheckpointError, NotFoundError

# Published name -> our name, by prefix; the first that fits decides.
TABLE = [
    ("backbone.pos_embed_z", "backbone.template_position"),
    ("backbone.pos_embed_x", "backbone.search_position"),
    ("backbone.temporal_pos_embed_z", "backbone.template_temporal"),
    ("backbone.temporal_pos_embed_x", "backbone.search_temporal"),
    ("backbone.patch_embed.proj.", "backbone.patch_embed.proj."),
    ("backbone.blocks.", "backbone.blocks."),
    ("backbone.norm.", "backbone.norm."),
    *(
        (f"box_head.conv{number}_{published}.{part}.", f"box_head.{ours}.layers.{number - 1}.{part}.")
        for published, ours in (("ctr", "score"), ("offset", "offset"), ("size", "size"))
        for number in (1, 2, 3, 4)
        for part in (0, 1)
    ),
    ("box_head.conv5_ctr.", "box_head.score.out."),
    ("box_head.conv5_offset.", "box_head.offset.out."),
    ("box_head.conv5_size.", "box_head.size.out."),
    ("HIP.encoder.conv1.", "history.value_encoder.trunk.conv1."),
    ("HIP.encoder.bn1.", "history.value_encoder.trunk.bn1."),
    ("HIP.encoder.layer1.", "history.value_encoder.trunk.stages.0."),
    ("HIP.encoder.layer2.", "history.value_encoder.trunk.stages.1."),
    ("HIP.encoder.layer3.", "history.value_encoder.trunk.stages.2."),
    ("HIP.encoder.fuser.block1.downsample.", "history.value_encoder.block1.skip."),
    ("HIP.encoder.fuser.block1.", "history.value_encoder.block1."),
    ("HIP.encoder.fuser.block2.", "history.value_encoder.block2."),
    ("HIP.encoder.fuser.attention.ChannelGate.mlp.1.", "history.value_encoder.attention.mlp.0."),
    ("HIP.encoder.fuser.attention.ChannelGate.mlp.3.", "history.value_encoder.attention.mlp.2."),
    ("HIP.encoder.fuser.attention.SpatialGate.spatial.conv.", "history.value_encoder.attention.spatial."),
    ("key_proj.key_proj.", "history.key_proj."),
    ("key_comp.", "history.key_comp."),
    ("searchRegionFusion.", "history.fuse."),
]
# Carried by published files, read by nobody where the class token is unused.
CLASS_TOKEN, POSITIONS = "backbone.cls_token", "backbone.pos_embed"
PRETRAINED_SIDE = 224  # image side that the original position table was made for


def published_name(ours):
    """Our name of a tensor -> the published one, or None."""
    return _rename(ours, ((b, a) for a, b in TABLE))


def our_name(published):
    """The published name of a tensor -> ours, or None."""
    return _rename(published, TABLE)


def _rename(name, table):
    for old, new in table:
        if name.startswith(old):
            return new + name[len(old) :]
    return None


def from_published(published):
    """Published tracker tensors {name: tensor} -> ours, without the unused class token and position table.

    Raises CheckpointError naming every tensor the table does not know.
    """
    unknown = [name for name in published if our_name(name) is None and name not in (CLASS_TOKEN, POSITIONS)]
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} tensors have no place in a published HIPTrack: {_some(unknown)}. A HIPTrack or DropTrack "
            "checkpoint was expected."
        )
    if POSITIONS in published and published[POSITIONS].ndim != 3:
        raise CheckpointError(f"{POSITIONS} is {list(published[POSITIONS].shape)}, expected [1, places, width].")
    return {our_name(name): tensor for name, tensor in published.items() if our_name(name)}


def to_published(model):
    """A tracker without challenge branch -> exactly the published names and shapes.

    Tensors the published files carry for an unused class token are zero. Raises CheckpointError where the model holds a
    tensor the published form has no name for.
    """
    state = model.state_dict()
    backbone = model.backbone
    grid = PRETRAINED_SIDE // backbone.stride
    published = {
        CLASS_TOKEN: backbone.template_temporal.new_zeros(1, 1, backbone.width),
        POSITIONS: backbone.template_temporal.new_zeros(1, grid * grid + 1, backbone.width),
    }
    if backbone.class_token is not None:
        published[CLASS_TOKEN] = state.pop("backbone.class_token")
        published[POSITIONS][:, :1] = state.pop("backbone.class_position")
    unknown = [name for name in state if published_name(name) is None]
    if unknown:
        raise CheckpointError(
            f"The published form has no name for {_some(unknown)}: only a plain HIPTrack (no branch, no neck, the ViT's own "
            "patch embedding) can be written so."
        )
    published.update((published_name(name), tensor) for name, tensor in state.items())
    absent = [prefix for prefix, _ in TABLE if not any(name.startswith(prefix) for name in published)]
    if absent:
        raise CheckpointError(
            f"The published form has {_some(absent)}, which this model lacks: it is of another architecture."
        )
    return {name: tensor.detach().clone() for name, tensor in published.items()}


def load_published(model, published, source):
    """Fill a whole tracker from published tensors; a branch the file cannot know keeps its values.

    Every missing, unexpected or misshapen tensor is a CheckpointError, save a branch, a neck and
    batch-norm counters. Returns the names of tensors that kept their values.
    """
    state = from_published(published)
    if model.backbone.class_token is not None and {CLASS_TOKEN, POSITIONS} <= published.keys():
        state["backbone.class_token"] = published[CLASS_TOKEN]
        state["backbone.class_position"] = published[POSITIONS][:, :1]
    return load_exact(model, state, source, may_miss=r"challenge\.|neck\.|.*num_batches_tracked$")


def load_exact(module, state, source, may_miss=None):
    """Load tensors by name; missing (save those `may_miss` fits), unexpected and misshapen ones are errors.

    Returns the names that were allowed to miss and did.
    """
    excused = require_fit(module, state, source, may_miss)
    module.load_state_dict(state, strict=False)
    return excused


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
    found = [f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names]
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
        raise CheckpointError(f"{path} is refused: it does not hold every value of {_some(hollow)}.")
    return tensors


def _read_safetensors(path):
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
    """Whether a file of `size` bytes holds each value of a tensor: no view of fewer values, nothing sparse or without memory."""
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
    known = {name for _, name in _STUBS}
    foreign = [name for name in foreign if name not in known]
    if not foreign:
        return "is damaged, or holds pickled objects besides tensors"
    return f"holds pickled objects besides tensors, which could run code when loaded: {_some(foreign)}"


def load_vit(backbone, state, source):
    """Fill a Backbone from plain ViT tensors under timm's names (ImageNet, MAE).

    The one position table is resampled for template and search; a class token is taken where the backbone has
    one. The temporal tables keep their values. A decoder or classifier head in the file is not wanted and left.
    """
    wanted = {k: v for k, v in state.items() if not re.match(r"head\.|fc_norm\.|decoder_|mask_token", k)}
    class_token, table = wanted.pop("cls_token", None), wanted.pop("pos_embed", None)
    if table is None or table.ndim != 3 or not table.numel():
        raise CheckpointError(
            f"{source} has no 'pos_embed' [1, places, width]: the weights of a plain ViT under timm's names were expected."
        )
    side = int((table.shape[1]) ** 0.5)  # with or without the class place, the grid's side
    place, grid = table[:, : table.shape[1] - side**2], table[:, table.shape[1] - side**2 :]
    wanted["template_position"] = resample_positions(grid, backbone.template_side)
    wanted["search_position"] = resample_positions(grid, backbone.search_side)
    if backbone.class_token is not None:
        if class_token is None:
            raise CheckpointError(f"{source} has no class token, which Backbone.class_token = True needs.")
        wanted["class_token"] = class_token
        wanted["class_position"] = place[:, :1] if place.shape[1] else torch.zeros_like(class_token)
    load_exact(backbone, wanted, source, may_miss=r"(template|search)_temporal$")


def resample_positions(grid, side):
    """Position table [1, n*n, C] -> [1, side*side, C], bicubic without aligned corners."""
    n = round(grid.shape[1] ** 0.5)
    square = grid.float().transpose(1, 2).unflatten(2, (n, n))
    square = F.interpolate(square, (side, side), mode="bicubic", align_corners=False)
    return square.flatten(2).transpose(1, 2)


def _some(names, most=6):
    names = list(names)
    return ", ".join(map(excerpt, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


@gin.register
class TimmWeights:
    """Initial weights: the backbone's, from timm's hub under the backbone's own model name.

    Args:
        name: a timm model name with its tag, e.g. `vit_base_patch16_224.mae`.
    """

    def __init__(self, name: str):
        self.name = name

    def describe(self):
        """What is filled from where."""
        return f"backbone <- timm {self.name}"

    def missing_paths(self):
        """A hub is no path."""
        return []

    def __call__(self, model):
        """Fill `model.backbone`; returns a line that says what was done."""
        try:
            vit = timm.create_model(self.name, pretrained=True, num_classes=0)
        except (RuntimeError, OSError, ValueError) as error:
            raise CheckpointError(f"timm could not load pretrained weights for '{self.name}': {error}.") from error
        load_vit(model.backbone, vit.state_dict(), self.name)
        return f"backbone <- timm {self.name}"


@gin.register
class BackboneWeights:
    """Initial weights: the backbone's, from a local file of a plain ViT or MAE (timm names) or of DropTrack or OSTrack.

    Args:
        path: .safetensors, .pth or .pth.tar. None starts from random weights.
    """

    def __init__(self, path: str | None):
        self.path = path

    def describe(self):
        """What is filled from where."""
        return f"backbone <- {self.path}" if self.path else "random"

    def missing_paths(self):
        """The file, where it is absent."""
        return [] if self.path is None or Path(self.path).is_file() else [self.path]

    def __call__(self, model):
        """Fill `model.backbone`; returns a line that says what was done."""
        if self.path is None:
            return "initial weights: random"
        tensors = read_tensors(self.path)
        if not any(name.startswith("backbone.") for name in tensors):
            load_vit(model.backbone, tensors, self.path)
            return f"backbone <- plain ViT {self.path}"
        published = {name: tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
        ours = from_published(published)
        state = {name.removeprefix("backbone."): tensor for name, tensor in ours.items()}
        if model.backbone.class_token is not None and {CLASS_TOKEN, POSITIONS} <= published.keys():
            state["class_token"], state["class_position"] = published[CLASS_TOKEN], published[POSITIONS][:, :1]
        load_exact(model.backbone, state, self.path, may_miss=r"(template|search)_temporal$")
        return f"backbone <- tracker {self.path} ({len(tensors) - len(published)} tensors outside its backbone left)"
