"""The sea: sky and shore, and below the horizon waves in perspective, glint, wakes and mirror images.

The camera looks level, so the horizon is the world's row 0, and what lies d pixels below it is 1 / d away. Things at sea
are taller or smaller as they are nearer or farther.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hiptrack.extras.world.backgrounds import Layer, make_layer, skyline
from hiptrack.extras.world.drawing import chain, draw, scale_of, thrice
from hiptrack.extras.world.motion import Camera
from hiptrack.extras.world.textures import WAVE_SIZE, WAVES, Bank, natural_colour, near_colour

# Sky at the zenith, sky at the horizon, near sea, far sea.
WEATHERS = (
    ((60, 120, 190), (190, 215, 235), (20, 80, 110), (60, 120, 150)),
    ((155, 165, 175), (198, 203, 205), (80, 92, 95), (128, 138, 140)),
    ((90, 150, 205), (205, 225, 240), (30, 130, 130), (80, 160, 170)),
    ((80, 85, 120), (215, 165, 130), (55, 65, 85), (125, 110, 110)),
    ((130, 140, 150), (188, 190, 190), (60, 80, 70), (110, 125, 120)),
)
UNUSUAL = 0.2  # share of seas of any colours
FOAM = 238.0
FOAM_OPACITY = 0.6
MIRRORED = 0.4  # opacity of a mirror image
_SUB = 4


@dataclass(frozen=True)
class Water:
    """near, far [3]: its colours; crests: grey levels of its waves; waves: two numbers below WAVES; drift [2, 2]: by
    which they move, in texture pixels per frame; depth: world pixels between the horizon and the target's usual place;
    focal: of the camera, in pixels; sun: the world's column below it, or None: no glint."""

    near: np.ndarray
    far: np.ndarray
    crests: float
    waves: tuple[int, int]
    drift: np.ndarray
    depth: float
    focal: float
    sun: float | None


def plan_sea(rng: np.random.Generator, size: tuple[int, int], depth: float, focal: float) -> tuple[list[Layer], Water]:
    """(sky and shore, the farthest first; the water before them); depth, focal: of Water."""
    if rng.random() < UNUSUAL:
        sky, near = natural_colour(rng), natural_colour(rng)
        zenith, far = near_colour(rng, sky, 40), (near + sky) / 2
    else:
        zenith, sky, near, far = (
            WEATHERS[rng.integers(len(WEATHERS))] + rng.normal(0, 10, (4, 1)) + rng.normal(0, 4, (4, 3))
        )
    level = np.array((rng.uniform(0.3, 0.9), 1.0))  # the share of the camera's way, to the side and up
    gradient = float((sky - zenith).mean()) * rng.uniform(0.5, 1.5)
    layers = [make_layer(rng, (zenith + sky) / 2, level, None, (2, 25), gradient, zoom=rng.uniform(4, 10), softness=2)]
    low = size[0], size[1] * rng.uniform(0.05, 0.5)
    for farness in np.sort(rng.uniform(0.1, 0.8, rng.integers(0, 3)))[::-1]:
        land = natural_colour(rng)
        layers.append(make_layer(rng, land + farness * (sky - land), level, skyline(rng, low, 0.0), (4, 40)))
    water = Water(
        near=near,
        far=far,
        crests=rng.uniform(12, 50),
        waves=tuple(rng.integers(0, WAVES, 2).tolist()),
        drift=rng.normal(0, 2.5, (2, 2)),
        depth=depth,
        focal=focal,
        sun=rng.uniform(-0.6, 0.6) * size[0] if rng.random() < 0.4 else None,
    )
    return layers, water


