"""How a model is laid out for training on the device at hand: the same function, in the form that is computed fastest there."""

import torch


def lay_out(model, device, mixed_precision):
    """Suit a HIPTrack to a device [torch.device] and a number format ("no", "bf16", "fp16"); returns the model.

    In bfloat16 on a processor, channels come last and attention is two plain products: together they made a step of a
    small model 1.4 times as fast (docs/performance.md), for the backward pass of PyTorch's fused kernel is slow in bfloat16 there.
    """
    if device.type == "cpu" and mixed_precision == "bf16":
        for block in model.backbone.blocks:
            block.attn.fused_attn = False
        model = model.to(memory_format=torch.channels_last)
    return model
