"""A scene: everything that is seen in n frames, planned from one generator; and its pictures, whole or in part."""

import math
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from annotated_types import Ge, Interval

from hiptrack.extras.world.backgrounds import Layer, draw_layers, plan_layers
from hiptrack.extras.world.drawing import UNBLURRED, Levels, chain, draw, motion_blurred, placed, scale_of, thrice
from hiptrack.extras.world.effects import Effects, lay_weather, light_up, plan_effects, take
from hiptrack.extras.world.motion import (
    Camera,
    Track,
    envelope,
    plan_bystander,
    plan_camera,
    plan_companion,
    plan_passer,
    plan_target,
)
from hiptrack.extras.world.objects import Thing, extents, flattened, make_like, make_thing, posed_parts
from hiptrack.extras.world.textures import THINGS, Bank
from hiptrack.extras.world.water import Water, lay_water
from hiptrack.ranges import Share

FRAME_SIZES = ((640, 360), (480, 360), (854, 480), (640, 480), (1280, 720), (360, 480))
BANK_THINGS = 240  # bystanders are taken from so many
WHOLE = np.eye(2, 3)
LIKE_PASSES = 0.25  # share of what passes before a target that is its like
LONGEST_BLUR = 0.7  # of the target's size
GRID = 4  # pixels of a canvas between the points by which is found how much is hidden


@dataclass(eq=False)
class SceneDifficulty:
    """How hard scenes are: those parameters of `World`, where they are explained."""

    sizes: tuple[Annotated[float, Ge(4)], Annotated[float, Ge(4)]] = (14.0, 260.0)
    speed: Annotated[float, Interval(ge=0, le=100)] = 0.5
    camera: Share = 0.5
    deformation: Share = 0.5
    lookalikes: Annotated[float, Interval(ge=0, le=1000)] = 1.0
    clutter: Annotated[float, Interval(ge=0, le=1000)] = 6.0
    camouflage: Share = 0.35
    occlusion: Share = 0.35
    cut: Share = 0.2
    light: Share = 0.5
    weather: Share = 0.25
    blur: Share = 0.4
    noise: Share = 0.4
    compression: Share = 0.3


@dataclass(frozen=True)
class Actor:
    """A thing on its way. affines [n, 2, 3]: from its canvas to the frames; boxes [n, 4]: xyxy of all of it."""

    thing: Thing
    track: Track
    affines: np.ndarray
    boxes: np.ndarray

    def parts(self, frame):
        """(look, affine to the frame, frame pixels per canvas pixel) of each part, in the order of drawing."""
        affine = self.affines[frame]
        scale = scale_of(affine)
        return [
            (look, chain(affine, own), scale)
            for look, own in posed_parts(self.thing, frame, float(self.track.yaw[frame]))
        ]

    def share_behind(self, passer):
        """[n]: the share of it that is behind another one, by points on it, the limbs of both at rest."""
        outline = flattened(self.thing)[::GRID, ::GRID, 3] > 127
        points = np.argwhere(outline)[:, ::-1] * GRID
        places = points @ self.affines[:, :, :2].transpose(0, 2, 1) + self.affines[:, None, :, 2]
        alpha = flattened(passer.thing)[..., 3]
        back = np.linalg.inv(passer.affines[:, :, :2]).transpose(0, 2, 1)
        at = np.rint((places - passer.affines[:, None, :, 2]) @ back).astype(int)
        within = ((at >= 0) & (at < len(alpha))).all(2)
        at = np.where(within[..., None], at, 0)
        return (within & (alpha[at[..., 1], at[..., 0]] > 127)).mean(1)


@dataclass(frozen=True)
class Bystander:
    """A thing of the bank that stands or drifts. affines [n, 2, 3]; gain [3] of its colours; middle [2] of its canvas."""

    levels: Levels
    affines: np.ndarray
    gain: np.ndarray
    middle: np.ndarray

    @property
    def centres(self):
        """[n, 2] in the frames."""
        return self.affines[:, :, :2] @ self.middle + self.affines[:, :, 2]


@dataclass(frozen=True)
class Scene:
    """All of it; a pure function of the generator, the bank's seed and families, and the difficulty.

    At sea there is water before the layers, and likes, target and passers are each Afloat (sea.py).
    """

    size: tuple[int, int]
    bank: Bank
    camera: Camera
    layers: list[Layer]
    bystanders: list[Bystander]
    likes: list[Actor]
    target: Actor
    passers: list[Actor]
    effects: Effects
    shadow: tuple[float, float] | None  # where the target's shadow falls, in its sizes
    is_camouflaged: bool
    water: Water | None = None

    @property
    def frames(self):
        return len(self.camera.zoom)


