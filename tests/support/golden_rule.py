"""The rule that fills weights and images of the golden numbers, so that none are shipped."""

import zlib
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "golden"


def generator(tag, seed):
    return np.random.RandomState((zlib.crc32(tag.encode()) + seed) % 2**32)


def fill(name, shape, dtype, seed):
    rs = generator(name, seed)
    if dtype == "int64":
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        array = 1 + 0.1 * rs.rand(*shape)
    elif name.endswith("running_mean"):
        array = 0.02 * rs.standard_normal(shape)
    elif len(shape) <= 1:
        array = 0.02 * rs.standard_normal(shape) + (1 if name.endswith("weight") else 0)
    else:
        array = rs.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(array).astype(np.float32))


def arr(tag, shape, seed):
    rs = generator(tag, seed)
    coarse = rs.standard_normal(shape[:-2] + (shape[-2] // 16, shape[-1] // 16))
    return torch.from_numpy((np.kron(coarse, np.ones((16, 16))) + 0.3 * rs.standard_normal(shape)).astype(np.float32))
