"""A tracker for programs: `init` with a frame and a box, then `update` frame by frame; or a batch of targets."""

import copy
import logging
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import gin
import numpy as np
import torch

from hiptrack import crops
from hiptrack.config import bound_values
from hiptrack.errors import CheckpointError, ConfigError, DataError, HiptrackError, did_you_mean
from hiptrack.files import excerpt
from hiptrack.models.layers import has_tf32, tf32
from hiptrack.models.prepare import prepare
from hiptrack.models.weights import load_model
from hiptrack.nano import FOLDER, weights_path
from hiptrack.ranges import Count, ShareBelowOne, require
from hiptrack.tracking.adaptation import Action, Adaptation, follow_size
from hiptrack.tracking.hub import SETTINGS, WEIGHTS, TrackerHubMixin, WeightsFile, is_tracker_folder, stored_settings
from hiptrack.tracking.memory import MemoryPolicy, TargetMemory, read_memories, update_memories

logger = logging.getLogger(__name__)

PRECISIONS = ("float32", "tf32", "bf16")


@dataclass
class TrackResult:
    """box: xywh in frame pixels [4] float64; score in [0, 1]; challenge: smoothed probabilities [classes] or None."""

    box: np.ndarray
    score: float
    challenge: np.ndarray | None


class Target:
    """What a Tracker knows of one target: where it was last, what it looks like, and its memory.

    box_xywh: [4] in frame pixels; frame_size: (height, width) of every frame; search_xywh: [4], the square that the last step
    searched, None before one; score_map: [S, S] raw, of the last step; memory: TargetMemory.
    """

    def __init__(self, box_xywh, frame_size, template_tokens, memory):
        """box_xywh: [4] in frame pixels; template_tokens: [1, T*T, C]."""
        self.box_xywh, self.size, self.frame_size = box_xywh, box_xywh[2:], frame_size
        self.template_tokens, self.memory = template_tokens, memory
        self.challenge, self.search_scale = None, 1.0
        self.search_xywh = self.score_map = None

    @torch.inference_mode()
    def state(self):
        """{name: number, array or tensor} of what a later step depends on beside the start, for `restore`."""
        state = {"box_xywh": self.box_xywh, "size": self.size, "search_scale": self.search_scale}
        if self.challenge is not None:
            state["challenge"] = self.challenge
        return {**state, **self.memory.state()}

    @torch.inference_mode()
    def restore(self, state):
        """Go on from the `state` of a target that started in the same frame and box, given as {name: tensor}."""
        self.box_xywh, self.size = state["box_xywh"].numpy(), state["size"].numpy()
        self.search_scale = float(state["search_scale"])
        if "challenge" in state:
            self.challenge = state["challenge"].numpy()
        self.memory.restore(state)


def hann_window(side):
    """Hann window [S, S]: 0.5 * (1 - cos(2 pi k / (S + 1))), k = 1..S, as an outer product."""
    return torch.outer(*[torch.hann_window(side + 2, periodic=False)[1:-1]] * 2)


