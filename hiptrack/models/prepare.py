"""A model suited to its machine: made ready to track, laid out for training; and the kernels that PyTorch computes with."""

import itertools
import os
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.models.heads import ConvTower
from hiptrack.models.layers import Linear, allow_tf32, convolution_is_faster


def prepare(model, precision, compile, device):
    """Make a HIPTrack ready to track, in place: it can no longer be trained.

    Batch norms are folded into the convolutions ahead of them and convolutions take channels last; for "bf16" weights and values
    are bfloat16 once and for all. What precision is lost in stays float32: the keys, whose squared distances
    cancel, and the last layers of the head, which say where the box is. compile: by torch.compile, on GPUs with CUDA graphs.
    Returns the model.
    """
    model = model.to(device).eval().requires_grad_(False)
    _fold_batch_norms(model)
    on_cpu = torch.device(device).type == "cpu"
    if precision == "bf16":
        _to_bfloat16(model)
    _choose_products(model, on_cpu and precision == "bf16")
    model = model.to(memory_format=torch.channels_last)
    if compile:
        torch.compiler.assume_constant_result(convolution_is_faster)  # a mark; here, for it imports the compiler
        mode = "default" if on_cpu else "reduce-overhead"
        for part in (model.backbone, model.history.value_encoder, model.history.fuse, model.box_head):
            part.compile(mode=mode)
    return model


def _fold_batch_norms(model):
    """A batch norm that follows a convolution in its module goes into its weights."""
    for module in list(model.modules()):
        for (name, conv), (norm_name, norm) in itertools.pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())


def _to_bfloat16(model):
    exact = [model.history.key_proj, *(part.out for part in model.modules() if isinstance(part, ConvTower))]
    exact = {id(tensor) for layer in exact for tensor in layer.parameters()}
    model.image_dtype = torch.bfloat16
    for child in model.children():  # the model's own tensors normalise images, and stay exact
        for tensor in itertools.chain(child.parameters(), child.buffers()):
            if tensor.is_floating_point() and id(tensor) not in exact:
                tensor.data = tensor.data.bfloat16()


def lay_out(model, device, mixed_precision):
    """Suit a HIPTrack to a device [torch.device] and a number format ("no", "bf16", "fp16"); returns the model.

    In bfloat16 on a processor, channels come last and attention is two plain products: together they made a step of a
    small model 1.4 times as fast (docs/performance.md), for the backward pass of PyTorch's fused kernel is slow in bfloat16 there.
    """
    plain = device.type == "cpu" and mixed_precision == "bf16"
    _choose_products(model, plain)
    return model.to(memory_format=torch.channels_last) if plain else model


def _choose_products(model, plain):
    """How timm's blocks multiply: linear layers by the faster library (layers.py), attention by PyTorch's fused kernel.

    plain: attention as two products instead, which in bfloat16 are faster on a processor.
    """
    from timm.layers import use_fused_attn  # here: see create_vit in backbone.py

    for block in model.backbone.blocks:
        block.attn.fused_attn = use_fused_attn() and not plain
        for module in block.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear  # the same parameters


def choose_kernels(deterministic, tf32):
    """Have PyTorch choose kernels that repeat their results bit by bit (what has none fails: `kernel_fault`), and TF32 or none."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, and nothing reads such memory
    allow_tf32(tf32)


@contextmanager
def device_faults():
    """What `kernel_fault` and `memory_fault` know is raised from here as the HiptrackError that they give."""
    try:
        yield
    except RuntimeError as error:
        fault = kernel_fault(error) or memory_fault(error)
        if fault is None:
            raise
        raise fault from error


def kernel_fault(error):
    """A ConfigError for a RuntimeError by which PyTorch says that a computation has no deterministic kernel; else None."""
    name, lacks, _ = str(error).partition(" does not have a deterministic implementation")
    if not lacks and "not deterministic because it uses CuBLAS" in str(error):
        name, lacks = "cuBLAS (CUBLAS_WORKSPACE_CONFIG is neither :4096:8 nor :16:8)", True
    if not lacks:
        return None
    return ConfigError(
        f"train.deterministic = True, but PyTorch has no kernel for {name} on this device that repeats its result bit by bit. "
        "Train with train.deterministic = False: then a run that is resumed may differ from one that is not."
    )


def memory_fault(error):
    """A HiptrackError for a RuntimeError by which PyTorch says that a GPU's memory is full in training; else None."""
    if not isinstance(error, torch.OutOfMemoryError):
        return None
    return HiptrackError(
        f"The GPU's memory is full; at most {torch.cuda.max_memory_allocated() / 1e9:.1f} GB of it were in use. Set "
        "Stage.activation_checkpointing = True, which changes no result, or lower Stage.largest_pass (clips that a process takes "
        f"at once). PyTorch says: {error}"
    )
