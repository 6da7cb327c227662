"""Backgrounds: textured layers behind each other, each moving by its own share of the camera's way."""

from dataclasses import dataclass

import cv2
import numpy as np

from hiptrack.extras.world.drawing import blend, chain, halvings, scale_of, thrice
from hiptrack.extras.world.motion import Camera
from hiptrack.extras.world.shapes import outline, stick
from hiptrack.extras.world.textures import SIZE, TEXTURES, Bank, colouring, natural_colour, near_colour

_FAR = 4000.0  # pixels: beyond any frame, and magnified still within what OpenCV can draw
_SUB = 4


@dataclass(frozen=True)
class Layer:
    """A textured plane, or the part of one below a profile.

    texture: a number of the bank's. colours [3, 4]: see `colouring`. to_world [2, 3]: from the texture's pixels.
    parallax: see `Camera.affine`.
    profile: [n, 2] corners in the world, or None: everywhere. drift [2]: world pixels per frame. gradient: grey levels
    that it gains from the frame's top to its bottom. mean [3]: of its colours. softness: how often its texture is
    halved, as it is out of focus.
    """

    texture: int
    colours: np.ndarray
    to_world: np.ndarray
    parallax: float | np.ndarray
    profile: np.ndarray | None
    drift: np.ndarray
    gradient: float
    mean: np.ndarray
    softness: int


def plan_layers(rng: np.random.Generator, size: tuple[int, int]) -> list[Layer]:
    """One to four layers, the farthest first."""
    kind = rng.random()
    softness = int(rng.choice((0, 0, 0, 1, 2)))
    if kind < 0.4:  # seen from above, or a wall
        ground = natural_colour(rng)
        return [make_layer(rng, ground, 1.0, None, softness=softness), *_patches(rng, size, ground)]
    horizon = size[1] * rng.uniform(-0.35, 0.25)
    sky = natural_colour(rng)
    layers = [
        make_layer(
            rng, sky, rng.uniform(0.0, 0.3), None, contrast=(1, 14), gradient=rng.normal(0, 40), zoom=rng.uniform(3, 8)
        )
    ]
    depths = np.sort(rng.uniform(0.2, 1.0, int(rng.integers(1, 4))))
    for depth in depths:
        colour = near_colour(rng, sky, 30) if rng.random() < 0.4 else natural_colour(rng)
        colour = colour + (1 - depth) * 0.5 * (sky - colour)  # what is far pales
        layers.append(make_layer(rng, colour, depth, skyline(rng, size, horizon), softness=softness))
        horizon += size[1] * rng.uniform(0.02, 0.25)
    if kind > 0.6:  # the ground, foreshortened
        layers.append(make_layer(rng, natural_colour(rng), 1.0, _level(horizon), squash=rng.uniform(0.15, 0.6)))
    return layers


def _patches(rng, size, ground):
    """Roads, beds, puddles, fields, furniture: up to four outlines on the ground, often of nearly its colour."""
    layers = []
    for _ in range(int(rng.integers(0, 5))):
        centre, reach = rng.uniform(-0.6, 0.6, 2) * size, size[0] * rng.uniform(0.1, 0.6)
        if rng.random() < 0.4:
            angle = rng.uniform(0, np.pi)
            along = np.array((np.cos(angle), np.sin(angle)))
            profile = stick(centre - 3 * size[0] * along, centre + 3 * size[0] * along, reach * rng.uniform(0.05, 0.6))
        else:
            profile = centre + reach * outline(rng, strength=0.4) * np.exp(rng.normal(0, 0.4, 2))
        colour = near_colour(rng, ground, 25) if rng.random() < 0.5 else natural_colour(rng)
        layers.append(make_layer(rng, colour, 1.0, profile))
    return layers


def make_layer(rng, colour, parallax, profile, contrast=(8, 60), gradient=0.0, squash=1.0, zoom=None, softness=0):
    """A Layer (see there) of a mean colour [3]; contrast: smallest and largest deviation of its texture in grey levels;
    squash: its height over its width, foreshortened; zoom: world pixels per pixel of its texture, None: any."""
    zoom = np.exp(rng.uniform(np.log(0.3), np.log(3.0))) if zoom is None else zoom
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else 0.0
    turn = zoom * np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle)))) * ((1.0,), (squash,))
    to_world = np.concatenate((turn, rng.uniform(-500, 500, (2, 1))), 1)
    return Layer(
        texture=int(rng.integers(TEXTURES)),
        colours=colouring(rng, colour, np.exp(rng.uniform(*np.log(contrast)))),
        to_world=to_world,
        parallax=parallax,
        profile=profile,
        drift=rng.normal(0, 0.5, 2) if rng.random() < 0.3 else np.zeros(2),
        gradient=gradient,
        mean=colour,
        softness=softness,
    )


