"""Procedural textures: fields of statistics as in natural pictures, without colours yet.

A texture is uint8 [SIZE, SIZE, 3] that tiles, each channel of mean 128 and standard deviation SPREAD; channel 0 carries
the luminance, the others two independent variations. `colouring` turns the three channels into RGB, so that any texture
may have any colours.
"""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

SIZE = 256
SPREAD = 40.0

_FREQUENCY = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :]) * SIZE
_GRID_Y, _GRID_X = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE


def make_texture(rng: np.random.Generator, family: str) -> np.ndarray:
    """A texture of a family, a key of FAMILIES."""
    field = np.asarray(FAMILIES[family](rng), np.float32)
    if field.ndim == 2:  # one field: the other channels vary slowly, partly with it
        mixed = rng.uniform(-0.6, 0.6, 2)
        others = [_cloud(rng, rng.uniform(1.0, 1.8)) + share * _normal(field) for share in mixed]
        field = np.dstack([field, *others])
    return np.clip(128 + SPREAD * _normal(field), 0, 255).astype(np.uint8)


def make_cloud(rng: np.random.Generator) -> np.ndarray:
    """uint8 [SIZE, SIZE], smooth, of mean 128 and standard deviation SPREAD: for light, fog and shadows."""
    return np.clip(128 + SPREAD * _cloud(rng, rng.uniform(1.6, 2.2)), 0, 255).astype(np.uint8)


def _normal(field):
    return (field - field.mean((0, 1))) / (field.std((0, 1)) + 1e-6)


def _cloud(rng, slope, stretch=1.0, angle=0.0):
    """Noise of amplitude 1/f^slope (Field, JOSA A 1987: natural pictures have about 1), stretched along a direction."""
    frequency = _FREQUENCY
    if stretch != 1.0:
        fy, fx = np.fft.fftfreq(SIZE)[:, None] * SIZE, np.fft.rfftfreq(SIZE)[None, :] * SIZE
        along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
        frequency = np.hypot(along * stretch, across / stretch)
    amplitude = np.maximum(frequency, 1.0) ** -slope
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE), np.float32)) * amplitude
    spectrum[0, 0] = 0
    return _normal(np.fft.irfft2(spectrum, (SIZE, SIZE)).astype(np.float32))


def _blurred(field, sigma):
    around = 6
    field = cv2.copyMakeBorder(field, *(around,) * 4, cv2.BORDER_WRAP)
    return cv2.GaussianBlur(field, (0, 0), sigma)[around:-around, around:-around]


