"""TF32: float32 products with 10 bits of mantissa, which NVIDIA's GPUs from Ampere on compute several times as fast.

PyTorch starts with convolutions in TF32 and matrix products in IEEE float32. The flags are set by the names that all versions of it know;
a program that sets them by the newer ones (`fp32_precision`) as well makes PyTorch raise an error.
"""

from contextlib import contextmanager

import torch


def allow_tf32(allowed):
    """Have GPUs compute float32 matrix products and convolutions in TF32, or in IEEE float32."""
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
