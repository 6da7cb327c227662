"""Joint template-and-search vision transformer with candidate elimination.

Ye et al., "Joint Feature Learning and Relation Modeling for Tracking" (OSTrack), ECCV 2022; as used by
HIPTrack (arXiv 2311.02072). Shapes: B rows, C width, T and S the template and search grid sides.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import gin
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from hiptrack.errors import ConfigError, did_you_mean
from hiptrack.ranges import Count, Index, ShareAboveZero, ShareBelowOne


@dataclass
class Features:
    """What the backbone says of template-search pairs.

    template: [B, T*T, C]; search: [B, S*S, C] with zeros where a token was eliminated;
    kept: [B, S*S] bool; class_token: [B, C] or None;
    removed: for each elimination block, the grid indices [B, n] it removed.
    """

    template: torch.Tensor
    search: torch.Tensor
    kept: torch.Tensor
    class_token: torch.Tensor | None
    removed: tuple[torch.Tensor, ...]

    def rows(self, rows):
        """The features of some rows (an index or a slice of the batch)."""
        return Features(
            self.template[rows],
            self.search[rows],
            self.kept[rows],
            None if self.class_token is None else self.class_token[rows],
            tuple(removed[rows] for removed in self.removed),
        )


class PatchConv(nn.Module):
    """The plain ViT patch embedding: one convolution, kernel = stride = patch."""

    def __init__(self, width: int, patch: int, bias: bool = True):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch, bias=bias)

    def forward(self, images):
        """[B, 3, H, W] -> tokens [B, (H/patch)*(W/patch), C]."""
        return self.proj(images).flatten(2).transpose(1, 2)


@gin.register(denylist=["width", "patch", "bias"])
class ConvStem(nn.Module):
    """Strided 3x3 convolutions in place of the patch embedding (Xiao et al., NeurIPS 2021)."""

    def __init__(self, width: int, patch: int, bias: bool = True):
        super().__init__()
        halvings = patch.bit_length() - 1
        if 2**halvings != patch or halvings < 1:
            raise ConfigError(f"ConvStem halves the image step by step: patch must be a power of two, not {patch}.")
        widths = [3] + [max(width >> (halvings - 1 - i), 16) for i in range(halvings)]
        layers = []
        for n_in, n_out in itertools.pairwise(widths):
            layers += [nn.Conv2d(n_in, n_out, 3, 2, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
        self.convs = nn.Sequential(*layers)
        self.proj = nn.Conv2d(widths[-1], width, 1, bias=bias)

    def forward(self, images):
        """[B, 3, H, W] -> tokens [B, (H/patch)*(W/patch), C]."""
        return self.proj(self.convs(images)).flatten(2).transpose(1, 2)


@gin.register
class Backbone(nn.Module):
    """Joint template-search ViT with candidate elimination, from any timm ViT with learned positions.

    Args:
        name: timm model name, e.g. `vit_base_patch16_224`.
        template_size, search_size: crop sides in pixels; multiples of the patch.
        width, depth, heads, patch: replace the timm model's own numbers (None keeps them).
        patch_embed: called with (width, patch, bias); None is the plain convolution.
        class_token: put the class token ahead of the sequence (needed where the branch reads it).
        elimination_blocks: indices of the blocks that eliminate search tokens.
        keep_ratio: share of search tokens each of these blocks keeps.
        elimination_template: which template tokens vote: the centre point, the centre rectangle, all, or
            those under the template box.
        drop_path: stochastic depth rate of the last block (linear from 0).

    Raises ConfigError for a model that is no plain ViT with learned absolute positions, or a crop side
    that is no multiple of the patch.
    """

    def __init__(
        self,
        name: str = "vit_base_patch16_224",
        template_size: Count = 192,
        search_size: Count = 384,
        width: Count | None = None,
        depth: Count | None = None,
        heads: Count | None = None,
        patch: Count | None = None,
        patch_embed: Callable | None = None,
        class_token: bool = False,
        elimination_blocks: tuple[Index, ...] = (3, 6, 9),
        keep_ratio: ShareAboveZero = 0.7,
        elimination_template: Literal["centre_point", "centre_rectangle", "all", "box"] = "centre_point",
        drop_path: ShareBelowOne = 0.0,
    ):
        from timm.layers import trunc_normal_  # PyTorch's draws other numbers

        super().__init__()
        overrides = {"embed_dim": width, "depth": depth, "num_heads": heads, "patch_size": patch}
        vit = create_vit(name, drop_path, {key: value for key, value in overrides.items() if value is not None})
        self.width = vit.embed_dim
        self.stride = vit.patch_embed.patch_size[0]
        self.template_size, self.search_size = template_size, search_size
        for what, side in (("template_size", template_size), ("search_size", search_size)):
            if side % self.stride:
                raise ConfigError(f"Backbone.{what} = {side} is no multiple of the patch of {name}, {self.stride} px.")
        if not all(index < len(vit.blocks) for index in elimination_blocks):
            raise ConfigError(
                f"Backbone.elimination_blocks = {tuple(elimination_blocks)}: {name} has blocks 0 to {len(vit.blocks) - 1}."
            )
        self.template_side, self.search_side = template_size // self.stride, search_size // self.stride
        self.elimination_blocks = tuple(elimination_blocks)
        self.keep_ratio = keep_ratio
        self.elimination_template = elimination_template
        self.checkpointing = False  # see `run`; training decides

        bias = vit.patch_embed.proj.bias is not None
        self.patch_embed = (patch_embed or PatchConv)(width=self.width, patch=self.stride, bias=bias)
        self.template_position = nn.Parameter(torch.empty(1, self.template_side**2, self.width))
        self.search_position = nn.Parameter(torch.empty(1, self.search_side**2, self.width))
        self.template_temporal = nn.Parameter(torch.empty(1, 1, self.width))
        self.search_temporal = nn.Parameter(torch.empty(1, 1, self.width))
        tables = [self.template_position, self.search_position, self.template_temporal, self.search_temporal]
        if class_token:
            self.class_token = nn.Parameter(torch.empty(1, 1, self.width))
            self.class_position = nn.Parameter(torch.empty(1, 1, self.width))
            tables += [self.class_token, self.class_position]
        else:
            self.class_token = None
        for table in tables:
            trunc_normal_(table, std=0.02)
        self.norm_pre = vit.norm_pre
        self.blocks = vit.blocks
        self.norm = vit.norm

    def embed_template(self, template):
        """[B, 3, Ht, Wt] normalised images -> tokens [B, T*T, C], the same for every search frame."""
        return self.patch_embed(template) + self.template_position + self.template_temporal

    def voters(self, template_box_xywh):
        """Template tokens whose attention scores the search tokens.

        template_box_xywh: [B, 4] normalised by the crop side; read only for the choice "box".
        Returns (index [M], weight [B or 1, M]); weights of a row sum to 1.
        """
        side = self.template_side
        device = self.search_position.device
        low, high = (side - 1) // 2, side // 2 + 1
        place = torch.arange(side * side, device=device).view(side, side)
        if self.elimination_template == "box":
            cells = (torch.arange(side, device=device) + 0.5) / side
            x, y, w, h = template_box_xywh.unsqueeze(-1).unbind(1)
            columns = (cells >= x) & (cells < x + w)
            rows = (cells >= y) & (cells < y + h)
            weight = (rows[:, :, None] & columns[:, None, :]).flatten(1).float()
            # A box smaller than a cell may cover no cell's centre: the centre point stands in.
            weight[:, low * side + low] += (weight.sum(1) == 0).float()
            return place.flatten(), weight / weight.sum(1, keepdim=True)
        if self.elimination_template == "centre_point":
            index = place[low : low + 1, low : low + 1]
        elif self.elimination_template == "centre_rectangle":
            index = place[low:high, low:high]
        else:
            index = place
        index = index.flatten()
        return index, torch.full((1, len(index)), 1.0 / len(index), device=device)

    def forward(self, template_tokens, search, template_box_xywh=None, keep_ratio=None):
        """Joint pass of B templates with B*F search crops (the F frames of a template stand together).

        template_tokens: [B, T*T, C] from `embed_template`; search: [B*F, 3, Hs, Ws] normalised images;
        template_box_xywh: [B, 4] normalised, read only where the box chooses the voters;
        keep_ratio: replaces the configured one (the training schedule does). Returns Features of B*F rows.
        """
        frames = len(search) // len(template_tokens)
        keep_ratio = self.keep_ratio if keep_ratio is None else keep_ratio
        n_template, n_search = template_tokens.shape[1], self.search_side**2
        search_tokens = self.patch_embed(search) + self.search_position + self.search_temporal
        parts = [template_tokens.repeat_interleave(frames, 0), search_tokens]
        if self.class_token is not None:
            parts.insert(0, (self.class_token + self.class_position).expand(len(search), -1, -1))
        x = self.norm_pre(torch.cat(parts, 1))
        first = x.shape[1] - n_search  # where the search tokens begin

        voters = None
        if self.elimination_blocks and keep_ratio < 1:
            index, weight = self.voters(template_box_xywh)
            weight = weight if len(weight) == 1 else weight.repeat_interleave(frames, 0)
            voters = index + first - n_template, weight
        place = torch.arange(n_search, device=x.device).expand(len(x), -1)
        removed = []
        for number, block in enumerate(self.blocks):
            if voters is None or number not in self.elimination_blocks:
                x = self.run(block, x)
                continue
            x, score = self.run(attention_half, block, x, *voters, first)
            x, place, gone = eliminate(x, place, score, keep_ratio)  # decided once, never anew
            removed.append(gone)
            x = self.run(mlp_half, block, x)
        x = self.norm(x)

        grid = x.new_zeros(len(x), n_search, self.width).index_put((row_numbers(x), place), x[:, first:])
        kept = torch.zeros(len(x), n_search, dtype=torch.bool, device=x.device).scatter(1, place, True)
        class_token = None if self.class_token is None else x[:, 0]
        return Features(x[:, first - n_template : first], grid, kept, class_token, tuple(removed))

    def run(self, part, *inputs):
        """A part of a block on its inputs.

        With `checkpointing`, only the inputs are kept for the backward pass, and the part is run again there, with the same
        random numbers (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016).
        """
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(part, *inputs, use_reentrant=False)
        return part(*inputs)


def create_vit(name, drop_path, overrides):
    """A timm VisionTransformer without head. Raises ConfigError naming the nearest model."""
    import timm  # here, for it takes as long to import as PyTorch: a mistyped name is told before
    from timm.layers import Attention, PatchEmbed
    from timm.models.vision_transformer import Block, VisionTransformer

    if not timm.is_model(name):
        raise ConfigError(f"timm has no model '{name}'.{did_you_mean(name, timm.list_models('*vit*'))}")
    try:
        vit = timm.create_model(name, num_classes=0, global_pool="", drop_path_rate=drop_path, **overrides)
    except (TypeError, AssertionError) as error:
        raise ConfigError(f"timm cannot build '{name}' as a backbone: {error}.") from error
    reason = None
    if type(vit) is not VisionTransformer or any(type(block) is not Block for block in vit.blocks):
        reason = "is no plain VisionTransformer"
    elif type(vit.patch_embed) is not PatchEmbed:
        reason = "makes its patches with another network"
    elif any(
        type(block.attn) is not Attention or getattr(block.attn, "gate", None) is not None for block in vit.blocks
    ):
        reason = "has an attention of its own kind"
    elif vit.pos_embed is None:
        reason = "has no learned absolute positions"
    elif vit.num_reg_tokens:
        reason = "has register tokens"
    if reason:
        raise ConfigError(
            f"timm model '{name}' {reason}; the backbone takes plain ViTs with learned absolute positions, "
            "for example vit_tiny_patch16_224, vit_base_patch16_224 or vit_large_patch16_224."
        )
    return vit


def attention_half(block, x, index, weight, first):
    """The first half of timm's block on x [B, N, C] -> ([B, N, C], scores [B, N - first] of `attend_and_score`)."""
    attended, score = attend_and_score(block.attn, block.norm1(x), index, weight, first)
    return x + block.drop_path1(block.ls1(attended)), score