def _level(y):
    return np.array(((-_FAR, y), (_FAR, y), (_FAR, _FAR), (-_FAR, _FAR)))


def skyline(rng, size, y):
    """[n, 2]: a skyline of hills, trees or roofs above the world's row y, and all below it; size: the frame's."""
    kind, reach = rng.integers(4), 3 * size[0]
    if kind == 0:
        return _level(y)
    if kind == 1:  # roofs: heights that stay for a while
        edges = np.cumsum(rng.uniform(0.03, 0.2, 80)) * size[0] - reach
        x = np.repeat(edges, 2)[1:-1]
        heights = np.repeat(rng.uniform(0.0, 0.3, 79), 2) * size[1]
    else:  # hills, or the tops of trees
        x = np.linspace(-reach, reach, 160)
        steps = np.arange(1, 6 if kind == 2 else 40)
        phases = rng.uniform(0, 6.28, len(steps))
        waves = np.sin(np.outer(x / size[0] * rng.uniform(1, 3), steps) + phases) / steps ** (1.0 if kind == 2 else 0.6)
        heights = size[1] * rng.uniform(0.02, 0.12) * waves.sum(1)
    points = np.column_stack((x, y - heights))
    return np.concatenate(([(-_FAR, points[0, 1])], points, [(_FAR, points[-1, 1]), (_FAR, _FAR), (-_FAR, _FAR)]))


def draw_layers(
    layers: list[Layer], bank: Bank, camera: Camera, frame: int, view: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """A frame's background, float32 [h, w, 3], in a picture of `size` (w, h) to which `view` [2, 3] takes the frame."""
    masks = [_mask(layer, camera, frame, view, size) for layer in layers]
    # what a layer covers wholly need not be drawn
    lowest = max(number for number, mask in enumerate(masks) if mask is None or mask.all())
    width, height = size
    picture = np.empty((height, width, 3), np.float32)
    for layer, mask in zip(layers[lowest:], masks[lowest:], strict=True):
        left, top, right, bottom = 0, 0, width, height
        if layer is not layers[lowest]:
            left, top, right, bottom = cv2.boundingRect(mask)
            right, bottom = left + right, top + bottom
        if right <= left:
            continue
        own_view = view - np.array(((0, 0, left), (0, 0, top)))
        drawn = _texture(
            layer, bank, camera.affine(frame, layer.parallax), frame, own_view, (right - left, bottom - top)
        )
        where = np.s_[top:bottom, left:right]
        if layer is layers[lowest]:
            picture[where] = drawn
        else:
            blend(picture[where], drawn, mask[where])
    return picture


def _texture(layer, bank, to_frame, frame, view, size):
    to_world = layer.to_world.copy()
    to_world[:, 2] += layer.drift * frame
    affine = chain(to_frame, to_world)
    scale = scale_of(affine)  # frame pixels per pixel of the texture
    levels = bank.texture(layer.texture)
    number = min(halvings(scale) + layer.softness, len(levels) - 1)
    half = 2.0**number
    affine = chain(view, chain(affine, np.array(((half, 0, (half - 1) / 2), (0, half, (half - 1) / 2)))))
    backward = cv2.invertAffineTransform(affine)
    backward[:, 2] %= SIZE / half  # it tiles, and OpenCV's coordinates have few bits
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpAffine(levels[number], backward, size, flags=flags, borderMode=cv2.BORDER_WRAP)
    drawn = cv2.transform(drawn, layer.colours).astype(np.float32)
    if layer.gradient:
        rows = layer.gradient * ((np.arange(size[1]) - view[1, 2]) / (view[1, 1] * 720) - 0.5)
        drawn += thrice(np.repeat(rows.astype(np.float32)[:, None], size[0], 1))
    return drawn


def _mask(layer, camera, frame, view, size):
    """Where a layer shows in a picture, uint8; None: everywhere."""
    if layer.profile is None:
        return None
    affine = chain(view, camera.affine(frame, layer.parallax))
    points = layer.profile @ affine[:, :2].T + affine[:, 2]
    mask = np.zeros(size[::-1], np.uint8)
    # OpenCV's coordinates have few bits
    points = np.clip(np.round(points * 2**_SUB), -(2**20), 2**20).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, _SUB)
    return mask
