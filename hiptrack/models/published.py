"""Published checkpoints and plain ViT weights -> ours, and back, by an explicit table of names."""

import re

import torch
import torch.nn.functional as F

from hiptrack.errors import CheckpointError
from hiptrack.models.weights import load_exact, some_of

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


# What trainers put before the names of all tensors (DataParallel, Lightning, a network in a module of its own), and what
# stands before those of a part that torch.compile, FSDP or checkpointing wraps.
PREFIXES = ("module.", "model.", "net.", "network.", "tracker.", "student.", "ema.")
WRAPPED = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def without_prefix(tensors):
    """({name: tensor} as the model itself names them, what was left out of the names in words; "" for nothing)."""
    names = {name: WRAPPED.sub("", name) for name in tensors}
    left_out = dict.fromkeys(found for name in tensors for found in WRAPPED.findall(name))
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in names.values())), None):
        names = {old: name.removeprefix(prefix) for old, name in names.items()}
        left_out[prefix] = None
    if len(set(names.values())) < len(names):  # two tensors would have one name
        return tensors, ""
    return {names[old]: tensor for old, tensor in tensors.items()}, ", ".join(map(repr, left_out))


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
            f"{len(unknown)} tensors have no place in a published HIPTrack: {some_of(unknown)}. A HIPTrack or DropTrack "
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
            f"The published form has no name for {some_of(unknown)}: only a plain HIPTrack (no branch, no neck, the ViT's own "
            "patch embedding) can be written so."
        )
    published.update((published_name(name), tensor) for name, tensor in state.items())
    absent = [prefix for prefix, _ in TABLE if not any(name.startswith(prefix) for name in published)]
    if absent:
        raise CheckpointError(
            f"The published form has {some_of(absent)}, which this model lacks: it is of another architecture."
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
