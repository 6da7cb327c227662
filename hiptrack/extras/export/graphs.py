"""The tracker cut into the graphs that a program runs: static shapes, one target, raw pixels in.

N = S*S places of the search grid, C the backbone's width, K and V the widths of keys and values. Each graph holds only
the weights that it reads; what every frame needs, what few need, and what depends on the size of the memory are apart.
"""

import copy

import torch
from torch import nn

from hiptrack.models.backbone import Features
from hiptrack.models.hiptrack import enlarge

UNUSED = -1e9  # the last column of an unused slot's keys: its weight in the softmax vanishes


class Graph(nn.Module):
    """A graph with named inputs and outputs, called with tensors in the order of `inputs`, returning a tuple."""

    def __init__(self, name, inputs, outputs):
        super().__init__()
        self.name, self.inputs, self.outputs = name, tuple(inputs), tuple(outputs)


class Template(Graph):
    """Once for a target: template uint8 [1, 3, Ht, Ht] -> its tokens [1, T*T, C], and its pixels at the search size."""

    def __init__(self, model):
        super().__init__("template", ["template"], ["template_tokens", "template_image"])
        unread = ["history", "box_head", "neck", "challenge", "backbone.blocks", "backbone.norm"]
        self.model = without(model, *unread, "backbone.search_position", "backbone.search_temporal")

    def forward(self, template):
        tokens = self.model.backbone.embed_template(self.model.normalise(template))
        return tokens, enlarge(template.float(), self.model.search_size)


class JointFeatures(Graph):
    """Once a frame: template tokens and search uint8 [1, 3, Hs, Hs] -> both grids [1, N, C], kept [1, N] bool.

    The template's grid is enlarged to the search grid. The template's box (xywh, normalised) is an input where it
    chooses the voters of the elimination, the class token [1, C] an output where the branch reads it.
    """

    def __init__(self, model):
        inputs = ["template_tokens", "search"]
        if model.backbone.elimination_template == "box":
            inputs.append("template_box_xywh")
        outputs = ["template_grid", "search_grid", "kept"]
        if model.challenge is not None and model.challenge.feature == "class_token":
            outputs.append("class_token")
        super().__init__("features", inputs, outputs)
        unread = ["history", "box_head", "neck", "challenge"]
        self.model = without(model, *unread, "backbone.template_position", "backbone.template_temporal")

    def forward(self, template_tokens, search, template_box_xywh=None):
        features = self.model.backbone(template_tokens, self.model.normalise(search), template_box_xywh)
        template_grid = self.model.template_grid(features).flatten(2).transpose(1, 2)
        outputs = [template_grid, features.search, features.kept]
        return (*outputs, features.class_token) if len(self.outputs) == 4 else tuple(outputs)


class Remember(Graph):
    """For a frame that is remembered, search or template: pixels, grid, box, kept -> key [1, N, K+1], value [1, N, V].

    image: float32 [1, 3, Hs, Hs] in 0..255; box_cxcywh: [1, 4] normalised. Of a template all places are kept.
    """

    def __init__(self, model):
        super().__init__("remember", ["image", "grid", "box_cxcywh", "kept"], ["key", "value"])
        self.model = without(model, "backbone", "box_head", "neck", "challenge", "history.key_comp", "history.fuse")

    def forward(self, image, grid, box_cxcywh, kept):
        return self.model.frame_memory(self.model.normalise(image), grid_features(grid, kept), box_cxcywh)


class Step(Graph):
    """Once a frame: reads a memory of `capacity` slots, the first `frames` of which are used, and finds the box.

    keys: [1, capacity*N, K+1], values: [1, capacity*N, V], whatever stands in the unused slots; frames: int64 [1].
    Returns score [1, S, S], offset and size [1, 2, S, S], box_cxcywh [1, 4] at the raw peak, and with the branch the
    class probabilities.
    """

    def __init__(self, model, capacity):
        pooled, outputs = [], ["score", "offset", "size", "box_cxcywh"]
        if model.challenge is not None:
            pooled = ["class_token" if model.challenge.feature == "class_token" else "kept"]
            outputs.append("challenge")
        super().__init__(f"step-{capacity}", ["search_grid", "keys", "values", "frames", *pooled], outputs)
        self.capacity = capacity
        self.model = without(model, "backbone", "history.value_encoder")

    def forward(self, search_grid, keys, values, frames, pooled=None):
        used = (torch.arange(self.capacity) < frames)[:, None].expand(-1, search_grid.shape[1]).reshape(1, -1, 1)
        unused_key = torch.zeros(keys.shape[-1])
        unused_key[-1] = UNUSED
        return self.read(search_grid, torch.where(used, keys, unused_key), torch.where(used, values, 0), pooled)

    def read(self, search_grid, keys, values, pooled=None):
        """The outputs for a memory of which all slots are used, however many there are."""
        features = grid_features(search_grid, **{name: pooled for name in self.inputs[4:]})
        prediction = self.model.predict(features, [(keys, values)])
        maps = prediction.maps
        outputs = (maps.score, maps.offset, maps.size, prediction.box_cxcywh)
        return outputs if prediction.challenge is None else (*outputs, prediction.challenge.probabilities)


def grid_features(search_grid, kept=None, class_token=None):
    """What is known of a frame after the backbone, as the model's later steps take it."""
    return Features(None, search_grid, kept, class_token, ())


def build_graphs(model, capacities):
    """The graphs of a model, in the order in which a frame passes them; a `Step` for each capacity."""
    graphs = [
        Template(model),
        JointFeatures(model),
        Remember(model),
        *(Step(model, capacity) for capacity in capacities),
    ]
    return [graph.eval() for graph in graphs]


def without(model, *names):
    """A copy of the model that lacks the named modules and parameters; the tensors of the others are shared."""
    shared = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    lean = copy.deepcopy(model, shared)
    for name in names:
        parent, _, last = name.rpartition(".")
        setattr(lean.get_submodule(parent), last, None)
    return lean
