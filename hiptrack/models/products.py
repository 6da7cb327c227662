"""Float32 matrix products on the CPU, by the faster of PyTorch's two libraries.

PyTorch leaves float32 products to MKL, which uses AVX-512 on Intel's processors only, and convolutions to oneDNN, which uses it
wherever it is there. So on other processors a 1x1 convolution is the faster product, about twice as fast
(docs/performance.md). Lower precisions go to oneDNN in any case. What is exported has plain products.
"""

import functools
from pathlib import Path

import torch
import torch.nn.functional as F

# Means nothing to a 1x1 kernel, but on a single thread PyTorch leaves undilated 1x1 convolutions to MKL, too.
DILATION = 2
LEAST = 20480  # numbers in an image of one row; PyTorch leaves smaller ones to its own convolutions, which are slow


@torch.compiler.assume_constant_result
def convolution_is_faster():
    """Whether this machine's float32 products are faster as 1x1 convolutions."""
    return _convolution_is_faster()


@functools.cache  # a function of its own: torch.compile would look into it, past the cache
def _convolution_is_faster():
    cpuinfo = Path("/proc/cpuinfo")
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and cpuinfo.is_file()
        and "GenuineIntel" not in cpuinfo.read_text()
    )


def _by_convolution(x):
    """Whether a product that takes x for the image is better a convolution."""
    if x.numel() <= LEAST or x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    exported = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    return not exported and convolution_is_faster()


def linear(x, weight, bias=None):
    """x [..., K], weight [M, K], bias [M] -> x weight^T + bias [..., M]."""
    if not _by_convolution(x):
        return F.linear(x, weight, bias)
    # One image of a single row, its pixels the rows of x, channels last: nothing is copied.
    rows = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)
    y = F.conv2d(rows, weight[:, :, None, None], bias, dilation=DILATION)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def product(a, b):
    """a [N, K], b [K, M] -> a b [N, M]."""
    if not _by_convolution(b):
        return a @ b
    return F.conv2d(b.reshape(1, len(b), 1, -1), a[:, :, None, None], dilation=DILATION).reshape(len(a), -1)