def make_scene(
    rng: np.random.Generator, bank: Bank, shapes: tuple[str, ...], frames: int, side: int, difficulty: SceneDifficulty,
    size: tuple[int, int] | None = None,
) -> Scene:  # fmt: skip
    """Plans a scene of `frames` frames of `size` (w, h; None: of FRAME_SIZES); canvases of things: `side` pixels."""
    hard = difficulty
    size = FRAME_SIZES[rng.integers(len(FRAME_SIZES))] if size is None else size
    camera = plan_camera(rng, frames, size, hard.camera)
    layers = plan_layers(rng, size)
    is_camouflaged = bool(rng.random() < hard.camouflage)
    base = layers[int(rng.integers(len(layers)))].mean if is_camouflaged else None
    thing = make_thing(rng, bank, shapes[rng.integers(len(shapes))], side, hard.deformation, base)
    _, reach = _measures(thing)
    track = plan_target(rng, camera, hard.sizes, 1.1 * reach, hard.speed, hard.deformation, hard.cut)
    target = _actor(thing, track)
    likes = [
        _actor(make_like(rng, bank, thing, hard.deformation), plan_companion(rng, track, hard.deformation))
        for _ in range(min(rng.poisson(hard.lookalikes), 6))
    ]
    passers = []
    if rng.random() < hard.occlusion:
        if rng.random() < LIKE_PASSES:
            occluder = make_like(rng, bank, thing, 0.0)
        else:
            occluder = make_thing(rng, bank, shapes[rng.integers(len(shapes))], side, 0.0, base)
        passers.append(_actor(occluder, plan_passer(rng, track, envelope(rng, frames), 0.6 + 0.6 * hard.occlusion)))
    bystanders = [_bystander(rng, bank, shapes, side, camera, track) for _ in range(min(rng.poisson(hard.clutter), 40))]
    effects = plan_effects(
        rng, frames, size, track, light=hard.light, weather=hard.weather, blur=hard.blur, noise=hard.noise,
        compression=hard.compression,
    )  # fmt: skip
    shadow = (rng.normal(0, 0.4), rng.uniform(0.05, 0.35)) if rng.random() < 0.5 * hard.light else None
    return Scene(size, bank, camera, layers, bystanders, likes, target, passers, effects, shadow, is_camouflaged)


def _actor(thing, track):
    affines = track.affines(thing.side, _measures(thing)[0])
    return Actor(thing, track, affines, extents(thing, np.arange(len(track.size)), affines))


def _measures(thing):
    """(root of the area of a thing's box at rest, how far it goes from the canvas's centre), in canvas pixels."""
    x1, y1, x2, y2 = box = extents(thing, np.zeros(1), WHOLE[None])[0]
    size = max(math.sqrt((x2 - x1) * (y2 - y1)), 1.0)
    return size, np.abs(box - thing.side / 2).max() / size


def _bystander(rng, bank, shapes, side, camera, track):
    number = int(rng.integers(BANK_THINGS))
    family = shapes[number % len(shapes)]
    levels = bank.once((THINGS, number, side), lambda own: Levels(flattened(make_thing(own, bank, family, side, 0.5))))
    affines = plan_bystander(rng, camera, track).affines(side, 0.65 * side)
    return Bystander(levels, affines, np.exp(rng.normal(0, 0.25) + rng.normal(0, 0.1, 3)), np.full(2, side / 2))


def render(scene: Scene, frame: int, view: np.ndarray = WHOLE, size: tuple[int, int] | None = None) -> np.ndarray:
    """The picture of a frame (0-based), uint8 RGB [h, w, 3], of `size` (w, h), to which `view` [2, 3] takes the frame.

    By default the whole frame. It goes on beyond the frame's border.
    """
    size = scene.size if size is None else size
    effects, camera = scene.effects, scene.camera
    to_frame = camera.affine(frame)
    picture = draw_layers(scene.layers, scene.bank, camera, frame, view, size)
    if scene.water is not None:
        afloat = (*scene.likes, scene.target, *scene.passers)
        lay_water(picture, scene.water, scene.bank, camera, frame, view, afloat)
    for bystander in scene.bystanders:
        affine = bystander.affines[frame]
        scale = scale_of(affine)
        draw(picture, bystander.levels, chain(view, affine), scale, gain=bystander.gain)
    if effects.shutter[frame] > 0:
        picture = _smeared(picture, scene, frame, view)
    for like in scene.likes:
        _draw_actor(picture, scene, like, frame, view)
    if scene.shadow is not None:
        _cast_shadow(picture, scene.target, frame, view, scene.shadow)
    _draw_actor(picture, scene, scene.target, frame, view)
    for passer in scene.passers:
        _draw_actor(picture, scene, passer, frame, view)
    picture = light_up(picture, effects, scene.bank, frame, to_frame, view)
    picture = lay_weather(picture, effects, scene.bank, frame, view)
    return take(picture, effects, scene.bank, frame, view)


