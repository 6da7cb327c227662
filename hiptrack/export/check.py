"""Whether exported files say what PyTorch says, on one fixed random frame."""

import torch

from hiptrack.export.parts import Step

SEED = 0
TOLERANCE = 1e-3
FRAMES_CHECKED = (1, 20)  # used slots of each memory, beside all of them


def example_tensors(parts):
    """Random images, and everything the parts make of them, by the names of the parts' inputs and outputs."""
    generator = torch.Generator().manual_seed(SEED)
    model = parts[0].model
    known = {
        name: torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=generator)
        for name, side in (("template", model.template_size), ("search", model.search_size))
    }
    known["template_box_xywh"] = torch.tensor([[0.25, 0.3, 0.5, 0.4]])
    known["image"] = known["search"].float()
    known["box_cxcywh"] = torch.tensor([[0.45, 0.55, 0.3, 0.2]])
    for part in parts:
        if not isinstance(part, Step):
            known.update(zip(part.outputs, part(*inputs_of(part, known)), strict=True))
        if part.name == "features":
            known["grid"] = known["search_grid"]
    return known


def inputs_of(part, tensors):
    """The part's inputs, in its order, out of named tensors."""
    return tuple(tensors[name] for name in part.inputs)


def example_memory(key, value, slots, frames):
    """Keys [1, slots*N, K+1] and values [1, slots*N, V] of `frames` frames like the given one; NaN in the unused slots."""
    generator, places = torch.Generator().manual_seed(SEED), key.shape[1]

    def alike(tensor):
        many = tensor.repeat(1, frames, 1)
        return many + 0.3 * tensor.std() * torch.randn(many.shape, generator=generator)

    def padded(tensor):
        unused = (slots - frames) * places
        return torch.cat((tensor, tensor.new_full((1, unused, tensor.shape[2]), torch.nan)), 1)

    keys = alike(key[..., :-1])
    return padded(torch.cat((keys, -keys.square().sum(-1, keepdim=True)), -1)), padded(alike(value))


def step_inputs(step, tensors, frames):
    """The inputs of a `Step` with `frames` slots used."""
    keys, values = example_memory(tensors["key"], tensors["value"], step.capacity, frames)
    return inputs_of(step, {**tensors, "keys": keys, "values": values, "frames": torch.tensor([frames])})


def check_part(part, run, tensors):
    """Yields (what, {output: difference}) of a part and what runs its file; a Step once for each number of used slots.

    The difference is the largest absolute one, as a share of the output's largest magnitude where that exceeds 1. A Step is
    compared with PyTorch reading a memory of just the used frames.
    """
    if not isinstance(part, Step):
        inputs = inputs_of(part, tensors)
        yield part.name, differences(part, run(*inputs), part(*inputs))
        return
    for frames in sorted({*(n for n in FRAMES_CHECKED if n < part.capacity), part.capacity}):
        search_grid, keys, values, _, *pooled = inputs = step_inputs(part, tensors, frames)
        places = frames * search_grid.shape[1]
        exact = part.read(search_grid, keys[:, :places], values[:, :places], *pooled)
        yield f"{part.name}, {frames} of {part.capacity} slots used", differences(part, run(*inputs), exact)


def differences(part, found, expected):
    """{output: difference} of two tuples of tensors; NaN differs from everything."""
    return {
        name: float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max().clamp(min=1))
        for name, ours, theirs in zip(part.outputs, found, expected, strict=True)
    }
