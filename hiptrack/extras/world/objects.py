"""Things: shapes clothed in materials, shaded, with details by which one is told from its like; and how they are posed.

A sprite's canvas is [S, S] pixels; an affine [2, 3] takes canvas coordinates to the frame's.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from hiptrack.extras.world.drawing import Levels, affines, compose, draw, lay, thrice
from hiptrack.extras.world.shapes import HOLE, Limb, Shape, ellipse, make_shape, outline, stick
from hiptrack.extras.world.textures import TEXTURES, Bank, colouring, natural_colour, near_colour

FILL = 0.8  # share of a canvas's half that the unit of a shape takes
MATERIALS = 4
_SUB = 4  # bits below the pixel in OpenCV's corners


@dataclass(frozen=True)
class Sprite:
    """colour uint8 [S, S, 3] RGB, everywhere; alpha uint8 [S, S]; hull [n, 2], the corners of what alpha shows."""

    colour: np.ndarray
    alpha: np.ndarray
    hull: np.ndarray

    @cached_property
    def levels(self):
        """To be drawn as it is."""
        return Levels(compose(self.colour, self.alpha))


@dataclass(frozen=True)
class Hinge:
    """A limb: its joint in the body's canvas and its own, [2] each, and how it swings (radians, radians per frame)."""

    sprite: Sprite
    joint: np.ndarray
    origin: np.ndarray
    rest: float
    swing: float
    pace: float
    phase: float
    behind: bool

    def affine(self, frame):
        """[..., 2, 3] from the limb's canvas to the body's, at a frame or at each of some frames."""
        angle = self.rest + self.swing * np.sin(self.pace * np.asarray(frame) + self.phase)
        c, s = np.cos(angle), np.sin(angle)
        return affines((c, -s, s, c), self.origin, self.joint)


@dataclass(frozen=True)
class Bend:
    """A soft body's waves: amplitudes in canvas sides, waves per side, radians per frame, phases; x and y each."""

    amplitude: np.ndarray
    waves: np.ndarray
    pace: np.ndarray
    phase: np.ndarray

    def displacement(self, points, frame, side):
        """[..., 2]: what the canvas shows at `points` lies that much further, in canvas pixels."""
        angle = 2 * np.pi * self.waves * points[..., ::-1] / side + self.pace * frame + self.phase
        return side * self.amplitude * np.sin(angle)


@dataclass(frozen=True)
class Thing:
    """A body with limbs. `shape` and `materials` are kept to make its like."""

    shape: Shape
    stretch: np.ndarray
    materials: tuple[np.ndarray, ...]
    body: Sprite
    hinges: tuple[Hinge, ...]
    bend: Bend | None

    @property
    def side(self):
        """Pixels of its canvas."""
        return self.body.alpha.shape[0]


def make_thing(
    rng: np.random.Generator, bank: Bank, family: str, side: int, deformation: float, base: np.ndarray | None = None
) -> Thing:
    """A new thing on a canvas of `side` pixels.

    deformation: how much its limbs swing and its body bends, 0..1. base: the colour [3] that its materials are near to;
    None: any colours.
    """
    stretch = np.exp(rng.normal(0, 0.22, 2))
    stretch = stretch / stretch.max()
    shape = make_shape(rng, family)
    materials = make_materials(rng, bank, side, base)
    return _clothe(rng, shape, stretch, materials, deformation)


def make_materials(rng, bank, side, base):
    """MATERIALS pictures uint8 [side, side, 3], often alike in colour."""
    colours = [natural_colour(rng) if base is None else near_colour(rng, base, 16)]
    for _ in range(MATERIALS - 1):
        colours.append(near_colour(rng, colours[0], 30) if rng.random() < 0.5 else natural_colour(rng))
    return tuple(_material(rng, bank, side, colour) for colour in colours)


def _material(rng, bank, side, colour):
    texture = bank.texture(int(rng.integers(TEXTURES)))[int(rng.integers(2))]
    cut = min(int(side * np.exp(rng.uniform(-0.9, 1.2))), texture.shape[0] - 1)
    x, y = rng.integers(0, texture.shape[0] - cut, 2)
    patch = cv2.resize(texture[y : y + cut, x : x + cut], (side, side), interpolation=cv2.INTER_LINEAR)
    return cv2.transform(patch, colouring(rng, colour, np.exp(rng.uniform(np.log(5), np.log(60)))))


