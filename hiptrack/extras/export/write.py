"""Writing an export: a folder of graphs, each checked against PyTorch before the folder gets its name."""

import copy
import json
import os
import tempfile
from pathlib import Path

import torch
from tqdm import tqdm

import hiptrack
from hiptrack.errors import ConfigError, HiptrackError, did_you_mean
from hiptrack.extras.export.formats import FORMATS
from hiptrack.extras.export.graphs import Step, build_graphs, without
from hiptrack.extras.export.settings import SETTINGS
from hiptrack.progress import progress
from hiptrack.tracking.memory import MemoryPolicy
from hiptrack.tracking.tracker import Tracker

WINDOW = "outer product with itself of 0.5 * (1 - cos(2 * pi * k / (grid_side + 1))), k = 1..grid_side"
MAX_CAPACITY = 1000  # slots; 1 GiB of keys and values at B/384


def export(model, out, form="onnx", capacities=(150,), branch="off", say=tqdm.write):
    """Write a HIPTrack on the CPU as a folder of graphs and `tracker.json` (docs/export.md).

    form: "onnx" or "torch". capacities: frames that the memory holds, a step graph for each. branch: "off", "on" or
    "folded". say: takes a line for each comparison with PyTorch. Raises ConfigError, and HiptrackError where a package
    is missing or a graph's answer differs from PyTorch's or `out` cannot be written; then there is no `out`.
    """
    out = Path(out).resolve()
    check_request(out, form, capacities, branch)
    model = with_branch(model, branch)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with torch.no_grad(), tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as unfinished:
            folder = Path(unfinished) / out.name
            folder.mkdir()
            write_folder(model, folder, form, sorted(set(capacities)), branch, say)
            os.replace(folder, out)
    except OSError as error:
        raise HiptrackError(f"{out} cannot be written: {error}") from error


def write_folder(model, folder, form, capacities, branch, say):
    graphs = build_graphs(model, capacities)
    tensors = example_tensors(graphs)
    with progress(sum(1 + len(slots_checked(graph)) for graph in graphs), "part") as bar:
        entries = {graph.name: write_graph(graph, form, folder, tensors, say, bar) for graph in graphs}
    settings = {"hiptrack": hiptrack.__version__, "format": form, **tracker_settings(model, branch, capacities)}
    (folder / SETTINGS).write_text(json.dumps({**settings, "graphs": entries}, indent=1) + "\n")


def check_request(out, form, capacities, branch):
    """Raise ConfigError for what can be known to be wrong before anything is read."""
    for option, value, valid in (("--format", form, FORMATS), ("--branch", branch, ("off", "on", "folded"))):
        if value not in valid:
            hint = did_you_mean(str(value), valid, '"') or f" Expected one of {', '.join(valid)}."
            raise ConfigError(f'{option}: there is no "{value}".{hint}')
    wrong = [capacity for capacity in capacities if not 1 <= capacity <= MAX_CAPACITY]
    if wrong or not capacities:
        raise ConfigError(f"--memory {wrong[0] if wrong else ''}: 1 to {MAX_CAPACITY} frames were expected.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there and not empty; a folder that is new or empty was expected.")


def with_branch(model, branch):
    """A model with its branch as asked for; the caller's is left alone. Raises ConfigError where it has none."""
    if branch == "off":
        return without(model, "challenge")
    if model.challenge is None:
        raise ConfigError(
            f"--branch {branch}: the model was built without a challenge branch; --branch off was expected."
        )
    if branch == "folded":
        model = copy.deepcopy(model)
        model.fold_challenge()
    return model


def write_graph(graph, form, folder, tensors, say, bar):
    """Write and check one graph; returns its entry in the settings. bar: moves on with each part of it.

    Raises HiptrackError.
    """
    inputs = step_inputs(graph, tensors, graph.capacity) if isinstance(graph, Step) else inputs_of(graph, tensors)
    path = folder / f"{graph.name}{FORMATS[form].suffix}"
    bar.set_description(f"writing {path.name}")
    FORMATS[form].write(graph, inputs, path)
    bar.update()
    bar.set_description(f"comparing {path.name} with PyTorch")
    for what, differences in check_graph(graph, FORMATS[form].load(path), tensors):
        bar.update()
        worst = max(differences, key=lambda name: differences[name] if differences[name] >= 0 else float("inf"))
        say(f"{what}: differs from PyTorch by at most {differences[worst]:.1e} ({worst})")
        if not differences[worst] <= TOLERANCE:
            raise HiptrackError(
                f"{path.name} differs from PyTorch by {differences[worst]:.1e} in {worst}; at most {TOLERANCE:.0e} was expected. "
                "Nothing was written."
            )
    return {
        "file": path.name,
        "inputs": describe(graph.inputs, inputs),
        "outputs": describe(graph.outputs, graph(*inputs)),
    }


