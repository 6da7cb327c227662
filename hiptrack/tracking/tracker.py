"""A tracker for programs: `init` with a frame and a box, then `update` frame by frame."""

import copy
from dataclasses import dataclass
from typing import Literal

import gin
import numpy as np
import torch

from hiptrack import crops
from hiptrack.errors import CheckpointError, ConfigError, DataError
from hiptrack.models.history import MemoryBank
from hiptrack.models.weights import load_model
from hiptrack.tracking.adaptation import Action, Adaptation, follow_size


@dataclass
class TrackResult:
    """box: xywh in frame pixels [4] float64; score in [0, 1]; challenge: (smoothed) probabilities [classes], None when off."""

    box: np.ndarray
    score: float
    challenge: np.ndarray | None


@gin.register
class MemoryPolicy:
    """Which frames are remembered and when they are read (HIPTrack, section 4).

    Args:
        template_frames: the first frames read the template's memory, the later ones the bank.
        early: frames among the first that enter the bank.
        interval: afterwards every such frame enters it.
        capacity: frames the bank holds; the oldest leaves first.
    """

    def __init__(
        self, template_frames: int = 10, early: tuple[int, ...] = (5, 10), interval: int = 20, capacity: int = 150
    ):
        if interval < 1 or capacity < 1:
            raise ConfigError(f"MemoryPolicy.interval = {interval}, capacity = {capacity}: both must be at least 1.")
        if not early or not all(1 <= frame <= template_frames for frame in early):
            raise ConfigError(
                f"MemoryPolicy.early = {tuple(early)}: at least one frame was expected, and none but 1 to {template_frames} "
                "(template_frames): later ones enter the bank by the interval."
            )
        self.template_frames, self.early = template_frames, tuple(early)
        self.interval, self.capacity = interval, capacity

    def enters(self, frame):
        """Whether frame number `frame` (the first tracked one is 1) enters the bank."""
        return frame in self.early if frame <= self.template_frames else frame % self.interval == 0

    def reads_template(self, frame):
        """Whether frame number `frame` reads the template's memory rather than the bank."""
        return frame <= self.template_frames


class TargetMemory:
    """The memory of one target, driven by a MemoryPolicy: `read` before and `update` after each prediction."""

    def __init__(self, model, policy, template, template_box_xywh):
        """template: [1, 3, Ht, Ht] normalised; template_box_xywh: [1, 4] normalised."""
        self.model, self.policy = model, policy
        self.template, self.template_box_xywh = template, template_box_xywh
        self.bank = MemoryBank(policy.capacity)
        self.template_memory = None
        self.frame, self.due = 1, False

    def read(self, features):
        """(keys, values) for the present frame, whose backbone features are given.

        While no frame was allowed into the bank, the template's memory is read on, as it was in the last of its frames.
        """
        if self.policy.reads_template(self.frame):
            self.template_memory = self.model.template_memory(self.template, features, self.template_box_xywh)
        elif self.bank.frames:
            return self.bank.read()
        return self.template_memory

    def update(self, search, features, box_cxcywh, write=True):
        """Remember the present frame if the policy says so, and go on to the next.

        write: whether it may be remembered; the next frame that may makes up for one that may not.
        """
        self.due = self.due or self.policy.enters(self.frame)
        if self.due and write:
            self.bank.write(*self.model.frame_memory(search, features, box_cxcywh))
            self.due = False
        self.frame += 1


def hann_window(side):
    """Hann window [S, S]: 0.5 * (1 - cos(2 pi k / (S + 1))), k = 1..S, as an outer product."""
    return torch.outer(*[torch.hann_window(side + 2, periodic=False)[1:-1]] * 2)