def _warped(rng, field, strength):
    """A field displaced by smooth noise of `strength` pixels."""
    dx, dy = _cloud(rng, 1.8), _cloud(rng, 1.8)
    x, y = _GRID_X * SIZE + strength * dx, _GRID_Y * SIZE + strength * dy
    return cv2.remap(field, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _noise(rng):
    return _cloud(rng, rng.uniform(0.5, 1.3))


def _grain(rng):
    """Grass, water, wood: noise along a direction."""
    fine = _cloud(rng, rng.uniform(0.5, 1.1), rng.uniform(1.7, 4.0), rng.uniform(0, np.pi))
    return fine + rng.uniform(0.2, 1.0) * _cloud(rng, 1.3)


def _smooth(rng):
    """Walls, roads, sky, sheet metal: hardly anything, and a little grain on it."""
    return _cloud(rng, 2.2) + rng.uniform(0.02, 0.3) * _cloud(rng, rng.uniform(0.3, 0.8))


def _cells(rng):
    """Pebbles, foliage, tiles: a value for each Voronoi cell, its border darker."""
    count = int(np.exp(rng.uniform(np.log(12), np.log(400))))
    distance, labels = _voronoi(rng, count, cv2.DIST_L2)
    values = rng.standard_normal((count + 1, 3)).astype(np.float32)
    scale = SIZE / np.sqrt(count)
    border = np.minimum(distance / scale, 1.0)[..., None]
    field = values[labels] * rng.uniform(0.3, 1.0) - rng.uniform(0.5, 2.5) * border
    field[..., 0] += rng.uniform(0.1, 0.7) * _cloud(rng, 1.0)
    return _blurred(field, 0.8)


def _voronoi(rng, count, metric):
    """([SIZE, SIZE] distance to the nearest of some points, its number from 1), tiling."""
    half = SIZE // 2
    owner = np.zeros((SIZE, SIZE), np.int32)
    places = rng.integers(0, SIZE, (count, 2))
    owner[places[:, 0], places[:, 1]] = np.arange(1, count + 1)
    owner = cv2.copyMakeBorder(owner, half, half, half, half, cv2.BORDER_WRAP)
    distance, labels = cv2.distanceTransformWithLabels(
        (owner == 0).astype(np.uint8), metric, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    number = np.zeros(labels.max() + 1, np.int32)
    number[labels[owner > 0]] = owner[owner > 0]
    inner = slice(half, half + SIZE)
    return distance[inner, inner], number[labels[inner, inner]]


def _leaves(rng):
    """Dead leaves: shapes of power-law sizes that hide each other (Lee, Mumford, Huang, IJCV 2001)."""
    field = np.zeros((SIZE, SIZE, 3), np.float32)
    field[:] = rng.standard_normal(3)
    round_share, smallest, largest = rng.random(), rng.uniform(2, 6), rng.uniform(30, 90)
    leaves = int(rng.integers(150, 700))
    u = rng.random(leaves)
    radii = 1 / np.sqrt(u / smallest**2 + (1 - u) / largest**2)  # density ~ radius^-3
    for radius in np.sort(radii)[::-1] if rng.random() < 0.5 else radii:
        centre = rng.integers(0, SIZE, 2)
        colour = rng.standard_normal(3).tolist()
        axes = (int(radius * 8), int(radius * 8 * rng.uniform(0.3, 1.0)))
        for wrap in _wraps(centre, radius):
            place = (int(wrap[0] * 8), int(wrap[1] * 8))
            if rng.random() < round_share:
                angle = float(rng.uniform(0, 180))
                cv2.ellipse(field, place, axes, angle, 0, 360, colour, -1, cv2.LINE_8, 3)
            else:
                corners = cv2.boxPoints((place, (axes[0] * 2, axes[1] * 2), float(rng.uniform(0, 180))))
                cv2.fillConvexPoly(field, corners.astype(np.int32), colour, cv2.LINE_8, 3)
    field = _blurred(field, rng.uniform(0.5, 1.0))
    field[..., 0] += rng.uniform(0.1, 0.5) * _cloud(rng, 1.0)
    return field


def _wraps(centre, radius):
    """The places of a shape on a torus that show in the tile."""
    x, y = centre
    xs = [x, x + SIZE] if x < radius else [x, x - SIZE] if x > SIZE - radius else [x]
    ys = [y, y + SIZE] if y < radius else [y, y - SIZE] if y > SIZE - radius else [y]
    return [(a, b) for a in xs for b in ys]


def _stripes(rng):
    """Fences, cloth, furrows: waves of a direction, more or less square, somewhat bent."""
    kx, ky = rng.integers(0, 24), rng.integers(1, 24)
    wave = np.sin(2 * np.pi * (kx * _GRID_X + ky * _GRID_Y), dtype=np.float32)
    wave = np.tanh(wave * rng.uniform(0.5, 6.0))
    if rng.random() < 0.4:  # a second direction: cloth, grids
        wave = wave * np.tanh(np.sin(2 * np.pi * (ky * _GRID_X - kx * _GRID_Y)) * rng.uniform(0.5, 6.0))
    return _warped(rng, wave, rng.choice((0.0, 2.0, 8.0))) + rng.uniform(0.1, 0.8) * _cloud(rng, 1.1)


def _bricks(rng):
    """Walls, facades, pavements: rows of blocks with joints or windows, each of its own shade."""
    rows, columns = 2 * int(rng.integers(2, 14)), int(rng.integers(3, 20))
    shift = rng.choice((0.0, 0.5))
    y = _GRID_Y * rows
    x = _GRID_X * columns + shift * (np.floor(y) % 2)
    inside = np.minimum(np.minimum(x % 1, 1 - x % 1), np.minimum(y % 1, 1 - y % 1))
    shades = rng.standard_normal((rows, columns, 3)).astype(np.float32)
    field = shades[np.floor(y).astype(int) % rows, np.floor(x).astype(int) % columns] * rng.uniform(0.1, 0.8)
    joint = np.clip((inside - rng.uniform(0.03, 0.3)) * 12, -1, 1)
    field[..., 0] += rng.choice((-1.5, 1.5)) * joint + rng.uniform(0.2, 0.9) * _cloud(rng, 1.0)
    return _blurred(field, 0.6)


def _spots(rng):
    """Flowers, crowds, pebbles from afar, fur: many small spots on a calm ground."""
    count = int(np.exp(rng.uniform(np.log(40), np.log(1500))))
    distance, labels = _voronoi(rng, count, cv2.DIST_L2)
    radii = rng.uniform(1.0, 0.6 * SIZE / np.sqrt(count) + 1.5, count + 1).astype(np.float32)
    colours = rng.standard_normal((count + 1, 3)).astype(np.float32) + rng.standard_normal(3)
    inside = np.clip(radii[labels] - distance, 0, 1)[..., None]
    ground = np.dstack([_cloud(rng, 1.3), _cloud(rng, 1.5), _cloud(rng, 1.5)]) * rng.uniform(0.3, 1.0)
    return ground + inside * (1.5 * colours[labels] - ground)


def _marble(rng):
    """Veins: a wave whose phase is noise."""
    phase = _cloud(rng, 1.3) * rng.uniform(2, 6) + 2 * np.pi * rng.integers(0, 8) * _GRID_X
    return np.abs(np.sin(phase)) ** rng.uniform(0.4, 1.5) + 0.2 * _cloud(rng, 0.9)


def _mosaic(rng):
    """Patches with straight borders under slow light, as of fields from the air or of facets."""
    count = int(np.exp(rng.uniform(np.log(20), np.log(250))))
    _, labels = _voronoi(rng, count, cv2.DIST_L1)
    values = rng.standard_normal((count + 1, 3)).astype(np.float32)
    slopes = rng.uniform(-8, 8, (count + 1, 2)).astype(np.float32)
    field = values[labels]
    field[..., 0] += 0.5 * np.sin(2 * np.pi * (slopes[labels][..., 0] * _GRID_X + slopes[labels][..., 1] * _GRID_Y))
    field = _warped(rng, field, rng.uniform(0, 3))
    field[..., 0] += rng.uniform(0.1, 0.5) * _cloud(rng, 0.9)
    return field


def _strokes(rng):
    """Twigs, hair, scratches, straw: many lines."""
    field = np.zeros((SIZE, SIZE, 3), np.float32)
    main, spread = rng.uniform(0, np.pi), rng.uniform(0.05, 1.5)
    length = rng.uniform(10, 60)
    for _ in range(int(rng.integers(200, 900))):
        angle, colour = main + spread * rng.standard_normal(), rng.standard_normal(3).tolist()
        reach = length * rng.uniform(0.3, 1.0) * np.array((np.cos(angle), np.sin(angle)))
        width = int(rng.integers(1, 4))
        for start in _wraps(rng.integers(0, SIZE, 2), length):
            ends = (np.array(start) * 8).astype(int), ((start + reach) * 8).astype(int)
            cv2.line(field, ends[0].tolist(), ends[1].tolist(), colour, width, cv2.LINE_8, 3)
    field = _blurred(field, 0.7)
    field[..., 0] += rng.uniform(0.1, 0.6) * _cloud(rng, 1.2)
    return field


TRAINING = ("noise", "grain", "smooth", "cells", "leaves", "stripes", "bricks", "spots")
HELD_OUT = ("marble", "mosaic", "strokes")  # for validation: never seen in training by default
FAMILIES = {
    "noise": _noise, "grain": _grain, "smooth": _smooth, "cells": _cells, "leaves": _leaves, "stripes": _stripes,
    "bricks": _bricks, "spots": _spots, "marble": _marble, "mosaic": _mosaic, "strokes": _strokes,
}  # fmt: skip


_CHROMA = np.array(((1.0, 0.0, -1.0), (-0.5, 0.9, -0.5)))  # across luminance: warm to cold, green to magenta
VIVID = 0.18  # share of things of strong colours


def natural_colour(rng: np.random.Generator) -> np.ndarray:
    """RGB [3] in grey levels: any brightness, mostly little saturation, rather warm or bluish than green or magenta."""
    strength = rng.uniform(0.4, 1.0) if rng.random() < VIVID else 0.7 * rng.beta(1.2, 3.2)
    warm, green = rng.normal(0, 1.0), rng.normal(0, 0.35)
    chroma = warm * _CHROMA[0] + (green + 0.35 * abs(warm)) * _CHROMA[1]  # orange and sky rather than red and violet
    value = 20 + 215 * rng.beta(1.6, 1.8)
    return np.clip(value * (1 + strength * chroma / (1 + np.abs(chroma).max())), 5, 250)


def near_colour(rng: np.random.Generator, colour: np.ndarray, distance: float) -> np.ndarray:
    """A colour about `distance` grey levels from another one."""
    shift = distance * rng.standard_normal() + 0.4 * distance * rng.standard_normal(3)
    return np.clip(colour + shift, 5, 250)


def colouring(rng: np.random.Generator, mean: np.ndarray, contrast: float) -> np.ndarray:
    """[3, 4] float32 for cv2.transform: texture channels -> RGB of this mean; `contrast`: deviation in grey levels."""
    chroma = 0.4 * rng.beta(1.0, 2.0)
    tint = 1 + 0.6 * (mean / max(mean.mean(), 1.0) - 1)  # dark and light parts of a thing share its hue
    matrix = np.column_stack((tint, chroma * _CHROMA[0], chroma * _CHROMA[1])) * (contrast / SPREAD)
    return np.column_stack((matrix, mean - matrix.sum(1) * 128)).astype(np.float32)


TEXTURES = 160
CLOUDS = 24
_SMALLEST_LEVEL = 8
WAVES, WAVE_SIZE = 4, 512
_NOISE, _RAIN, _CLOUD, _TEXTURE, THINGS, _WAVES, AFLOAT = range(7)


class Bank:
    """Textures of some families. Banks of the same seed and families are the same, in any process and order of use."""

    def __init__(self, seed: int, families: tuple[str, ...]):
        self._seed, self._families, self._made = seed, families, {}

    def texture(self, number: int) -> list[np.ndarray]:
        """The texture `number` (0..TEXTURES - 1), uint8 [S, S, 3], at SIZE and at its halves."""
        family = self._families[number % len(self._families)]
        return self.once((_TEXTURE, number), lambda rng: _halves(make_texture(rng, family)))

    def cloud(self, number: int) -> list[np.ndarray]:
        """The cloud `number` (0..CLOUDS - 1), uint8 [S, S], at SIZE and at its halves."""
        return self.once((_CLOUD, number), lambda rng: _halves(make_cloud(rng)))

    def waves(self, number: int) -> list[np.ndarray]:
        """The waves `number` (0..WAVES - 1), uint8 [WAVE_SIZE, WAVE_SIZE] of mean 128, and of half as many rows each."""
        return self.once((_WAVES, number), lambda rng: _halves(_make_waves(rng, number), 1.0))

    @property
    def noise(self) -> np.ndarray:
        """Sensor noise of standard deviation 32 around 128, uint8 [SIZE, SIZE, 3], partly grey."""
        return self.once((_NOISE, 0), _make_noise)

    @property
    def rain(self) -> np.ndarray:
        """Streaks of rain and flakes, uint8 [SIZE, SIZE]."""
        return self.once((_RAIN, 0), _make_rain)

    def once(self, key: tuple[int, ...], make: Callable[[np.random.Generator], object]):
        """What `make` makes of the generator that belongs to a key, made at the first call."""
        if key not in self._made:
            self._made[key] = make(np.random.default_rng((self._seed, *key, 77)))
        return self._made[key]


@lru_cache(maxsize=4)
def open_bank(seed: int, families: tuple[str, ...]) -> Bank:
    return Bank(seed, families)


def _halves(image, across=0.5):
    levels = [image]
    while levels[-1].shape[0] > _SMALLEST_LEVEL:
        levels.append(cv2.resize(levels[-1], None, fx=across, fy=0.5, interpolation=cv2.INTER_AREA))
    return levels


def _make_noise(rng):
    grey, colour = rng.standard_normal((SIZE, SIZE, 1)), rng.standard_normal((SIZE, SIZE, 3))
    return np.clip(128 + 32 * (0.8 * grey + 0.6 * colour), 0, 255).astype(np.uint8)


def _make_waves(rng, number):
    """Crests roughly along x, of a length by the number; they tile."""
    fy, fx = np.fft.fftfreq(WAVE_SIZE)[:, None] * WAVE_SIZE, np.fft.rfftfreq(WAVE_SIZE)[None, :] * WAVE_SIZE
    radius, angle = np.hypot(fx, fy) + 1e-6, np.arctan2(np.abs(fx), np.abs(fy))
    power = (
        np.exp(-(np.log(radius / (9, 14, 20, 28)[number]) ** 2) / 0.7) * (0.25 + np.cos(angle) ** 4) / np.sqrt(radius)
    )
    waves = _normal(np.fft.irfft2(power * np.exp(2j * np.pi * rng.random(power.shape)), (WAVE_SIZE, WAVE_SIZE)))
    crests = waves + 0.3 * (waves**2 - 1)  # sharp crests, flat troughs
    return np.clip(128 + 45 * crests, 0, 255).astype(np.uint8)


def _make_rain(rng):
    streaks = np.zeros((SIZE, SIZE), np.uint8)
    for x, y, length in rng.uniform((0, 0, 8), (SIZE, SIZE, 40), (220, 3)):
        start, end = (int(x), int(y)), (int(x + 0.12 * length), int(y + length))
        cv2.line(streaks, start, end, int(rng.integers(60, 255)), 1, cv2.LINE_AA)
    return cv2.GaussianBlur(streaks, (0, 0), 0.6)
