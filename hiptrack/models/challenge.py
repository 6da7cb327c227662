"""The challenge branch: names what makes a frame hard, and tells the box head.

After SimTrack's classification branch (see docs/model.md): global feature -> projection -> classifier and fusion.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import gin
import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import nn

from hiptrack.errors import ConfigError
from hiptrack.ranges import Count, Share, ShareBelowOne
from hiptrack.taxonomy import TEN, Taxonomy


def zero_linear(in_width, out_width):
    """A linear layer that gives 0 until it is trained."""
    layer = nn.Linear(in_width, out_width)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


@gin.register(denylist=["fusion_width", "grid_width"])
class ResidualFusion(nn.Module):
    """Adds the fusion vector to every place through a zero-initialised projection to the grid's width.

    Untrained, it changes nothing, so a trained tracker keeps its output.
    """

    foldable = True

    def __init__(self, fusion_width: int, grid_width: int):
        super().__init__()
        self.project = zero_linear(fusion_width, grid_width)

    def forward(self, grid, fusion):
        """grid [B, W, S, S], fusion [B, fusion_width] -> [B, W, 1, 1]."""
        return self.project(fusion)[:, :, None, None]


@gin.register(denylist=["fusion_width", "grid_width"])
class DirectFusion(nn.Module):
    """Adds the fusion vector itself (SimTrack's form): the grid ahead of the box head must be as wide as it.

    Raises ConfigError where it is not.
    """

    foldable = True

    def __init__(self, fusion_width: int, grid_width: int):
        super().__init__()
        if fusion_width != grid_width:
            raise ConfigError(
                f"DirectFusion adds a vector of width {fusion_width} to a grid of width {grid_width}: set "
                f"HIPTrack.neck_width = {fusion_width}, or use ResidualFusion."
            )

    def forward(self, grid, fusion):
        """grid [B, W, S, S], fusion [B, W] -> [B, W, 1, 1]."""
        return fusion[:, :, None, None]


@gin.register(denylist=["fusion_width", "grid_width"])
class GatedFusion(nn.Module):
    """Scales the grid's channels by a sigmoid gate computed from the fusion vector.

    The excitation of Squeeze-and-Excitation (Hu et al., CVPR 2018, section 3.2), with the class features in the place
    of the pooled grid, and twice as large: the gate lies in (0, 2), and is 1 until it is trained, so that a trained
    tracker keeps its output. What it adds, grid * (gate - 1), differs from place to place as the grid does.
    """

    foldable = False

    def __init__(self, fusion_width: int, grid_width: int):
        super().__init__()
        self.project = zero_linear(fusion_width, grid_width)

    def forward(self, grid, fusion):
        """grid [B, W, S, S], fusion [B, fusion_width] -> [B, W, S, S]."""
        gate_minus_1 = (self.project(fusion) / 2).tanh()  # 2 sigmoid(x) - 1, precise near 0 in half precision too
        return grid * gate_minus_1[:, :, None, None]


@gin.register(denylist=["fusion_width", "grid_width"])
class AttentionFusion(nn.Module):
    """Every place of the grid reads what it needs of the fusion vector, by cross-attention.

    The places are the queries, and tokens made of the fusion vector are keys and values (Vaswani et al., NeurIPS 2017,
    section 3.2.3). One vector becomes several tokens by a linear layer and LayerNorm, as IP-Adapter does with the
    global embedding of an image (Ye et al. 2023, arXiv 2308.06721, section 3.2). The output projection is zero at
    first, so that a trained tracker keeps its output.

    Args:
        fusion_width: width of fusion vector, tokens, queries and keys.
        grid_width: W, width of the grid.
        tokens: number of tokens; of one every place would read the same.
        heads: attention heads; a divisor of fusion_width.

    Raises ConfigError for other heads.
    """

    foldable = False

    def __init__(self, fusion_width: int, grid_width: int, tokens: Annotated[int, Ge(2)] = 4, heads: Count = 8):
        super().__init__()
        if fusion_width % heads:
            raise ConfigError(
                f"AttentionFusion.heads = {heads} does not divide ChallengeBranch.fusion_width = {fusion_width}."
            )
        self.heads = heads
        self.to_tokens = nn.Sequential(
            nn.Linear(fusion_width, tokens * fusion_width),
            nn.Unflatten(1, (tokens, fusion_width)),
            nn.LayerNorm(fusion_width),
        )
        self.query = nn.Sequential(nn.LayerNorm(grid_width), nn.Linear(grid_width, fusion_width))
        self.key_value = nn.Linear(fusion_width, 2 * fusion_width)
        self.project = zero_linear(fusion_width, grid_width)

    def forward(self, grid, fusion):
        """grid [B, W, S, S], fusion [B, fusion_width] -> [B, W, S, S]."""
        query = self._split(self.query(grid.flatten(2).transpose(1, 2)))
        key, value = map(self._split, self.key_value(self.to_tokens(fusion)).chunk(2, -1))
        read = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.project(read).transpose(1, 2).reshape(grid.shape)

    def _split(self, tokens):
        """[B, N, width] -> [B, heads, N, width / heads]."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


def mean_of_kept(features):
    """The mean of the kept search tokens, [B, C]. Eliminated ones are zero: their number must not count."""
    return features.search.sum(1) / features.kept.sum(1, keepdim=True)


def max_of_kept(features):
    """The largest value of each channel among the kept search tokens, [B, C], negative where all of them are."""
    return features.search.masked_fill(~features.kept[:, :, None], -torch.inf).amax(1)


def taxonomy_of(model) -> Taxonomy:
    """The classes of a HIPTrack's branch; the ten where it has none."""
    return TEN if model.challenge is None else model.challenge.taxonomy


@dataclass
class ChallengeOutput:
    """logits and probabilities [B, classes]; hidden [B, hidden]; fusion [B, fusion_width] or None without fusion."""

    logits: torch.Tensor
    probabilities: torch.Tensor
    hidden: torch.Tensor
    fusion: torch.Tensor | None


@gin.register(denylist=["feature_width", "grid_width"])
class ChallengeBranch(nn.Module):
    """Classifies the challenge of a frame from a global feature and fuses it into the tracker.

    Args:
        feature_width: C, the backbone's width.
        grid_width: width of the grid ahead of the box head.
        taxonomy: the classes; None: the ten of a Taxonomy as it is. It goes into the weights file.
        hidden_width, fusion_width, dropout: sizes of the branch and the rate of its dropout.
        feature: of the kept search tokens the mean, the largest value of each channel, or both side by side (2C wide);
            or the backbone's class token.
        fusion: form of the fusion (hiptrack/models/challenge.py), called with (fusion_width, grid_width); None trains
            the branch without telling the head.
        momentum: step of the running mean of what a foldable fusion adds to the grid.
        activation: "softmax" where a frame has one class, "sigmoid" where it may have several at once.
    """

    def __init__(
        self,
        feature_width: int,
        grid_width: int,
        taxonomy: Taxonomy | None = None,
        hidden_width: Count = 512,
        fusion_width: Count = 256,
        dropout: ShareBelowOne = 0.1,
        feature: Literal["mean", "max", "mean_max", "class_token"] = "mean",
        fusion: Callable | None = ResidualFusion,
        momentum: Share = 0.01,
        activation: Literal["softmax", "sigmoid"] = "softmax",
    ):
        super().__init__()
        self.taxonomy = taxonomy or TEN
        self.feature, self.activation = feature, activation
        self.momentum = momentum
        pooled_width = 2 * feature_width if feature == "mean_max" else feature_width
        self.projection = nn.Sequential(nn.Linear(pooled_width, hidden_width), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = nn.Linear(hidden_width, len(self.taxonomy.classes))
        self.fusion = self.to_grid = None
        if fusion is not None:
            self.fusion = nn.Linear(hidden_width, fusion_width)
            self.to_grid = fusion(fusion_width=fusion_width, grid_width=grid_width)
        if fusion is not None and self.to_grid.foldable:
            self.register_buffer("mean_added", torch.zeros(grid_width))
            self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the outputs, in their order."""
        return self.taxonomy.classes

    def forward(self, features):
        """backbone.Features of B rows -> ChallengeOutput."""
        hidden = self.projection(self.pool(features))
        fusion = None if self.fusion is None else self.fusion(hidden)
        logits = self.classifier(hidden)
        probabilities = logits.float().softmax(-1) if self.activation == "softmax" else logits.float().sigmoid()
        return ChallengeOutput(logits, probabilities, hidden, fusion)

    def pool(self, features):
        """backbone.Features of B rows -> the global feature [B, C], of "mean_max" [B, 2C]."""
        match self.feature:
            case "mean":
                return mean_of_kept(features)
            case "max":
                return max_of_kept(features)
            case "mean_max":
                return torch.cat((mean_of_kept(features), max_of_kept(features)), 1)
            case "class_token":
                return features.class_token

    def fuse(self, grid, output):
        """Grid [B, W, S, S] with the fusion added; in training the running mean of what a foldable one adds is kept."""
        if output.fusion is None:
            return grid
        added = self.to_grid(grid, output.fusion)
        if self.training and self.to_grid.foldable:
            with torch.no_grad():
                self.updates += 1
                step = (1 / self.updates).clamp(min=self.momentum)  # a plain mean at first
                self.mean_added += step * (added.float().mean((0, 2, 3)) - self.mean_added)
        return grid + added
