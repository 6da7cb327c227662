"""The historical prompt network of HIPTrack (Cai et al., CVPR 2024, arXiv 2311.02072).

Keys and values of remembered frames, the bank that holds them, and the readout. N = S*S places of a
frame, M places of a memory. A memory key carries one extra column, -|k|^2, and a query a constant 1, so that
(2 q.k - |k|^2) is a plain dot product.
"""

import math
from collections import defaultdict

import gin
import torch
import torch.nn.functional as F
from torch import nn

from hiptrack.boxes import cxcywh_to_xyxy
from hiptrack.errors import ConfigError
from hiptrack.models.layers import CBAM, ResidualBlock, ResNetTrunk, linear, product, tf32
from hiptrack.ranges import Count

CHUNK = 1536  # memory places read at a time on a processor: affinity and values stay in the cache
AFFINITY = 2**26  # numbers of the affinity computed at a time on a GPU: 256 MB


@gin.register(denylist=["grid_width", "stride", "search_size"])
class HistoricalPrompt(nn.Module):
    """Encodes remembered frames and reads from them the prompt of the present one.

    Args:
        grid_width: C, the backbone's width (even: half of the prompt is history, half the frame's own).
        stride: the backbone's stride; the value encoder's trunk is cut to it.
        search_size: side of the search crop in pixels.
        key_width: channels of keys and queries.
        trunk_width: channels of the first stage of the value encoder's ResNet-18 trunk.
    """

    def __init__(self, grid_width: int, stride: int, search_size: int, key_width: Count = 64, trunk_width: Count = 64):
        super().__init__()
        if grid_width % 2:
            raise ConfigError(f"The prompt is two halves of the backbone's width; {grid_width} is odd.")
        self.stride, self.search_size = stride, search_size
        self.scale = 1 / math.sqrt(key_width)
        self.key_proj = nn.Conv2d(grid_width, key_width, 3, 1, 1)
        self.key_comp = nn.Conv2d(grid_width, grid_width // 2, 3, 1, 1)
        self.value_encoder = ValueEncoder(grid_width, stride, trunk_width)
        self.fuse = ResidualBlock(grid_width, grid_width)

    def remember(self, images, grid, mask):
        """Key and value of frames.

        images: [B, 3, H, H] normalised; grid: [B, C, S, S]; mask: [B, 1, H, H] in {0, 1}.
        Returns keys [B, N, key_width + 1] and values [B, N, C/2].
        """
        key = self._project(grid)
        keys = torch.cat((key, -key.square().sum(-1, keepdim=True)), -1)
        values = self.value_encoder(images, mask, grid).flatten(2).transpose(1, 2)
        return keys, values

    def forward(self, grid, memories):
        """Search grid [B, C, S, S] with its prompt.

        memories: a list of (keys [b, M, K+1], values [b, M, C/2]), whose rows b together are the B rows; each has its
        own M.
        """
        query = 2 * self._project(grid)
        history = torch.cat(read_each(query.split([len(keys) for keys, _ in memories]), memories, self.scale))
        history = history.transpose(1, 2).reshape(len(grid), -1, *grid.shape[2:])
        prompt = torch.cat((history, self.key_comp(grid)), 1)
        return self.fuse(grid + prompt)

    def _project(self, grid):
        """[B, C, S, S] -> keys or queries [B, N, key_width], float32."""
        return self.key_proj(grid.to(self.key_proj.weight.dtype)).flatten(2).transpose(1, 2).float()

    def box_mask(self, box_cxcywh, kept=None):
        """Where the target is: [B, 1, H, H] float, 1 inside the box, 0 in the cells of eliminated tokens.

        box_cxcywh: [B, 4] normalised; corners are truncated to whole pixels, right and bottom exclusive.
        kept: [B, S*S] bool or None (all kept).
        """
        side = self.search_size
        corners = (cxcywh_to_xyxy(box_cxcywh.detach().float()) * side).trunc().clamp(0, side)
        x1, y1, x2, y2 = corners.unsqueeze(-1).unbind(1)
        pixel = torch.arange(side, device=box_cxcywh.device)
        columns, rows = (pixel >= x1) & (pixel < x2), (pixel >= y1) & (pixel < y2)
        mask = rows[:, :, None] & columns[:, None, :]
        if kept is not None:
            grid = kept.unflatten(1, (side // self.stride, -1))
            mask = mask & grid.repeat_interleave(self.stride, 1).repeat_interleave(self.stride, 2)
        return mask.unsqueeze(1).float()


class ValueEncoder(nn.Module):
    """[image, mask, backbone grid] -> the value remembered at every place."""

    def __init__(self, grid_width: int, stride: int, trunk_width: int):
        super().__init__()
        self.trunk = ResNetTrunk(stride, trunk_width)
        self.block1 = ResidualBlock(self.trunk.out_width + grid_width, grid_width // 2)
        self.attention = CBAM(grid_width // 2)
        self.block2 = ResidualBlock(grid_width // 2, grid_width // 2)

    def forward(self, images, mask, grid):
        """images [B, 3, H, H], mask [B, 1, H, H], grid [B, C, S, S] -> [B, C/2, S, S]."""
        x = self.trunk(torch.cat((images, mask.to(images.dtype)), 1))
        if x.shape[2:] != grid.shape[2:]:  # strides that are no power of two
            x = F.interpolate(x, grid.shape[2:], mode="bilinear", align_corners=False)
        r = self.block1(torch.cat((x, grid), 1))
        return self.block2(r + self.attention(r))


class MemoryBank:
    """The last `capacity` remembered frames of a target, in storage taken once; the oldest leaves first."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.frames = 0
        self._written = 0
        self._keys = self._values = None

    def write(self, keys, values):
        """Add a frame: keys [B, N, K+1], values [B, N, V]."""
        if self._keys is None:
            self._take_storage(keys, values)
        slot = self._written % self.capacity
        self._keys[:, slot], self._values[:, slot] = keys, values
        self._written += 1
        self.frames = min(self._written, self.capacity)

    def read(self):
        """(keys [B, M, K+1], values [B, M, V]) of all frames held, M = frames * N."""
        return self._keys[:, : self.frames].flatten(1, 2), self._values[:, : self.frames].flatten(1, 2)

    def state(self):
        """{name: number or tensor} of what is held, for `restore`."""
        if self._keys is None:
            return {"written": 0}
        held = {"keys": self._keys[:, : self.frames], "values": self._values[:, : self.frames]}
        return {"written": self._written, **held}

    def restore(self, written, keys, values):
        """Hold what another bank held, each frame in its slot; of its `state`, on this bank's device, None for nothing."""
        self._written, self.frames = written, min(written, self.capacity)
        if self.frames:
            self._take_storage(keys[:, 0], values[:, 0])
            self._keys[:, : self.frames], self._values[:, : self.frames] = keys, values

    def _take_storage(self, keys, values):
        self._keys = keys.new_empty(len(keys), self.capacity, *keys.shape[1:])
        self._values = values.new_empty(len(values), self.capacity, *values.shape[1:])


def read_each(queries, memories, scale):
    """The `readout` of each of several memories (keys, values), by queries of its own; returns them as a list.

    On a GPU memories of equal length are read as one batch, as many as AFFINITY allows.
    """
    if not on_gpu(queries[0]):
        return [readout(rows, *memory, scale) for rows, memory in zip(queries, memories)]
    alike = defaultdict(list)
    for number, (keys, _) in enumerate(memories):
        alike[keys.shape[1]].append(number)
    read = [None] * len(memories)
    for length, numbers in alike.items():
        most = max(1, AFFINITY // (queries[0].shape[1] * length))
        for together in (numbers[first : first + most] for first in range(0, len(numbers), most)):
            parts = zip(*((queries[number], *memories[number]) for number in together))
            rows = readout(*(part[0] if len(part) == 1 else torch.cat(part) for part in parts), scale)
            for number, own in zip(together, rows.split([len(queries[number]) for number in together])):
                read[number] = own
    return read


def readout(query, keys, values, scale):
    """Softmax attention over the memory, in float32 for the keys.

    query: [B, N, K]; keys: [B, M, K + 1], the last column added to the affinity (HistoricalPrompt.remember); values:
    [B, M, V]. Returns [B, N, V] in the values' type. Where no gradient passes, the memory is read in chunks, so that
    the [N, M] affinity is never held: no fused kernel of the CPU takes keys and values of unequal width, and that of
    GPUs is slow for few queries.
    """
    in_graph = torch.is_grad_enabled() and any(part.requires_grad for part in (query, keys, values))
    with torch.autocast(query.device.type, enabled=False):
        query, keys = query.float(), keys.float()
        if not in_graph and on_gpu(query):
            places = max(1, AFFINITY // query.shape[:2].numel())
            return _read_in_chunks(query, keys, values, scale, places).to(values.dtype)
        if not in_graph:
            rows = [_read_in_chunks(*row, scale, CHUNK) for row in zip(query, keys, values)]
            return torch.stack(rows).to(values.dtype)
        query = torch.cat((query, torch.ones_like(query[..., :1])), -1)
        if on_gpu(query):  # the memory-efficient kernel wants aligned rows
            query, keys = (F.pad(rows, (0, -rows.shape[-1] % 8)) for rows in (query, keys))
        # the ONNX exporter and the fused kernels ask for four dimensions: one head
        parts = [part.unsqueeze(1) for part in (query, keys, values.float())]
        return F.scaled_dot_product_attention(*parts, scale=scale).squeeze(1).to(values.dtype)


def on_gpu(tensor):
    """Whether a tensor is not on the CPU."""
    return tensor.device.type != "cpu"


def _read_in_chunks(query, keys, values, scale, places):
    """`readout` of a row or a batch: a softmax for each chunk of so many places, and their running mean by mass.

    After Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018). The mass of a chunk is the sum of
    the exponentials of its affinities; the largest weight of its softmax is exp(largest affinity) / mass.
    """
    query = query * scale
    output = log_mass = None
    for key, value in zip(keys.split(places, -2), values.split(places, -2)):
        affinity = _affinity(query, key[..., :-1], key[..., -1] * scale)
        weight = affinity.softmax(-1)
        read = product(weight.to(value.dtype), value).float()
        log_chunk = affinity.amax(-1, keepdim=True) - weight.amax(-1, keepdim=True).log()
        if output is None:
            output, log_mass = read, log_chunk
        else:
            output = output.lerp_(read, (log_chunk - log_mass).sigmoid())
            log_mass = torch.logaddexp(log_mass, log_chunk)
    return output


def _affinity(query, key, bias):
    """query [N, K], key [M, K], bias [M] -> query key^T + bias [N, M]; or of batches of them.

    Never in TF32: two large numbers cancel.
    """
    if query.dim() == 2:
        return linear(query, key, bias)
    with tf32(False, query.device):
        return torch.baddbmm(bias.unsqueeze(-2), query, key.mT)
