"""The world as a source of training clips: any number of scenes, drawn when a loader asks for them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import gin
import numpy as np
from annotated_types import Ge

from hiptrack import crops
from hiptrack.data.labels import FrameLabels
from hiptrack.data.reading import nearest_name
from hiptrack.errors import ConfigError, did_you_mean
from hiptrack.extras.world import shapes as shape_families
from hiptrack.extras.world import textures as texture_families
from hiptrack.extras.world.scene import Scene, SceneDifficulty, blacken, crop_view, make_scene, render, smears
from hiptrack.extras.world.sea import make_sea_scene
from hiptrack.extras.world.textures import open_bank
from hiptrack.ranges import Count, Index, Share
from hiptrack.taxonomy import TEN, Taxonomy


@gin.register
@dataclass(eq=False)
class World(SceneDifficulty):
    """Procedural scenes in the place of a data set: one of `ClipData.datasets`, alone or beside real ones.

    Domain randomisation (Tobin et al., IROS 2017): so varied that real video is one more variation. A scene is a pure
    function of (seed, its number) and of the parameters; it has a whole target, look-alikes, bystanders, layers behind
    them, a camera, light and weather, and its challenge labels are known as it is made. Strengths are 0 (never) to 1,
    and may rise from stage to stage.

    Args:
        seed: another one is another world.
        scenes: number of different scenes.
        frames: length of a scene.
        canvas: side in pixels of the pictures that things are made of: about twice their size in a crop.
        textures, shapes: families that it is made of; None: those for training (textures.py, shapes.py). At sea
            there are vessels in the place of shapes.
        sizes: smallest and largest mean size (square root of the box's area) of a target, in frame pixels. Of a vessel
            it is the mean of what is seen and of what would be seen from abeam.
        speed: about the largest way of a target between two frames, in its sizes.
        camera: how much the camera moves, shakes, turns and zooms.
        deformation: how much targets turn, bend and swing their limbs.
        lookalikes: mean number of things like the target near it.
        clutter: mean number of other things near it.
        camouflage: chance that the target has the colours of its background.
        occlusion: chance that something passes before the target, and how much of it that hides.
        cut: chance that the target leaves the frame partly.
        light: chance and strength of shadows, glare and changes of light and colour.
        weather: chance and strength of fog and rain.
        blur: chance of motion blur, defocus and coarse pixels.
        noise: chance and strength of sensor noise.
        compression: chance that frames were compressed.
        sea: share of the scenes that are at sea: vessels before sky and shore, with waves, wakes, buoys and piers.
        name: in reports.

    Raises ConfigError for sizes in the wrong order and for a family that does not exist.
    """

    is_endless = True

    seed: Index = 0
    scenes: Count = 10**7
    frames: Annotated[int, Ge(2)] = 60
    canvas: Annotated[int, Ge(16)] = 64
    textures: list[str] | None = None
    shapes: list[str] | None = None
    sea: Share = 0.0
    name: str = "world"

    def __post_init__(self):
        if self.sizes[0] > self.sizes[1]:
            raise ConfigError(f"World.sizes = {tuple(self.sizes)}: (smallest, largest) was expected.")
        self.taxonomy = TEN
        self.textures = _families("textures", self.textures, texture_families)
        self.shapes = _families("shapes", self.shapes, shape_families)

    @property
    def sequences(self) -> "Scenes":
        return Scenes(self)

    @property
    def labelled_frames(self) -> int:
        return self.scenes * self.frames

    def scene(self, number: int, size: tuple[int, int] | None = None) -> Scene:
        """The scene `number` (0-based), with frames of `size` (w, h) or of its own."""
        rng, bank = np.random.default_rng((self.seed, number)), open_bank(self.seed, self.textures)
        if self.sea and rng.random() < self.sea:
            return make_sea_scene(rng, bank, self.frames, self.canvas, self, size)
        return make_scene(rng, bank, self.shapes, self.frames, self.canvas, self, size)

    def share(self, read: dict) -> None:
        """Nothing is read."""

    def label_by(self, taxonomy: Taxonomy, annotations: str | None = None) -> None:
        """Label frames by a taxonomy; annotations are not read. Raises ConfigError for a flag that no scene shows."""
        known = TEN
        for parameter in ("vlm", "cv"):
            flags = getattr(known, parameter)
            for flag in getattr(taxonomy, parameter):
                if flag not in flags:
                    raise ConfigError(
                        f"Taxonomy.{parameter}: the procedural world shows no '{flag}'. Expected flags of "
                        f"{', '.join(flags)}.{did_you_mean(flag, flags)}"
                    )
        self.taxonomy = taxonomy

    def missing_paths(self) -> list[str]:
        return []

    def describe(self) -> str:
        return f"{self.name}: {self.scenes} procedural scenes of {self.frames} frames, all labelled"


def _families(parameter, wanted, module):
    """The names wanted, or those for training; ConfigError where one does not exist."""
    for family in wanted or ():
        if family not in module.FAMILIES:
            raise ConfigError(f"World.{parameter} names {family!r}. {nearest_name(family, list(module.FAMILIES))}")
    if wanted is not None and not wanted:
        raise ConfigError(f"World.{parameter} is empty: at least one of {', '.join(module.FAMILIES)} was expected.")
    return module.TRAINING if wanted is None else tuple(wanted)


class Scenes:
    """The scenes of a World by number, each a SceneSequence."""

    def __init__(self, world: World):
        self._world = world

    def __len__(self):
        return self._world.scenes

    def __getitem__(self, number):
        return SceneSequence(f"scene_{number:08d}", self._world.scene(int(number)), self._world.taxonomy)


class SceneSequence:
    """A scene in the form of a `dataset.Sequence`; its frames draw their own crops."""

    is_still = False

    def __init__(self, name: str, scene: Scene, taxonomy: Taxonomy):
        self.name, self.scene, self.taxonomy = name, scene, taxonomy
        self.boxes_xywh, self.visible = visible_boxes(scene)
        self.frames = [SceneFrame(scene, frame) for frame in range(scene.frames)]

    def __len__(self):
        return len(self.frames)

    @cached_property
    def labels(self) -> FrameLabels:
        held, taxonomy = flags(self.scene), self.taxonomy
        columns = np.zeros((len(self), len(taxonomy.challenges)), bool)
        for flag, column in (taxonomy.vlm_columns | taxonomy.cv_columns).items():
            columns[:, column] |= held[flag]
        return FrameLabels(columns, np.ones(len(self), bool), taxonomy)


@dataclass(frozen=True)
class SceneFrame:
    """A frame of a scene that was not drawn yet."""

    scene: Scene
    number: int

    def crop(self, box_xywh, factor, side_out):
        """What `crops.crop` would make of the drawn frame, drawn at the crop's resolution; EmptyCrop as there."""
        left, top, x2, y2 = crops.shown(box_xywh, factor, self.scene.size)
        view = crop_view(left, top, crops.crop_side(box_xywh, factor), side_out)
        picture = render(self.scene, self.number, view, (side_out, side_out))
        blacken(picture, view, (max(left, 0), max(top, 0), x2, y2))
        return picture


HIDDEN = 0.15  # share of the target behind what passes: from here on a frame counts as occluded
OUTSIDE = 0.08  # share of the box outside the frame: partially visible
GROWN = 1.5  # factor of the size since the first frame, up or down: scale variation
TURNED = 0.5  # radians of turning or of yaw since the first frame: appearance variation
SMEARED = 0.15  # way while the shutter is open, in target sizes: motion blur
DEFOCUSED = 0.045  # standard deviation, in target sizes: it counts as motion blur too (the classes know no other blur)
DIMMED = 0.25  # change of the logarithm of the light in any channel: illumination change
GLARING = 80.0  # grey levels
SMALL = 400.0  # pixels of the box (OTB: low resolution)
FEW_CELLS = 14.0  # coarse pixels across the target: low resolution
NEAR = 1.8  # target sizes: a look-alike so near, or ...
CROWD = 5  # ... so many bystanders are background clutter
FOGGY = 0.4  # share of fog: low contrast
SEEN = 0.2  # share of the box inside the frame and not hidden, below which a frame shows no target
SMALLEST_SIDE = 3.0  # pixels of what is inside the frame


def visible_boxes(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """(xywh [n, 4]: the whole target as far as it lies inside the frame, hidden parts included, as in GOT-10k; [n]
    bool: it is seen)."""
    x1, y1, x2, y2 = _clipped(scene.target.boxes, scene.size).T
    width, height = np.maximum(x2 - x1, 0), np.maximum(y2 - y1, 0)
    seen = (inside_share(scene) * (1 - hidden_share(scene)) >= SEEN) & (np.minimum(width, height) >= SMALLEST_SIDE)
    return np.column_stack((x1, y1, width, height)), seen


def inside_share(scene: Scene) -> np.ndarray:
    """[n]: the share of the target's box that lies inside the frame."""
    return _area(_clipped(scene.target.boxes, scene.size)) / np.maximum(_area(scene.target.boxes), 1e-6)


def hidden_share(scene: Scene) -> np.ndarray:
    """[n]: the share of the target that is behind what passes before it, as `share_behind` finds it."""
    hidden = np.zeros(scene.frames)
    for passer in scene.passers:
        hidden = np.maximum(hidden, scene.target.share_behind(passer))
    return hidden


def flags(scene: Scene) -> dict[str, np.ndarray]:
    """{flag of an annotation file: [n] bool}; several may hold at once."""
    effects, track, frames = scene.effects, scene.target.track, scene.frames
    size = np.sqrt(np.maximum(_area(scene.target.boxes), 1.0))
    smeared = np.hypot(*smears(scene, scene.target).T)
    distances = [np.hypot(*(like.track.position - track.position).T) / size for like in scene.likes]
    centres = [bystander.centres for bystander in scene.bystanders]
    beside = sum((np.hypot(*(centre - track.position).T) < NEAR * size).astype(int) for centre in centres)
    return {
        "occlusion": hidden_share(scene) > HIDDEN,
        "illu_change": (np.abs(np.log(effects.gain)).max(1) > DIMMED) | (effects.glare[:, 2] > GLARING),
        "scale_variation": np.abs(np.log(size / size[0])) > np.log(GROWN),
        "motion_blur": (smeared > SMEARED * size) & (smeared > 2) | (effects.defocus > DEFOCUSED * size),
        "variance_appear": np.maximum(_turned(track.angle), _turned(track.yaw)) > TURNED,
        "partial_visibility": inside_share(scene) < 1 - OUTSIDE,
        "low_res": (size**2 < SMALL) | (effects.coarse * FEW_CELLS > size),
        "background_clutter": (np.min(distances, 0) < NEAR if distances else np.zeros(frames, bool))
        | (beside >= CROWD),
        "low_contrast": (effects.fog > FOGGY) | scene.is_camouflaged,
    }


def _turned(angle):
    return np.abs(angle - angle[0])


def _clipped(boxes, size):
    return np.clip(boxes, 0, np.array((*size, *size), float))


def _area(boxes):
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
