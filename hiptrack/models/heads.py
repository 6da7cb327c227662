"""Box heads: from the fused search grid to one box per frame."""

import math
from dataclasses import dataclass

import gin
import torch
from torch import nn

from hiptrack.ranges import Count

PRIOR = 0.1  # score of an untrained head: few places are targets (Lin et al., ICCV 2017)


@dataclass
class HeadMaps:
    """The head's maps: score_logits [B, S, S]; offset, size [B, 2, S, S] (x or w first), float32."""

    score_logits: torch.Tensor
    offset: torch.Tensor
    size: torch.Tensor

    @property
    def score(self):
        """Score map [B, S, S] in [1e-4, 1 - 1e-4]."""
        return clamped_sigmoid(self.score_logits)

    def box_at_peak(self, score=None):
        """Box cxcywh [B, 4], normalised by the crop side, at the argmax of `score` (default: the raw score map)."""
        side = self.offset.shape[-1]
        score = self.score if score is None else score
        peak = score.flatten(1).argmax(1)
        column, row = peak % side, peak // side
        at_peak = peak.view(-1, 1, 1).expand(-1, 2, 1)
        offset = self.offset.flatten(2).gather(2, at_peak).squeeze(2)
        size = self.size.flatten(2).gather(2, at_peak).squeeze(2)
        centre = (torch.stack((column, row), 1) + offset) / side
        return torch.cat((centre, size), 1)


def clamped_sigmoid(x):
    """Sigmoid within [1e-4, 1 - 1e-4], in float32: both bounds vanish in half precision."""
    return x.float().sigmoid().clamp(1e-4, 1 - 1e-4)


class ConvTower(nn.Module):
    """conv3x3-BN-ReLU layers and a 1x1 convolution."""

    def __init__(self, in_width: int, widths: list[int], out_width: int):
        super().__init__()
        layers = []
        for width in widths:
            layers.append(nn.Sequential(nn.Conv2d(in_width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()))
            in_width = width
        self.layers = nn.Sequential(*layers)
        self.out = nn.Conv2d(in_width, out_width, 1)

    def forward(self, x):
        """[B, in, S, S] -> [B, out, S, S]."""
        return self.out(self.layers(x).to(self.out.weight.dtype))


@gin.register(denylist=["in_width"])
class CenterHead(nn.Module):
    """Centre head of OSTrack (after CenterNet, Zhou et al. 2019): a score, an offset and a size map.

    Args:
        in_width: channels of the grid it reads.
        widths: channels of the four layers of each tower.
    """

    def __init__(self, in_width: int, widths: tuple[Count, ...] = (256, 128, 64, 32)):
        super().__init__()
        self.score = ConvTower(in_width, list(widths), 1)
        self.offset = ConvTower(in_width, list(widths), 2)
        self.size = ConvTower(in_width, list(widths), 2)
        nn.init.constant_(self.score.out.bias, math.log(PRIOR / (1 - PRIOR)))

    def forward(self, grid):
        """[B, in_width, S, S] -> HeadMaps."""
        size = clamped_sigmoid(self.size(grid))
        return HeadMaps(self.score(grid).squeeze(1).float(), self.offset(grid).float(), size)