def lay_water(
    picture: np.ndarray, water: Water, bank: Bank, camera: Camera, frame: int, view: np.ndarray, afloat: Sequence
) -> None:
    """Covers what lies below the horizon. afloat: what floats there and leaves wakes and mirror images (sea.Afloat)."""
    back = cv2.invertAffineTransform(chain(view, camera.affine(frame)))  # from the picture to the world
    height, width = picture.shape[:2]
    across, down = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    x, depth = (np.float32(a) * across + np.float32(b) * down + np.float32(c) for a, b, c in back)
    if depth.max() <= 0:
        return
    nearness = np.maximum(depth, 0) / np.float32(water.depth)
    pixel = max(scale_of(back), 1 / camera.zoom[frame])
    waves = _waves(water, bank, depth, frame, back, pixel) * np.clip(cv2.pow(nearness, 0.7), 0.12, 1.3)
    share = cv2.exp(-2 * nearness)
    crests = np.float32(water.crests) * waves
    if water.sun is not None:
        beam = cv2.exp(-(((x - np.float32(water.sun)) / np.float32(0.12 * camera.size[0])) ** 2))
        crests += 120 * beam * np.clip(waves - 0.1, 0, 1)
    sea = cv2.merge(
        [share * np.float32(far - near) + crests + np.float32(near) for near, far in zip(water.near, water.far)]
    )
    _lay_foam(sea, waves, [outline for actor in afloat for outline in actor.foam(frame)], view)
    for actor in afloat:
        look, affine, scale = actor.mirrored(frame)
        draw(sea, look, chain(view, affine), scale)
    edge = np.clip(depth / np.float32(scale_of(back)) + 0.5, 0, 1)  # half a pixel to both sides of the horizon
    picture += thrice(edge) * (sea - picture)


def _waves(water, bank, depth, frame, back, pixel):
    """float32 [h, w], about -1..1 where they are nearest; pixel: the world's pixels that a pixel of the frame shows.

    Far water is seen so flat that many crests fall into one pixel: it is drawn from tiles of fewer rows.
    """
    total = np.zeros(depth.shape, np.float32)
    for number, density, speed in zip(water.waves, (1.0, 0.37), water.drift, strict=True):
        levels, wide = bank.waves(number), density * water.depth
        # a point of the water at x, d of the world lies at (x / d, focal / d)
        rows = wide * water.focal * pixel / np.maximum(depth, 1e-3) ** 2  # of the tile, in a pixel
        level = np.clip(np.rint(np.log2(rows)), 0, len(levels) - 1).astype(np.uint8)
        (right, away), points = speed * frame % WAVE_SIZE, np.concatenate((back, [(0, 0, 1)]))
        for which in np.unique(level):
            here = cv2.inRange(level, int(which), int(which))
            left, top, width, height = cv2.boundingRect(here)
            shrunk = 0.5**which
            to_tile = np.array(((wide, right, 0), (0, shrunk * away, shrunk * wide * water.focal), (0, 1, 0)))
            matrix = to_tile @ points @ np.array(((1, 0, left), (0, 1, top), (0, 0, 1)))
            drawn = cv2.warpPerspective(
                levels[which], matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_WRAP,
            )  # fmt: skip
            where = np.s_[top : top + height, left : left + width]
            total[where] += np.where(here[where], drawn.astype(np.float32) - 128, 0)
    return total / np.float32(90)


def _lay_foam(sea, waves, outlines, view):
    """Lays white water, broken up by the waves, over outlines [k, 2] in the frame."""
    foam = np.zeros(waves.shape, np.uint8)
    for outline in outlines:
        corners = np.round((outline @ view[:, :2].T + view[:, 2]) * 2**_SUB)
        cv2.fillPoly(foam, [np.clip(corners, -(2**20), 2**20).astype(np.int32)], 255, cv2.LINE_AA, _SUB)
    left, top, width, height = cv2.boundingRect(foam)
    if width:
        where = np.s_[top : top + height, left : left + width]
        share = foam[where] * np.clip(0.75 + 0.45 * waves[where], 0.15, 1) * np.float32(FOAM_OPACITY / 255)
        sea[where] += thrice(share) * (np.float32(FOAM) - sea[where])