def make_like(rng: np.random.Generator, bank: Bank, thing: Thing, deformation: float) -> Thing:
    """A look-alike: the same shape, of slightly other colours and details, or with some materials exchanged."""
    if rng.random() < 0.5:
        kept = rng.random(MATERIALS) < 0.5
        materials = [
            old if keep else _material(rng, bank, thing.side, natural_colour(rng))
            for old, keep in zip(thing.materials, kept, strict=True)
        ]
    else:
        shift = tuple(rng.normal(0, 14, 3).tolist())
        materials = [cv2.add(material, (*shift, 0.0)) for material in thing.materials]
    stretch = thing.stretch * rng.uniform(0.85, 1.0, 2)
    return _clothe(rng, thing.shape, stretch, tuple(materials), deformation)


def _clothe(rng, shape, stretch, materials, deformation):
    side = materials[0].shape[0]
    light = _light(rng)
    scale, centre = FILL * side / 2, np.array((side / 2 - 0.5, side / 2 - 0.5))
    body = _paint(rng, shape.pieces, materials, scale * stretch, centre, (side, side), light, int(rng.integers(0, 9)))
    hinges = [_hinge(rng, limb, materials, scale * stretch, centre, light, deformation) for limb in shape.limbs]
    bend = None
    if deformation > 0 and not hinges and rng.random() < 0.7:
        amplitude = deformation * rng.uniform(0.0, 0.05, 2)
        bend = Bend(amplitude, rng.uniform(0.4, 1.6, 2), rng.uniform(0.02, 0.5, 2), rng.uniform(0, 6.28, 2))
    return Thing(shape, stretch, materials, body, tuple(hinges), bend)


def _hinge(rng, limb: Limb, materials, scale, centre, light, deformation):
    points = np.concatenate([piece.points for piece in limb.pieces]) * scale
    low, high = np.floor(points.min(0)) - 2, np.ceil(points.max(0)) + 2
    width, height = (high - low + 1).astype(int)
    sprite = _paint(rng, limb.pieces, materials, scale, -low, (max(width, 4), max(height, 4)), light, 0)
    return Hinge(
        sprite=sprite,
        joint=centre + np.array(limb.joint) * scale,
        origin=-low,
        rest=rng.normal(0, 0.12 + 0.2 * deformation),
        swing=deformation * rng.uniform(0.1, 0.9),
        pace=rng.uniform(0.05, 0.6),
        phase=rng.uniform(0, 6.28),
        behind=limb.behind,
    )


def _light(rng):
    """Direction of the light and how much it models."""
    angle = rng.normal(-np.pi / 2, 0.8)
    return np.cos(angle), np.sin(angle), rng.uniform(0.1, 0.6)


def _paint(rng, pieces, materials, scale, origin, size, light, details):
    """The sprite of some pieces; size: (width, height)."""
    width, height = size
    fits = [material[:height, :width] for material in materials]
    fits = [fit if fit.shape[:2] == (height, width) else cv2.resize(fit, size) for fit in fits]
    colour, alpha = fits[0].astype(np.float32), np.zeros((height, width), np.uint8)
    for piece in pieces:
        mask = _filled(piece.points * scale + origin, size)
        if piece.material == HOLE:
            alpha = cv2.min(alpha, 255 - mask)
            continue
        alpha = cv2.max(alpha, mask)
        if piece.material:
            lay(colour, fits[piece.material % MATERIALS], mask)
    for _ in range(details):
        lay(
            colour,
            fits[int(rng.integers(MATERIALS))],
            _filled(_detail(rng) * scale + origin, size),
            rng.uniform(0.3, 1.0),
        )
    _shade(colour, alpha, light)
    found = cv2.findNonZero((alpha > 100).astype(np.uint8))
    hull = cv2.convexHull(found)[:, 0].astype(float) if found is not None else np.array((origin, origin), float)
    return Sprite(np.clip(colour, 0, 255).astype(np.uint8), alpha, hull)


def _filled(points, size):
    mask = np.zeros(size[::-1], np.uint8)
    cv2.fillPoly(mask, [np.round(points * 2**_SUB).astype(np.int32)], 255, cv2.LINE_AA, _SUB)
    return mask


