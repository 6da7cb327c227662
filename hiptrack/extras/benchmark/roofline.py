"""What a computation costs at least on this machine: its matrix work, each shape at the rate it has alone.

After the roofline model (Williams, Waterman, Patterson, CACM 2009) with measured ceilings: the estimate is the sum over
all products, convolutions and attentions of their FLOPs / measured rate of that shape, in the same precision and on the
same threads.
"""

import math
from collections import Counter
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hiptrack.extras.benchmark.measure import interleaved
from hiptrack.models import layers

aten = torch.ops.aten
CONV2D_DEFAULTS = None, (1, 1), (0, 0)  # bias, stride, padding: a dispatched call lacks the last ones that are these


@dataclass(frozen=True)
class Product:
    """A product [N, K] x [K, M], `batch` of them at once."""

    batch: int
    rows: int
    inner: int
    columns: int
    dtype: torch.dtype

    @property
    def flops(self):
        """Twice the multiply-adds."""
        return 2 * self.batch * self.rows * self.inner * self.columns

    def calls(self, device):
        """{name: a call that does it}; "plain" is PyTorch's own for it."""
        if self.batch > 1:
            a = torch.randn(self.batch, self.rows, self.inner, dtype=self.dtype, device=device)
            b = torch.randn(self.batch, self.inner, self.columns, dtype=self.dtype, device=device)
            return {"plain": lambda: a @ b}
        a = torch.randn(self.rows, self.inner, dtype=self.dtype, device=device)
        weight = torch.randn(self.columns, self.inner, dtype=self.dtype, device=device)
        b = weight.t().contiguous()
        return {
            "plain": lambda: F.linear(a, weight),
            "linear": lambda: layers.linear(a, weight),
            "product": lambda: layers.product(a, b),
        }

    def __str__(self):
        times = f"{self.batch} x " if self.batch > 1 else ""
        return f"product {times}[{self.rows}, {self.inner}] [{self.inner}, {self.columns}]"


@dataclass(frozen=True)
class Convolution:
    """A 2D convolution of `image` [B, C, H, W] with `kernel` [out, in, h, w]."""

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dtype: torch.dtype

    @property
    def flops(self):
        """Twice the multiply-adds, padding included."""
        sides = zip(self.image[2:], self.kernel[2:], self.stride, self.padding, strict=True)
        places = math.prod((side + 2 * padding - kernel) // stride + 1 for side, kernel, stride, padding in sides)
        return 2 * self.image[0] * places * math.prod(self.kernel)

    def calls(self, device):
        image = torch.randn(self.image, dtype=self.dtype, device=device)
        kernel = torch.randn(self.kernel, dtype=self.dtype, device=device)
        last = [part.to(memory_format=torch.channels_last) for part in (image, kernel)]
        return {
            "plain": lambda: F.conv2d(image, kernel, None, self.stride, self.padding),
            "channels last": lambda: F.conv2d(*last, None, self.stride, self.padding),
        }

    def __str__(self):
        return f"convolution {list(self.image)} by {list(self.kernel)}, stride {self.stride[0]}"


@dataclass(frozen=True)
class Attention:
    """Scaled dot-product attention of `query` [B, heads, N, K] over `key` [B, heads, M, K] and values [..., M, V]."""

    query: tuple[int, ...]
    key: tuple[int, ...]
    value: tuple[int, ...]
    dtype: torch.dtype

    @property
    def flops(self):
        pairs = math.prod(self.query[:-1]) * self.key[-2]
        return 2 * pairs * (self.key[-1] + self.value[-1])

    def calls(self, device):
        parts = [torch.randn(size, dtype=self.dtype, device=device) for size in (self.query, self.key, self.value)]
        return {"plain": lambda: F.scaled_dot_product_attention(*parts)}

    def __str__(self):
        return f"attention {list(self.query)} over {list(self.key)}, {list(self.value)}"


class Recorder(TorchDispatchMode):
    """Counts the matrix work done inside it, under torch.inference_mode: `work` is a Counter of the classes above."""

    def __init__(self):
        super().__init__()
        self.work = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        found = self._work_of(function, args)
        if found is not None:
            self.work[found] += 1
        return function(*args, **kwargs)

    def _work_of(self, function, args):
        if function is aten.linear.default:
            x, weight = args[:2]
            return Product(1, x.numel() // x.shape[-1], x.shape[-1], weight.shape[0], x.dtype)
        if function in (aten.matmul.default, aten.baddbmm.default):
            a, b = args[-2:]
            return Product(math.prod(a.shape[:-2]), a.shape[-2], a.shape[-1], b.shape[-1], a.dtype)
        if function is aten.conv2d.default:
            image, kernel, _, stride, padding = (*args, *CONV2D_DEFAULTS[len(args) - 2 :])[:5]
            if image.shape[0] == image.shape[2] == 1 and kernel.shape[2:] == (1, 1):  # hiptrack/models/layers.py
                return Product(1, image.shape[3], image.shape[1], kernel.shape[0], image.dtype)
            return Convolution(tuple(image.shape), tuple(kernel.shape), tuple(stride), tuple(padding), image.dtype)
        if function is aten.scaled_dot_product_attention.default:
            query, key, value = args[:3]
            return Attention(tuple(query.shape), tuple(key.shape), tuple(value.shape), query.dtype)
        return None


def record(task):
    """The matrix work of a call, as a Counter."""
    with torch.inference_mode(), Recorder() as recorder:
        task()
    return recorder.work


def flops(work):
    return sum(count * part.flops for part, count in work.items())


class Ceilings:
    """Seconds of each shape alone: `plain` as PyTorch does it, `best` in the fastest way known here."""

    def __init__(self, parts, repetitions, device="cpu", synchronise=lambda: None):
        """parts: the shapes; a repetition takes all of them in turn, so that none finds its operands in the cache."""
        with torch.inference_mode():
            tasks = {(part, name): call for part in parts for name, call in part.calls(device).items()}
            timings = interleaved(tasks, repetitions, synchronise=synchronise)
        self.plain = {part: timings[part, "plain"].median for part in parts}
        self.best = {part: min(timings[key].median for key in tasks if key[0] == part) for part in parts}

    def estimate(self, work, plain=False):
        """Seconds of a Counter of work at these rates."""
        seconds = self.plain if plain else self.best
        return sum(count * seconds[part] for part, count in work.items())

    def rows(self, work):
        """A table of the shapes in some work: how often, and GFLOP/s plain and at best."""
        for part, count in sorted(work.items(), key=lambda item: -item[1] * item[0].flops):
            rates = {"plain": part.flops / self.plain[part] / 1e9, "best": part.flops / self.best[part] / 1e9}
            yield {"shape": str(part), "times": count, "GFLOP": count * part.flops / 1e9, **rates}