@gin.register(denylist=["model", "device"])
@dataclass(eq=False, repr=False)
class Tracker(TrackerHubMixin):
    """Tracks a target through frames with a HIPTrack model: `init`, then `update` with each frame.

    `start` and `step` do the same for several targets, each in a video of its own, as one batch.

    Args:
        model: a HIPTrack.
        branch: "off" (as if there were none), "on" (challenge named and fused) or "folded" (its mean effect kept).
        memory: which frames are remembered.
        margin: the box is kept at least this many pixels wide, high and inside the frame.
        smoothing: share of the class probabilities of the frame before in those of a frame (an exponential moving
            average), in [0, 1); 0 takes each frame as it is. The boxes do not depend on it unless rules of `adaptation`
            do.
        adaptation: what is done otherwise while a challenge is likely or the score low; None: the published tracker.
        precision: "float32" (IEEE on GPUs, too); "tf32", which is faster on NVIDIA's GPUs from Ampere on, and float32
            elsewhere; or "bf16", which is faster where the processor computes in it.
        compile: whether to track with torch.compile (on GPUs with CUDA graphs); it takes a minute before the first
            frame.
        device: torch device name; "auto" takes a GPU where there is one.

    The tracker has a copy of the model, made ready for it (hiptrack/models/prepare.py).
    """

    model: torch.nn.Module
    branch: Literal["off", "on", "folded"] = "off"
    memory: MemoryPolicy | None = None
    margin: Count = 10
    smoothing: ShareBelowOne = 0.0
    adaptation: Adaptation | None = None
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    compile: bool = False
    device: str = "auto"

    def __post_init__(self):
        self._check_settings()
        self.device = open_device(self.device)
        if self.precision == "tf32" and not has_tf32(self.device):
            logger.warning("Tracker.precision = 'tf32': there is no TF32 on %s, it tracks in float32.", self.device)
        model = self.model
        if isinstance(model, torch.nn.Module):
            model = copy.deepcopy(model)  # the caller may go on training
            if self.branch == "folded":
                model.fold_challenge()
            model = prepare(model, self.precision, self.compile, self.device)
        elif self.precision != "float32" or self.compile:
            raise ConfigError(
                "Tracker.precision and Tracker.compile have no effect on an exported model: leave them out."
            )
        self.model = model.to(self.device).eval()
        self.memory = self.memory or MemoryPolicy()
        self.window = hann_window(model.grid_side).to(self.device)
        self.target = None

    def _check_settings(self):
        if self.branch not in ("off", "on", "folded"):
            raise ConfigError(f'Tracker.branch = {self.branch!r}: "off", "on" or "folded" was expected.')
        if self.branch == "on" and self.model.challenge is None:
            raise ConfigError('branch="on" needs a model with a challenge branch; this one has none.')
        require(self)
        named = self.adaptation.challenges if self.adaptation else []
        if self.branch != "on" and (self.smoothing or named):
            asked = f"a Rule names the challenge '{named[0]}'" if named else f"Tracker.smoothing = {self.smoothing}"
            raise ConfigError(f"{asked}, but only Tracker.branch = 'on' predicts challenges, not '{self.branch}'.")
        for name in named:
            if name not in self.classes:
                hint = did_you_mean(name, self.classes) or f" Known are {', '.join(self.classes)}."
                raise ConfigError(f"Rule.challenge = '{name}' is no challenge class of this model.{hint}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f'Tracker.precision = {self.precision!r}: "float32", "tf32" or "bf16" was expected.')

    @classmethod
    def from_checkpoint(cls, path, device="auto", **settings):
        """A tracker from a weights file, which says itself how to build its model.

        path: of the file, or "nano" for the one that comes with the package; settings: arguments of the constructor.
        Raises NotFoundError, CheckpointError or ConfigError, and TypeError for a setting that there is not.
        """
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                raise TypeError(f"{cls.__name__} has no setting '{name}'.{did_you_mean(name, known)}")
        path = weights_path(path)
        weights_file = WeightsFile(path)  # ahead of reading it: what is written meanwhile is another file
        tracker = cls(load_model(path), device=device, **settings)
        tracker.weights_file = weights_file
        return tracker

    @classmethod
    def nano(cls, device="auto", **settings):
        """hiptrack-nano, the tracker that comes with the package (hiptrack/nano/README.md).

        settings: arguments of the constructor. Raises ConfigError for one that does not fit.
        """
        return cls.from_pretrained(FOLDER, device=device, **settings)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the class probabilities of a result, in their order; None unless the branch is on."""
        return tuple(self.model.challenge.classes) if self.branch == "on" else None

    @property
    def multi_label(self):
        """Whether the class probabilities of a result are independent of each other, rather than summing to 1."""
        return self.branch == "on" and self.model.challenge.activation == "sigmoid"

    def init(self, frame_rgb, box_xywh):
        """Start on a target, forgetting any other. frame_rgb: [H, W, 3] uint8; box_xywh: [4] pixels.

        Raises DataError for a frame or a box that cannot be used.
        """
        self.target = self.start(frame_rgb, box_xywh)

    def update(self, frame_rgb):
        """The target in the next frame [H, W, 3] uint8 -> TrackResult.

        Raises DataError for a frame that cannot be used or is of another size than the first, to which box and memory belong, and
        CheckpointError where the model's output is not finite.
        """
        if self.target is None:
            raise DataError("Tracker.update was called before Tracker.init.")
        (result,) = self.step([self.target], [frame_rgb])
        if isinstance(result, HiptrackError):
            raise result
        return result

    @torch.inference_mode()
    def start(self, frame_rgb, box_xywh):
        """The Target in a box [4] (xywh, pixels) of a frame [H, W, 3] uint8.

        Raises DataError for a frame or a box that cannot be used.
        """
        check_frame(frame_rgb)
        box = check_box(box_xywh, frame_rgb)
        size, factor = self.model.template_size, self.model.template_factor
        template = self._to_model([crops.crop(frame_rgb, box, factor, size)])
        in_crop = crops.box_to_crop(box, box, size / crops.crop_side(box, factor), size)
        in_crop = torch.from_numpy(in_crop)[None].to(self.device)
        memory = TargetMemory(self.memory, template, in_crop)
        with self.computing():
            return Target(box, frame_rgb.shape[:2], self.model.backbone.embed_template(template), memory)

    @torch.inference_mode()
    def step(self, targets, frames_rgb):
        """B targets, each in the next frame [H, W, 3] uint8 of its own video -> B TrackResults.

        In the place of a target's result stands the HiptrackError that `update` would raise; the others do not depend
        on it.
        """
        outcomes, places, searches = [None] * len(targets), [], []
        for place, (target, frame) in enumerate(zip(targets, frames_rgb, strict=True)):
            try:
                check_frame(frame, target.frame_size)
                factor = self.model.search_factor * target.search_scale
                searches.append(crops.crop(frame, target.box_xywh, factor, self.model.search_size))
            except HiptrackError as error:
                outcomes[place] = error
                continue
            side = crops.crop_side(target.box_xywh, factor)
            target.search_xywh = np.array([*crops.crop_origin(target.box_xywh, side), side, side], np.float64)
            places.append(place)
        if places:
            sizes = [frames_rgb[place].shape[1::-1] for place in places]
            with self.computing():
                results = self._step([targets[place] for place in places], self._to_model(searches), sizes)
            for place, result in zip(places, results, strict=True):
                outcomes[place] = result
        return outcomes

    @contextmanager
    def computing(self):
        """Around a step of the model: products have the tracker's precision, a compiled model's graphs begin anew."""
        if self.compile and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # the graphs may write over what they returned in the last step
        with tf32(self.precision == "tf32", self.device):
            yield

    def _step(self, targets, search, frame_sizes):
        """`step` on crops [B, 3, Hs, Hs], normalised, of frames of (width, height)."""
        memories = [target.memory for target in targets]
        features = self.model.backbone(
            torch.cat([target.template_tokens for target in targets]),
            search,
            torch.cat([memory.template_box_xywh for memory in memories]),
        )
        read = read_memories(self.model, memories, features)
        prediction = self.model.predict(features, read, use_challenge=self.branch == "on")
        results, allowed = [], []
        score_maps = prediction.maps.score
        for target, score_map, found, size in zip(
            targets, score_maps, self._found(prediction, score_maps), frame_sizes
        ):
            target.score_map = score_map
            result, write = self._follow(target, *found, size)
            results.append(result)
            allowed.append(write)
        update_memories(self.model, memories, search, features, prediction.box_cxcywh, allowed)
        return results

    def _found(self, prediction, score_maps):
        """(box cxcywh [4] normalised, score, class probabilities or None, whether all is finite) of each of B targets.

        All of it leaves the device at once.
        """
        windowed = score_maps * self.window
        peak = windowed.flatten(1).argmax(1, keepdim=True)
        rest = [] if prediction.challenge is None else [prediction.challenge.probabilities]
        checked = torch.cat([score_maps.flatten(1), prediction.box_cxcywh, *rest], 1)
        finite = checked.isfinite().all(1, keepdim=True).float()
        parts = [prediction.maps.box_at_peak(windowed), score_maps.flatten(1).gather(1, peak), finite, *rest]
        for row in torch.cat(parts, 1).cpu().numpy():
            yield row[:4], float(row[4]), row[6:] if rest else None, bool(row[5])

    def _follow(self, target, box_cxcywh, score, probabilities, finite, frame_size):
        """Move a target to what was found -> (TrackResult or CheckpointError, whether the frame may be remembered)."""
        if not finite:
            return CheckpointError(
                "The model's output is not finite (NaN or infinite): its weights are damaged or it diverged."
            ), False
        if probabilities is not None:
            before = probabilities if target.challenge is None else target.challenge
            target.challenge = probabilities + self.smoothing * (before - probabilities)
        named = None if target.challenge is None else dict(zip(self.classes, target.challenge, strict=True))
        action = self.adaptation(named, score) if self.adaptation else Action()
        box = crops.box_from_crop(box_cxcywh, target.box_xywh, target.search_xywh[2])
        box = follow_size(box, target.size, action.size_rate)
        target.size = box[2:]  # what lies outside the frame counts: a size that is held must not shrink at the border
        target.box_xywh = crops.clip_box(box, frame_size, self.margin)
        target.search_scale = action.search_scale
        challenge = None if target.challenge is None else target.challenge.copy()
        return TrackResult(target.box_xywh.copy(), score, challenge), action.write_memory

    def _to_model(self, images):
        """B x [H, W, 3] uint8 -> [B, 3, H, W] normalised, on the device."""
        return self.model.normalise(torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2))


def open_device(name):
    """The torch device of a name; "auto" is a GPU where there is one. Raises ConfigError where it cannot be used here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter of a PyTorch without CUDA
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        raise ConfigError(
            f"The device {str(name)!r} cannot be used here: {excerpt(reason)} Expected auto or one of {', '.join(['cpu', *gpus])}."
        ) from error
    return device


def check_box(box_xywh, frame_rgb):
    """The first box [4] (xywh, pixels) as float64. Raises DataError unless it can be tracked in the frame [H, W, 3]."""
    try:
        box = np.array(box_xywh, dtype=np.float64)
    except (TypeError, ValueError):
        box = np.empty(0)
    height, width = frame_rgb.shape[:2]
    if box.shape != (4,) or not np.isfinite(box).all() or box[2] <= 0 or box[3] <= 0:
        raise DataError(f"The first box must be four finite numbers x,y,w,h with w,h > 0, not {box_xywh}.")
    if crops.are_normalised(box[None]):
        raise DataError(
            f"The first box {box.tolist()} (xywh) is smaller than a pixel: is it in pixels? One that is normalised to 0..1 is "
            f"multiplied by the frame's size, {width}x{height}."
        )
    if box[0] >= width or box[1] >= height or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
        raise DataError(f"The first box {box.tolist()} (xywh) lies outside the {width}x{height} frame.")
    if max(box[2] / width, box[3] / height) > 10:
        raise DataError(
            f"The first box {box.tolist()} (xywh) is over ten times as large as the {width}x{height} frame."
        )
    return box


def check_frame(frame_rgb, size=None):
    """Raise DataError unless this is a [H, W, 3] uint8 image, of this size (H, W) if one is given."""
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
        deep = isinstance(frame_rgb, np.ndarray) and frame_rgb.dtype == np.uint16
        hint = " hiptrack.data.depth.LevelRange turns 16 bits into 8, by one range for a video." if deep else ""
        raise DataError(f"A frame must be a uint8 RGB array [H, W, 3], not {found}.{hint}")
    if size is not None and frame_rgb.shape[:2] != size:
        raise DataError(
            f"The frame has {frame_rgb.shape[1]}x{frame_rgb.shape[0]} pixels, those before it {size[1]}x{size[0]}: one size was "
            "expected throughout. Resize it, or begin anew with Tracker.init and the target's box in it."
        )


def parts_of(path: Path) -> tuple[Path, dict[str, object]]:
    """A checkpoint's weights file, and the folder's settings of the Tracker that the loaded configuration leaves open.

    Raises CheckpointError for settings that cannot be read.
    """
    if not is_tracker_folder(path):
        return path, {}
    bound = {name.split("/")[-1] for name in bound_values()}
    stored = stored_settings(path / SETTINGS, Tracker)
    return path / WEIGHTS, {name: value for name, value in stored.items() if f"Tracker.{name}" not in bound}