def _detail(rng):
    """[n, 2]: a mark on a body."""
    centre, kind = rng.uniform(-0.7, 0.7, 2), rng.integers(3)
    if kind == 0:
        return ellipse(*centre, rng.uniform(0.05, 0.3), rng.uniform(0.05, 0.3), rng.uniform(0, 3.14), 12)
    if kind == 1:
        return stick(centre, rng.uniform(-1, 1, 2), rng.uniform(0.06, 0.25))
    return centre + rng.uniform(0.1, 0.4) * outline(rng, strength=0.4, n=14)


def _shade(colour, alpha, light):
    """Rounds a body: its rim faces sideways, its middle the viewer; lit from a direction."""
    right, down, strength = light
    height = np.sqrt(cv2.distanceTransform((alpha > 127).astype(np.uint8), cv2.DIST_L2, 3))
    height = cv2.GaussianBlur(height, (0, 0), 1.5)
    slope = np.float32(right) * cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125)
    slope += np.float32(down) * cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125)
    colour *= thrice(1 - np.float32(strength) * np.clip(2.5 * slope, -1, 0.8))


def extents(thing: Thing, frames: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """xyxy [n, 4] of a thing at some frames [n], posed by affines `poses` [n, 2, 3] from its canvas to the frame."""
    hull = thing.body.hull[None]
    if thing.bend is not None:
        steps = frames[:, None, None]
        first = hull - thing.bend.displacement(hull, steps, thing.side)
        hull = hull - thing.bend.displacement(first, steps, thing.side)
    parts = [_moved(np.broadcast_to(hull, (len(frames), *hull.shape[1:])), poses)]
    for hinge in thing.hinges:
        own = np.broadcast_to(hinge.sprite.hull, (len(frames), *hinge.sprite.hull.shape))
        parts.append(_moved(_moved(own, hinge.affine(frames)), poses))
    points = np.concatenate(parts, 1)
    half = 0.5 * np.abs(poses[:, :, :2]).sum(2)  # a canvas pixel reaches half a pixel around its centre
    # the frame's pixel p covers [p, p + 1) of the box's coordinates
    return np.concatenate((points.min(1) - half + 0.5, points.max(1) + half + 0.5), 1)


def _moved(points, poses):
    return points @ poses[:, :, :2].transpose(0, 2, 1) + poses[:, None, :, 2]


def flattened(thing: Thing) -> np.ndarray:
    """A thing at rest as one premultiplied RGBA picture, uint8 [side, side, 4]."""
    canvas = np.zeros((thing.side, thing.side, 4), np.float32)
    for levels, affine in posed_parts(thing, 0, 0.0):
        draw(canvas, levels, affine, 1.0)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def posed_parts(thing: Thing, frame: int, yaw: float) -> list[tuple[Levels, np.ndarray]]:
    """(its look, affine to the body's canvas) of each part in the order of drawing.

    yaw: radians that the body is turned to the side: its inside slides across its outline.
    """
    behind = [(hinge.sprite.levels, hinge.affine(frame)) for hinge in thing.hinges if hinge.behind]
    before = [(hinge.sprite.levels, hinge.affine(frame)) for hinge in thing.hinges if not hinge.behind]
    return [*behind, (_posed_body(thing, frame, yaw), np.eye(2, 3)), *before]


def _posed_body(thing, frame, yaw):
    side, colour, alpha = thing.side, thing.body.colour, thing.body.alpha
    is_turned = abs(yaw) > 0.02
    if thing.bend is None and not is_turned:
        return thing.body.levels
    points = _grid(side)
    if thing.bend is not None:
        # the way right depends on the row alone, the way down on the column
        moved = thing.bend.displacement(np.column_stack((np.arange(side),) * 2), frame, side).astype(np.float32)
        points = points + np.dstack(np.broadcast_arrays(moved[:, :1], moved[:, 1]))
        alpha = cv2.remap(alpha, points, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    if is_turned:  # as on a cylinder
        across = np.clip((points[..., 0] + 0.5) * (2 / side) - 1, -1, 1)
        turned = np.sin(0.9 * np.arcsin(across) + np.float32(yaw))
        points = np.dstack(((turned + 1) * (side / 2) - 0.5, points[..., 1]))
    colour = cv2.remap(colour, points, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return Levels(compose(colour, alpha))


@lru_cache(maxsize=4)
def _grid(side):
    y, x = np.mgrid[:side, :side].astype(np.float32)
    return np.dstack((x, y))
