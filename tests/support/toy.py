"""A HIPTrack small enough for tests, built in Python or through gin, and moving targets to track with it."""

import functools

import gin
import numpy as np
import torch

from hiptrack.config.portable import component_text
from hiptrack.models.backbone import Backbone
from hiptrack.models.challenge import ChallengeBranch
from hiptrack.models.heads import CenterHead
from hiptrack.models.hiptrack import HIPTrack
from hiptrack.models.history import HistoricalPrompt
from hiptrack.models.weights import save_weights
from hiptrack.tracking.memory import MemoryPolicy

BACKBONE = {
    "name": "vit_tiny_patch16_224",
    "width": 32,
    "depth": 4,
    "heads": 2,
    "patch": 8,
    "template_size": 32,
    "search_size": 64,
    "elimination_blocks": (1, 2),
}
HISTORY = {"key_width": 8, "trunk_width": 8}
HEAD_WIDTHS = (16, 8)
FRAMES = 9
BRANCH = {"hidden_width": 24, "fusion_width": 16}

toy_branch = functools.partial(ChallengeBranch, **BRANCH)


def toy_backbone(**changes):
    """A Backbone with random weights."""
    return randomise(Backbone(**{**BACKBONE, **changes}))


def toy_model(challenge=None, neck_width=None, seed=0, head_widths=HEAD_WIDTHS, history=None, **backbone):
    """A HIPTrack in eval mode; all weights are random save those of the branch, which are as initialised."""
    torch.manual_seed(seed)
    model = HIPTrack(
        backbone=functools.partial(Backbone, **{**BACKBONE, **backbone}),
        history=functools.partial(HistoricalPrompt, **(history or HISTORY)),
        head=functools.partial(CenterHead, widths=head_widths),
        challenge=challenge,
        neck_width=neck_width,
        search_factor=4.0,
    )
    for name, part in model.named_children():
        if name != "challenge":
            randomise(part, seed)
    return model.eval()


def randomise(module, seed=0):
    """Fill parameters and batch-norm statistics so that no layer is idle; returns the module."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(1 + 0.1 * noise.abs())
        elif tensor.ndim <= 1:
            tensor.copy_(0.1 * noise + (1 if name.endswith("weight") else 0))
        elif "position" in name or "temporal" in name or "token" in name:
            tensor.copy_(0.5 * noise)
        else:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
    return module


def toy_gin(challenge=None, neck_width=None, fusion="ResidualFusion", feature="mean", more=(), **backbone):
    """The gin text of a toy; challenge: None or "ChallengeBranch", with this fusion (None: none) and feature; more: lines."""
    lines = ["HIPTrack.backbone = @Backbone", "HIPTrack.history = @HistoricalPrompt", "HIPTrack.head = @CenterHead"]
    lines += [f"HIPTrack.challenge = @{challenge}" if challenge else "HIPTrack.challenge = None"]
    lines += [
        f"HIPTrack.neck_width = {neck_width}",
        "HIPTrack.search_factor = 4.0",
        f"CenterHead.widths = {HEAD_WIDTHS}",
    ]
    lines += [f"Backbone.{key} = {value!r}" for key, value in {**BACKBONE, **backbone}.items()]
    lines += [f"HistoricalPrompt.{key} = {value!r}" for key, value in HISTORY.items()]
    if challenge:
        lines += [f"ChallengeBranch.{key} = {value!r}" for key, value in BRANCH.items()]
        lines += [f"ChallengeBranch.fusion = @{fusion}" if fusion else "ChallengeBranch.fusion = None"]
        lines += [f"ChallengeBranch.feature = {feature!r}"]
    return "\n".join([*lines, *more])


def save_toy(path, seed=0, **described):
    """Write a weights file of a random toy, described as `toy_gin` takes it, the branch trained; returns the model.

    Gin is left without configuration.
    """
    gin.clear_config()
    gin.parse_config(toy_gin(**described))
    model = randomise(gin.get_configurable("HIPTrack")(), seed).eval()
    bindings = component_text("HIPTrack")
    gin.clear_config()
    save_weights(path, model, bindings)
    return model


def moving_target(frames, size=(120, 90), seed=0):
    """(frames [H, W, 3] uint8, first box xywh): a bright textured square that wanders over noise."""
    rng = np.random.default_rng(seed)
    width, height = size
    sea = rng.integers(0, 120, (height, width, 3), np.uint8)
    target = rng.integers(150, 256, (18, 24, 3), np.uint8)
    x, y = rng.integers(10, width - 40), rng.integers(10, height - 30)
    first, pictures = np.array([x, y, 24.0, 18.0]), []
    for _ in range(frames):
        picture = sea.copy()
        picture[y : y + 18, x : x + 24] = target
        pictures.append(picture)
        x = int(np.clip(x + rng.integers(-3, 4), 0, width - 24))
        y = int(np.clip(y + rng.integers(-3, 4), 0, height - 18))
    return pictures, first


def policy():
    """Few frames are enough to fill the bank and to run it over."""
    return MemoryPolicy(template_frames=2, early=(1, 2), interval=2, capacity=3)


def track(tracker, seed=0, frames=FRAMES):
    """[frames - 1, 5]: boxes and scores."""
    pictures, box = moving_target(frames, seed=seed)
    tracker.init(pictures[0], box)
    results = [tracker.update(picture) for picture in pictures[1:]]
    return np.array([[*result.box, result.score] for result in results])
