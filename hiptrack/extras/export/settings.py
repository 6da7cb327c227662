"""The settings of an export, `tracker.json`: read, and held against themselves before anything is made of them."""

import json

from hiptrack.config.portable import MAX_NUMBER
from hiptrack.errors import CheckpointError, NotFoundError
from hiptrack.files import excerpt, read_text

SETTINGS = "tracker.json"
MAX_BYTES = 2**20
LARGEST_FACTOR = 100  # sides of a crop in those of its box

# The kind and the shape of each tensor of a graph. A number is itself; the sizes of the settings have their names, `places`
# is grid_side squared, `slots` a step's capacity times that; what else has a name is as long everywhere.
TENSORS = {
    "template": ("uint8", (1, 3, "template_size", "template_size")),
    "template_tokens": ("float32", (1, "tokens", "width")),
    "template_image": ("float32", (1, 3, "search_size", "search_size")),
    "template_box_xywh": ("float32", (1, 4)),
    "search": ("uint8", (1, 3, "search_size", "search_size")),
    "template_grid": ("float32", (1, "places", "width")),
    "search_grid": ("float32", (1, "places", "width")),
    "kept": ("bool", (1, "places")),
    "class_token": ("float32", (1, "width")),
    "image": ("float32", (1, 3, "search_size", "search_size")),
    "grid": ("float32", (1, "places", "width")),
    "box_cxcywh": ("float32", (1, 4)),
    "key": ("float32", (1, "places", "key_width")),
    "value": ("float32", (1, "places", "value_width")),
    "keys": ("float32", (1, "slots", "key_width")),
    "values": ("float32", (1, "slots", "value_width")),
    "frames": ("int64", (1,)),
    "score": ("float32", (1, "grid_side", "grid_side")),
    "offset": ("float32", (1, 2, "grid_side", "grid_side")),
    "size": ("float32", (1, 2, "grid_side", "grid_side")),
    "challenge": ("float32", (1, "classes")),
}
# {graph: (inputs, one that may follow), (outputs, one that may follow)}
GRAPHS = {
    "template": ((["template"], []), (["template_tokens", "template_image"], [])),
    "features": (
        (["template_tokens", "search"], ["template_box_xywh"]),
        (["template_grid", "search_grid", "kept"], ["class_token"]),
    ),
    "remember": ((["image", "grid", "box_cxcywh", "kept"], []), (["key", "value"], [])),
    "step": (
        (["search_grid", "keys", "values", "frames"], ["kept", "class_token"]),
        (["score", "offset", "size", "box_cxcywh"], ["challenge"]),
    ),
}


def read_export_settings(path):
    """The settings of an export, whose graphs fit its sizes and each other.

    Raises NotFoundError or CheckpointError. What is no object, or lacks something, may also raise AttributeError, KeyError,
    TypeError or ValueError.
    """
    if not path.is_file():
        raise NotFoundError(
            f"not found: {path} (a folder written by hiptrack export was expected; of any other, name its weights file)",
            str(path),
        )
    try:
        settings = json.loads(read_text(path, MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: {excerpt(str(error))}; the settings written by hiptrack export were expected."
        ) from error
    _check_values(settings, path)
    _check_graphs(settings, path)
    return settings


def _check_values(settings, path):
    """Raise CheckpointError for a number or a branch that no export has."""
    wanted = {
        **dict.fromkeys(("template_size", "search_size", "grid_side", "margin"), (int, MAX_NUMBER)),
        **dict.fromkeys(("template_factor", "search_factor"), ((int, float), LARGEST_FACTOR)),
    }
    for name, (kind, most) in wanted.items():
        value = settings[name]
        if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value <= most:
            what = "a whole number" if kind is int else "a number"
            raise CheckpointError(
                f"{path}: {name} = {excerpt(repr(value))}: {what} above 0, up to {most}, was expected."
            )
    if settings["branch"] not in ("off", "on", "folded"):
        raise CheckpointError(
            f'{path}: branch = {excerpt(repr(settings["branch"]))}: "off", "on" or "folded" was expected.'
        )


def _check_graphs(settings, path):
    """Raise CheckpointError where the tensors of the graphs fit neither the sizes nor each other."""
    graphs, branch = settings["graphs"], settings["branch"]
    steps = {name: int(name.removeprefix("step-")) for name in graphs if name.startswith("step-")}
    if {"step" if name in steps else name for name in graphs} != set(GRAPHS):
        named = excerpt(", ".join(sorted(graphs)))
        raise CheckpointError(f"{path}: the graphs {named}; template, features, remember and step-N were expected.")
    sizes = {name: settings[name] for name in ("template_size", "search_size", "grid_side")}
    sizes["places"] = settings["grid_side"] ** 2
    if branch == "on":
        sizes["classes"] = len(settings["challenges"])
    for name, graph in graphs.items():
        if name in steps:
            sizes["slots"] = steps[name] * sizes["places"]
        for what, (names, more) in zip(("inputs", "outputs"), GRAPHS["step" if name in steps else name], strict=True):
            found = [tensor["name"] for tensor in graph[what]]
            if found[: len(names)] != names or found[len(names) :] not in ([], *([one] for one in more)):
                listed = excerpt(", ".join(map(str, found)))
                raise CheckpointError(f"{path}: the {what} of {name} are {listed}; {', '.join(names)} were expected.")
            for tensor in graph[what]:
                _check_tensor(tensor, sizes, f"{path}: {tensor['name']} of {name}")
    for name in steps:
        if (branch == "on") != _has(graphs[name]["outputs"], "challenge"):
            raise CheckpointError(f'{path}: branch = "{branch}" does not fit the outputs of {name}.')
        if _has(graphs[name]["inputs"], "class_token") and not _has(graphs["features"]["outputs"], "class_token"):
            raise CheckpointError(f"{path}: {name} takes the class_token, which features does not give.")


def _has(tensors, name):
    return any(tensor["name"] == name for tensor in tensors)


def _check_tensor(tensor, sizes, where):
    """sizes: lengths by their names, to which those that are seen first are added."""
    (kind, expected), shape = TENSORS[tensor["name"]], tensor["shape"]
    if len(shape) == len(expected) and all(type(length) is int and length > 0 for length in shape):
        pairs = zip(expected, shape, strict=True)
        expected = [name if isinstance(name, int) else sizes.setdefault(name, length) for name, length in pairs]
    if tensor["type"] != kind or shape != list(expected):
        found = excerpt(f"{tensor['type']} {shape}")
        raise CheckpointError(f"{where} is {found}; {kind} {list(expected)} was expected.")