def target_mask(scene: Scene, frame: int, with_passers: bool = False) -> np.ndarray:
    """float32 [h, w] in 0..1: where the target is; with_passers: where it is seen, not hidden by what passes."""
    mask = np.zeros((scene.size[1], scene.size[0], 1), np.float32)
    for look, affine, scale in scene.target.parts(frame):
        _cover(mask, look, affine, scale)
    if with_passers:
        hidden = np.zeros_like(mask)
        for passer in scene.passers:
            for look, affine, scale in passer.parts(frame):
                _cover(hidden, look, affine, scale)
        mask *= 1 - hidden
    return mask[..., 0]


def _cover(mask, look, affine, scale):
    patch, where = placed(mask.shape, look, affine, scale)
    if patch is not None:
        mask[where] += (1 - mask[where]) * patch[..., 3:] / 255


def smears(scene: Scene, actor: Actor) -> np.ndarray:
    """[n, 2]: the ways (right, down) in frame pixels that an actor runs while the shutter is open."""
    steps = np.gradient(actor.track.position, axis=0)
    return _limited(scene.effects.shutter[:, None] * steps, LONGEST_BLUR * scene.target.track.size[:, None])


def _limited(paths, longest):
    return paths * np.minimum(1, longest / np.maximum(np.hypot(*paths.T)[:, None], 1e-6))


def _draw_actor(picture, scene, actor, frame, view):
    blur = UNBLURRED
    if scene.effects.shutter[frame] > 0:
        blur = view[0, 0] * smears(scene, actor)[frame]
    for look, affine, scale in actor.parts(frame):
        draw(picture, look, chain(view, affine), scale, blur)


def _smeared(picture, scene, frame, view):
    """A picture of what stands still, smeared as the camera moves."""
    camera, effects = scene.camera, scene.effects
    steps = -camera.zoom[:, None] * np.gradient(camera.centre, axis=0)
    paths = _limited(effects.shutter[:, None] * steps, LONGEST_BLUR * scene.target.track.size[:, None])
    path = view[0, 0] * paths[frame]
    return motion_blurred(picture, path) if max(abs(path)) >= 1 else picture


def _cast_shadow(picture, actor, frame, view, place):
    """Darkens where the target's outline, pressed flat and softened, falls on the ground."""
    body, affine = actor.thing.body, actor.affines[frame]
    x1, _, x2, y2 = actor.boxes[frame]
    flat = np.array(((1, 0.6 * place[0], 0), (0, 0.5, 0)))
    foot = np.array(((x1 + x2) / 2, y2))
    flat[:, 2] = foot - flat[:, :2] @ foot + actor.track.size[frame] * np.array((place[0] * 0.2, place[1] * 0.3))
    scale = scale_of(affine)
    patch, where = placed(picture.shape, body.levels, chain(view, chain(flat, affine)), scale / 4)  # coarse: a soft rim
    if patch is not None:
        picture[where] *= thrice(1 - cv2.extractChannel(patch, 3) * np.float32(0.5 / 255))


def crop_view(left: int, top: int, side: int, side_out: int) -> np.ndarray:
    """[2, 3]: the frame into the crop of a square of `side` pixels at (left, top), as cv2.resize maps it."""
    scale = side_out / side
    return np.array(((scale, 0, (0.5 - left) * scale - 0.5), (0, scale, (0.5 - top) * scale - 0.5)))


def blacken(picture: np.ndarray, view: np.ndarray, shown: tuple[int, int, int, int]) -> None:
    """Makes black what lies outside the frame's pixels x1 <= x < x2, y1 <= y < y2 (`shown`: x1, y1, x2, y2)."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = shown
    left, right = (max(0, min(width, math.ceil(view[0, 0] * (x - 0.5) + view[0, 2]))) for x in (x1, x2))
    top, bottom = (max(0, min(height, math.ceil(view[1, 1] * (y - 0.5) + view[1, 2]))) for y in (y1, y2))
    picture[:top], picture[bottom:], picture[:, :left], picture[:, right:] = 0, 0, 0, 0