def mlp_half(block, x):
    """The second half of timm's block: [B, N, C] -> [B, N, C]."""
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


def attend_and_score(attention, x, index, weight, first):
    """timm's attention, and how much the voters attend to every search token.

    x: [B, N, C]; index: [M] positions of the voters in the sequence; weight: [B or 1, M]; search tokens
    begin at `first`. Only the voters' rows of the attention matrix are ever made.
    Returns (output [B, N, C], scores [B, N - first]).
    """
    rows, n_tokens, _ = x.shape
    qkv = attention.qkv(x).reshape(rows, n_tokens, 3, attention.num_heads, attention.head_dim)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    query, key = attention.q_norm(query), attention.k_norm(key)
    if attention.fused_attn:
        dropout = attention.attn_drop.p if attention.training else 0.0
        output = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    else:
        matrix = ((query * attention.scale) @ key.transpose(-2, -1)).softmax(-1)
        output = attention.attn_drop(matrix) @ value
    output = attention.norm(output.transpose(1, 2).reshape(rows, n_tokens, -1))
    output = attention.proj_drop(attention.proj(output))

    with torch.no_grad():  # the order of scores has no gradient
        votes = (query[:, :, index] * attention.scale) @ key.transpose(-2, -1)  # [B, heads, M, N]
        votes = votes.float().softmax(-1)[..., first:].mean(1)
        score = (votes * weight.unsqueeze(-1)).sum(1)
    return output, score


def row_numbers(x):
    """[B, 1]: with places [B, n] it indexes whole tokens of x [B, N, C].

    `gather` and `scatter` would index each of a token's numbers; deterministic kernels on GPUs sort all these indices.
    """
    return torch.arange(len(x), device=x.device).unsqueeze(1)


def eliminate(x, place, score, keep_ratio):
    """Keep the ceil(keep_ratio * n) best of the n search tokens that end the sequence, best first.

    x: [B, N, C]; place, score: [B, n]. Returns (x, place, grid indices removed [B, n - kept]).
    """
    count = place.shape[1]
    keep = math.ceil(keep_ratio * count)
    order = score.argsort(dim=1, descending=True, stable=True)
    first = x.shape[1] - count
    x = torch.cat((x[:, :first], x[:, first:][row_numbers(x), order[:, :keep]]), 1)
    return x, place.gather(1, order[:, :keep]), place.gather(1, order[:, keep:])
