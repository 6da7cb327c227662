"""HIPTrack in named steps: what a training clip and a tracked frame have in common."""

from collections.abc import Callable
from dataclasses import dataclass

import gin
import torch
import torch.nn.functional as F
from torch import nn

from hiptrack.boxes import xywh_to_cxcywh
from hiptrack.errors import ConfigError
from hiptrack.models.backbone import Backbone
from hiptrack.models.challenge import ChallengeOutput
from hiptrack.models.heads import CenterHead, HeadMaps
from hiptrack.models.history import HistoricalPrompt
from hiptrack.ranges import Count, Positive

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]


@dataclass
class Prediction:
    """One frame of B targets: the head's maps, box_cxcywh [B, 4] at the raw peak, the branch's output or None."""

    maps: HeadMaps
    box_cxcywh: torch.Tensor
    challenge: ChallengeOutput | None


@gin.register
class HIPTrack(nn.Module):
    """HIPTrack (arXiv 2311.02072) with an optional challenge branch.

    Args:
        backbone, history, head: called to build the parts.
        challenge: called to build the branch; None is the plain tracker.
        neck_width: a bottleneck Linear(C -> neck_width) ahead of the box head; None feeds it the grid itself.
        template_factor, search_factor: crop side = ceil(sqrt(w*h) * factor); the weights know them.
    """

    def __init__(
        self,
        backbone: Callable = Backbone,
        history: Callable = HistoricalPrompt,
        head: Callable = CenterHead,
        challenge: Callable | None = None,
        neck_width: Count | None = None,
        template_factor: Positive = 2.0,
        search_factor: Positive = 5.0,
    ):
        super().__init__()
        self.template_factor, self.search_factor = template_factor, search_factor
        self.image_dtype = torch.float32  # of normalised images
        self.backbone = backbone()
        width, self.grid_side = self.backbone.width, self.backbone.search_side
        self.template_size, self.search_size = self.backbone.template_size, self.backbone.search_size
        self.history = history(grid_width=width, stride=self.backbone.stride, search_size=self.search_size)
        self.neck = nn.Conv2d(width, neck_width, 1) if neck_width else None
        head_width = neck_width or width
        self.box_head = head(in_width=head_width)
        self.challenge = challenge(feature_width=width, grid_width=head_width) if challenge else None
        if self.challenge is not None and self.challenge.feature == "class_token" and self.backbone.class_token is None:
            raise ConfigError("ChallengeBranch.feature = 'class_token' needs Backbone.class_token = True.")
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def train(self, mode=True):
        """Training mode for what is trained; modules whose parameters are all frozen stay in eval mode."""
        super().train(mode)
        if mode:
            for module in self.modules():
                parameters = list(module.parameters())
                if parameters and not any(p.requires_grad for p in parameters):
                    module.train(False)
        return self

    def normalise(self, images):
        """[..., 3, H, W] uint8 RGB -> ImageNet mean 0 and deviation 1."""
        return ((images.float() / 255 - self.mean) / self.std).to(self.image_dtype)

    def template_memory(self, template, features, template_box_xywh):
        """The memory of a target's first frames: its template, upsampled to the search size.

        template: [B, 3, Ht, Ht] normalised; features: of the joint pass with the present search frame, B rows;
        template_box_xywh: [B, 4] normalised in the template crop. Returns keys, values (history.remember).
        """
        images = enlarge(template, self.search_size)
        mask = self.history.box_mask(xywh_to_cxcywh(template_box_xywh))
        return self.history.remember(images, self.template_grid(features), mask)

    def template_grid(self, features):
        """The template's grid, upsampled to the search grid: [B, C, S, S]."""
        return enlarge(self._as_grid(features.template), self.grid_side)

    def frame_memory(self, search, features, box_cxcywh):
        """Keys and values of a search frame: search [B, 3, Hs, Hs] normalised, box_cxcywh [B, 4] normalised."""
        mask = self.history.box_mask(box_cxcywh, features.kept)
        return self.history.remember(search, self._as_grid(features.search), mask)

    def predict(self, features, memories, use_challenge=True):
        """Read the memories, fuse, and find the box of B search frames -> Prediction.

        memories: (keys, values) as `template_memory` and `frame_memory` give them; their rows together are the B rows.
        """
        grid = self.history(self._as_grid(features.search), memories)
        if self.neck is not None:
            grid = self.neck(grid)
        challenge = None
        if use_challenge and self.challenge is not None:
            challenge = self.challenge(features)
            grid = self.challenge.fuse(grid, challenge)
        maps = self.box_head(grid)
        return Prediction(maps, maps.box_at_peak(), challenge)

    def forward(self, template, search, template_box_xywh, keep_ratio=None):
        """A training clip, frame after frame: frame 1 reads the template, frame i the frames before it.

        template: [B, 3, Ht, Ht], search: [B, F, 3, Hs, Hs], both uint8 RGB; template_box_xywh: [B, 4] normalised.
        Returns the F frames as a Prediction whose tensors are [B, F, ...].
        """
        frames = self.track_clip(self.normalise(template), self.normalise(search), template_box_xywh, keep_ratio)
        return stack_predictions([prediction for _, prediction in frames])

    def track_clip(self, template, search, template_box_xywh, keep_ratio=None):
        """`forward` on normalised images, giving each frame's (Features, Prediction).

        All B*F frames pass the backbone in one call.
        """
        frames = search.shape[1]
        tokens = self.backbone.embed_template(template)
        every = self.backbone(tokens, search.flatten(0, 1), template_box_xywh, keep_ratio)
        results, memory = [], []
        for i in range(frames):
            features = every.rows(slice(i, None, frames))
            if i == 0:
                read = self.template_memory(template, features, template_box_xywh)
            else:
                read = [torch.cat(parts, 1) for parts in zip(*memory, strict=True)]
            prediction = self.predict(features, [read])
            results.append((features, prediction))
            if i + 1 < frames:
                memory.append(self.frame_memory(search[:, i], features, prediction.box_cxcywh))
        return results

    def fold_challenge(self):
        """Take the branch out, its mean effect kept as a bias of the layer that feeds the box head.

        A branch without fusion leaves nothing behind. Raises ConfigError where there is no branch, or where what it
        adds is no constant vector.
        """
        if self.challenge is None:
            raise ConfigError("There is no challenge branch to fold: the model was built without one.")
        form = self.challenge.to_grid
        if form is not None and not form.foldable:
            raise ConfigError(
                f"{type(form).__name__} adds something else at every place of the grid: there is no constant vector to fold. "
                "Track with the branch on or off, strip without folding, or train with ResidualFusion."
            )
        if form is not None:
            last = self.neck if self.neck is not None else self.history.fuse.conv2
            with torch.no_grad():
                last.bias += self.challenge.mean_added
        self.challenge = None

    def _as_grid(self, tokens):
        """[B, n*n, C] -> [B, C, n, n]."""
        side = round(tokens.shape[1] ** 0.5)
        return tokens.transpose(1, 2).unflatten(2, (side, side))


def enlarge(maps, side):
    """[B, C, H, W] -> [B, C, side, side], bilinear, the corners kept in place."""
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=True)


def stack_predictions(predictions):
    """F Predictions of B rows -> one whose tensors are [B, F, ...]."""

    def stack(values):
        return None if values[0] is None else torch.stack(values, 1)

    def stack_fields(parts, kind):
        return kind(*(stack([getattr(part, field) for part in parts]) for field in kind.__dataclass_fields__))

    maps = stack_fields([p.maps for p in predictions], HeadMaps)
    challenge = None
    if predictions[0].challenge is not None:
        challenge = stack_fields([p.challenge for p in predictions], ChallengeOutput)
    return Prediction(maps, torch.stack([p.box_cxcywh for p in predictions], 1), challenge)