def describe(names, tensors):
    """[{name, type, shape}] of tensors."""
    return [
        {"name": name, "type": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
        for name, tensor in zip(names, tensors, strict=True)
    ]


def tracker_settings(model, branch, capacities):
    """What a program needs to know beside the graphs."""
    policy = MemoryPolicy(capacity=max(capacities))
    challenge = model.challenge
    return {
        "template_size": model.template_size,
        "template_factor": model.template_factor,
        "search_size": model.search_size,
        "search_factor": model.search_factor,
        "grid_side": model.grid_side,
        "window": WINDOW,
        "margin": Tracker.margin,
        "memory": vars(policy),
        "branch": branch,
        "challenges": None if challenge is None else list(challenge.classes),
        "activation": None if challenge is None else challenge.activation,
    }


SEED = 0
TOLERANCE = 1e-3
FRAMES_CHECKED = (1, 20)  # used slots of each memory, beside all of them


def example_tensors(graphs):
    """Random images, and everything the graphs make of them, by the names of the graphs' inputs and outputs."""
    generator = torch.Generator().manual_seed(SEED)
    model = graphs[0].model
    known = {
        name: torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=generator)
        for name, side in (("template", model.template_size), ("search", model.search_size))
    }
    known["template_box_xywh"] = torch.tensor([[0.25, 0.3, 0.5, 0.4]])
    known["image"] = known["search"].float()
    known["box_cxcywh"] = torch.tensor([[0.45, 0.55, 0.3, 0.2]])
    for graph in graphs:
        if not isinstance(graph, Step):
            known.update(zip(graph.outputs, graph(*inputs_of(graph, known)), strict=True))
        if graph.name == "features":
            known["grid"] = known["search_grid"]
    return known


def inputs_of(graph, tensors):
    return tuple(tensors[name] for name in graph.inputs)


def example_memory(key, value, slots, frames):
    """Keys [1, slots*N, K+1], values [1, slots*N, V] of `frames` frames like the given one; NaN in the unused slots."""
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
    keys, values = example_memory(tensors["key"], tensors["value"], step.capacity, frames)
    return inputs_of(step, {**tensors, "keys": keys, "values": values, "frames": torch.tensor([frames])})


def slots_checked(graph):
    """How many slots of the memory are used in the comparisons of a Step; [None] for another graph's one comparison."""
    if not isinstance(graph, Step):
        return [None]
    return sorted({*(n for n in FRAMES_CHECKED if n < graph.capacity), graph.capacity})


def check_graph(graph, run, tensors):
    """Yields (what, {output: difference}) of a graph and what runs its file; a Step once for each number of used slots.

    The difference is the largest absolute one, as a share of the output's largest magnitude where that exceeds 1. A
    Step is compared with PyTorch reading a memory of just the used frames.
    """
    if not isinstance(graph, Step):
        inputs = inputs_of(graph, tensors)
        yield graph.name, differences(graph, run(*inputs), graph(*inputs))
        return
    for frames in slots_checked(graph):
        search_grid, keys, values, _, *pooled = inputs = step_inputs(graph, tensors, frames)
        places = frames * search_grid.shape[1]
        exact = graph.read(search_grid, keys[:, :places], values[:, :places], *pooled)
        yield f"{graph.name}, {frames} of {graph.capacity} slots used", differences(graph, run(*inputs), exact)


def differences(graph, found, expected):
    """{output: difference} of two tuples of tensors; NaN differs from everything."""
    return {
        name: float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max().clamp(min=1))
        for name, ours, theirs in zip(graph.outputs, found, expected, strict=True)
    }
