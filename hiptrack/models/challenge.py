"""The challenge branch: names what makes a frame hard, and tells the box head.

After SimTrack's classification branch (see docs/model.md): global feature -> projection -> classifier and fusion.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import gin
import torch
from torch import nn

from hiptrack.models.fusion import ResidualFusion


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
        classes, hidden_width, fusion_width, dropout: sizes of the branch and the rate of its dropout.
        feature: the mean over the kept search tokens, or the backbone's class token.
        fusion: form of the fusion (hiptrack/models/fusion.py), called with (fusion_width, grid_width); None trains the branch
            without telling the head.
        momentum: step of the running mean of what a foldable fusion adds to the grid.
        activation: "softmax" where a frame has one class, "sigmoid" where it may have several at once.
    """

    def __init__(
        self,
        feature_width: int,
        grid_width: int,
        classes: int = 10,
        hidden_width: int = 512,
        fusion_width: int = 256,
        dropout: float = 0.1,
        feature: Literal["mean", "class_token"] = "mean",
        fusion: Callable | None = ResidualFusion,
        momentum: float = 0.01,
        activation: Literal["softmax", "sigmoid"] = "softmax",
    ):
        super().__init__()
        self.feature, self.activation = feature, activation
        self.momentum = momentum
        self.projection = nn.Sequential(nn.Linear(feature_width, hidden_width), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = nn.Linear(hidden_width, classes)
        self.fusion = self.to_grid = None
        if fusion is not None:
            self.fusion = nn.Linear(hidden_width, fusion_width)
            self.to_grid = fusion(fusion_width=fusion_width, grid_width=grid_width)
        if fusion is not None and self.to_grid.foldable:
            self.register_buffer("mean_added", torch.zeros(grid_width))
            self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def forward(self, features):
        """backbone.Features of B rows -> ChallengeOutput."""
        if self.feature == "class_token":
            pooled = features.class_token
        else:  # eliminated places are zero: their number must not count
            pooled = features.search.sum(1) / features.kept.sum(1, keepdim=True)
        hidden = self.projection(pooled)
        fusion = None if self.fusion is None else self.fusion(hidden)
        logits = self.classifier(hidden)
        probabilities = logits.float().softmax(-1) if self.activation == "softmax" else logits.float().sigmoid()
        return ChallengeOutput(logits, probabilities, hidden, fusion)

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