@gin.register(denylist=["model", "device"])
class Tracker:
    """Tracks one target through frames with a HIPTrack model.

    Args:
        model: a HIPTrack.
        branch: "off" (as if there were none), "on" (challenge named and fused) or "folded" (its mean effect kept).
        memory: which frames are remembered.
        margin: the box is kept at least this many pixels wide, high and inside the frame.
        smoothing: share of the class probabilities of the frame before in those of a frame (an exponential moving average),
            in [0, 1); 0 takes each frame as it is. The boxes do not depend on it unless rules of `adaptation` do.
        adaptation: what is done otherwise while a challenge is likely or the score low; None: the published tracker.
        device: torch device name; "auto" takes a GPU where there is one.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        branch: Literal["off", "on", "folded"] = "off",
        memory: MemoryPolicy | None = None,
        margin: int = 10,
        smoothing: float = 0.0,
        adaptation: Adaptation | None = None,
        device: str = "auto",
    ):
        if branch not in ("off", "on", "folded"):
            raise ConfigError(f'Tracker.branch = {branch!r}: "off", "on" or "folded" was expected.')
        if branch == "on" and model.challenge is None:
            raise ConfigError('branch="on" needs a model with a challenge branch; this one has none.')
        if not 0 <= smoothing < 1:
            raise ConfigError(f"Tracker.smoothing = {smoothing}: a share in [0, 1) was expected.")
        named = adaptation.challenges if adaptation else []
        if branch != "on" and (smoothing or named):
            asked = f"a Rule names the challenge '{named[0]}'" if named else f"Tracker.smoothing = {smoothing}"
            raise ConfigError(f"{asked}, but only Tracker.branch = 'on' predicts challenges, not '{branch}'.")
        if branch == "folded":
            model = copy.deepcopy(model)  # the caller's keeps its branch
            model.fold_challenge()
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.branch, self.margin = branch, margin
        self.smoothing, self.adaptation = smoothing, adaptation
        self.policy = memory or MemoryPolicy()
        self.window = hann_window(model.grid_side).to(self.device)
        self.box_xywh = None
        self.search_xywh = None  # [4] in frame pixels: the square that the last update searched; None before one

    @classmethod
    def from_checkpoint(cls, path, device="auto", branch="off", memory=None, margin=10, smoothing=0.0, adaptation=None):
        """A tracker from a weights file, which says itself how to build its model.

        Raises NotFoundError or CheckpointError.
        """
        return cls(load_model(path), branch, memory, margin, smoothing, adaptation, device)

    @property
    def multi_label(self):
        """Whether the class probabilities of a result are independent of each other, rather than summing to 1."""
        return self.branch == "on" and self.model.challenge.activation == "sigmoid"

    @torch.inference_mode()
    def init(self, frame_rgb, box_xywh):
        """Start on a target, forgetting any other. frame_rgb: [H, W, 3] uint8; box_xywh: [4] pixels.

        Raises DataError for a frame or a box that cannot be used.
        """
        check_frame(frame_rgb)
        try:
            box = np.array(box_xywh, dtype=np.float64)
        except (TypeError, ValueError):
            box = np.empty(0)
        height, width = frame_rgb.shape[:2]
        if box.shape != (4,) or not np.isfinite(box).all() or box[2] <= 0 or box[3] <= 0:
            raise DataError(f"The first box must be four finite numbers x,y,w,h with w,h > 0, not {box_xywh}.")
        if box[0] >= width or box[1] >= height or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
            raise DataError(f"The first box {box.tolist()} (xywh) lies outside the {width}x{height} frame.")
        if max(box[2] / width, box[3] / height) > 10:
            raise DataError(
                f"The first box {box.tolist()} (xywh) is over ten times as large as the {width}x{height} frame."
            )
        size, factor = self.model.template_size, self.model.template_factor
        template = self._to_model(crops.crop(frame_rgb, box, factor, size))
        in_crop = crops.box_to_crop(box, box, size / crops.crop_side(box, factor), size)
        in_crop = torch.from_numpy(in_crop)[None].to(self.device)
        self.template_tokens = self.model.backbone.embed_template(template)
        self.template_box_xywh = in_crop
        self.memory = TargetMemory(self.model, self.policy, template, in_crop)
        self.box_xywh, self.size = box, box[2:]
        self.challenge, self.search_scale = None, 1.0
        self.search_xywh = None

    @torch.inference_mode()
    def update(self, frame_rgb):
        """The target in the next frame [H, W, 3] uint8 -> TrackResult."""
        if self.box_xywh is None:
            raise DataError("Tracker.update was called before Tracker.init.")
        check_frame(frame_rgb)
        model, factor = self.model, self.model.search_factor * self.search_scale
        height, width = frame_rgb.shape[:2]
        search = self._to_model(crops.crop(frame_rgb, self.box_xywh, factor, model.search_size))
        side = crops.crop_side(self.box_xywh, factor)
        self.search_xywh = np.array([*crops.crop_origin(self.box_xywh, side), side, side], np.float64)
        features = model.backbone(self.template_tokens, search, self.template_box_xywh)
        prediction = model.predict(features, *self.memory.read(features), use_challenge=self.branch == "on")
        score = prediction.maps.score[0]
        if not (score.isfinite().all() and prediction.box_cxcywh.isfinite().all()):
            raise CheckpointError(
                "The model's output is not finite (NaN or infinite): its weights are damaged or it diverged."
            )
        self.score_map = score
        windowed = score * self.window
        box = prediction.maps.box_at_peak(windowed[None])[0]
        peak = float(score.flatten()[windowed.argmax()])
        if prediction.challenge is not None:
            probabilities = prediction.challenge.probabilities[0].cpu().numpy()
            before = probabilities if self.challenge is None else self.challenge
            self.challenge = probabilities + self.smoothing * (before - probabilities)
        action = self.adaptation(self.challenge, peak) if self.adaptation else Action()
        box = crops.box_from_crop(box.tolist(), self.box_xywh, side)
        box = follow_size(box, self.size, action.size_rate)
        self.size = box[2:]  # what lies outside the frame counts: a size that is held must not shrink at the border
        self.box_xywh = crops.clip_box(box, (width, height), self.margin)
        self.search_scale = action.search_scale
        self.memory.update(search, features, prediction.box_cxcywh, action.write_memory)
        return TrackResult(self.box_xywh.copy(), peak, None if self.challenge is None else self.challenge.copy())

    def _to_model(self, image):
        """[H, W, 3] uint8 -> [1, 3, H, W] normalised, on the device."""
        return self.model.normalise(torch.from_numpy(image).permute(2, 0, 1)[None].to(self.device))


def check_frame(frame_rgb):
    """Raise DataError unless this is a [H, W, 3] uint8 image."""
    if (
        not isinstance(frame_rgb, np.ndarray)
        or frame_rgb.dtype != np.uint8
        or frame_rgb.ndim != 3
        or frame_rgb.shape[2] != 3
    ):
        found = (
            f"{frame_rgb.dtype} {list(frame_rgb.shape)}"
            if isinstance(frame_rgb, np.ndarray)
            else type(frame_rgb).__name__
        )
        raise DataError(f"A frame must be a uint8 RGB array [H, W, 3], not {found}.")
