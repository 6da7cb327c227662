"""Building blocks shared by the parts of the model."""

import functools
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


class Linear(nn.Linear):
    """nn.Linear by the faster library (see `linear`), in training too."""

    def forward(self, x):
        """[..., in] -> [..., out]."""
        return linear(x, self.weight, self.bias)


class ResidualBlock(nn.Module):
    """Pre-activation residual block: x + conv2(relu(conv1(relu(x)))), 3x3 convolution on the skip if widths differ."""

    def __init__(self, in_width: int, out_width: int):
        super().__init__()
        self.skip = nn.Conv2d(in_width, out_width, 3, 1, 1) if in_width != out_width else nn.Identity()
        self.conv1 = nn.Conv2d(in_width, out_width, 3, 1, 1)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, 1, 1)

    def forward(self, x):
        """[B, in, H, W] -> [B, out, H, W]."""
        return self.skip(x) + self.conv2(self.conv1(x.relu()).relu())


class BasicBlock(nn.Module):
    """ResNet basic block (He et al., CVPR 2016) whose convolutions have biases, as in the published weights."""

    def __init__(self, in_width: int, out_width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, out_width, 3, stride, 1)
        self.bn1 = nn.BatchNorm2d(out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(out_width)
        self.downsample = nn.Identity()
        if stride != 1 or in_width != out_width:
            self.downsample = nn.Sequential(nn.Conv2d(in_width, out_width, 1, stride), nn.BatchNorm2d(out_width))

    def forward(self, x):
        """[B, in, H, W] -> [B, out, H/stride, W/stride]."""
        residual = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (residual + self.downsample(x)).relu()


class ResNetTrunk(nn.Module):
    """ResNet-18 on [RGB, mask], cut after the stage whose stride is the largest not above `stride`.

    `out_width` channels at stride `out_stride`; `width` is that of the first stage (64 in ResNet-18).
    """

    def __init__(self, stride: int, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(4, width, 7, 2, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages, n_in, self.out_stride = [], width, 4
        for number in range(4):
            if number and self.out_stride * 2 > stride:
                break
            n_out = width << number
            stages.append(nn.Sequential(BasicBlock(n_in, n_out, 2 if number else 1), BasicBlock(n_out, n_out, 1)))
            self.out_stride *= 2 if number else 1
            n_in = n_out
        self.stages = nn.ModuleList(stages)
        self.out_width = n_in

    def forward(self, x):
        """[B, 4, H, W] -> [B, out_width, H/out_stride, W/out_stride]."""
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for stage in self.stages:
            x = stage(x)
        return x


class CBAM(nn.Module):
    """Convolutional block attention (Woo et al., ECCV 2018): channel gate, then spatial gate; returns the gated map."""

    def __init__(self, width: int, reduction: int = 16):
        super().__init__()
        hidden = max(width // reduction, 1)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.spatial = nn.Conv2d(2, 1, 7, 1, 3)

    def forward(self, x):
        """[B, C, H, W] -> the same shape."""
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        x = x * gate.sigmoid()[:, :, None, None]
        pooled = torch.stack((x.amax(1), x.mean(1)), 1)
        return x * self.spatial(pooled).sigmoid()


# PyTorch leaves float32 products to MKL, which uses AVX-512 on Intel's processors only, and convolutions to oneDNN, which
# uses it wherever it is there. So on other processors a 1x1 convolution is about twice as fast (docs/performance.md).
# Lower precisions go to oneDNN in any case. What is exported has plain products.
# Dilation means nothing to a 1x1 kernel, but on a single thread PyTorch leaves undilated 1x1 convolutions to MKL, too.
DILATION = 2
LEAST = 20480  # numbers in an image of one row; PyTorch leaves smaller ones to its own convolutions, which are slow


def convolution_is_faster():
    """Whether this machine's float32 products are faster as 1x1 convolutions."""
    return _convolution_is_faster()


@functools.cache  # a function of its own: `prepare` has torch.compile take the other for a constant, unseen
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
    """a [N, K], b [K, M] -> a b [N, M]; on GPUs of whole batches, too."""
    if not _by_convolution(b):
        return a @ b
    return F.conv2d(b.reshape(1, len(b), 1, -1), a[:, :, None, None], dilation=DILATION).reshape(len(a), -1)


def allow_tf32(allowed):
    """Have GPUs compute float32 matrix products and convolutions in TF32, or in IEEE float32.

    TF32 has 10 bits of mantissa; NVIDIA's GPUs from Ampere on multiply it several times as fast. PyTorch starts with
    convolutions in TF32 and matrix products in IEEE float32. Its flags are set by the names that all versions know; a
    program that sets them by the newer ones (`fp32_precision`) as well makes PyTorch raise an error.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def tf32(allowed, device):
    """`allow_tf32` for what is computed within it; nothing on a device (torch.device) other than a GPU."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allow_tf32(allowed)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def has_tf32(device):
    """Whether a device (torch.device) computes in TF32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
