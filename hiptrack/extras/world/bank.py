"""A bank of textures and clouds for the looks of scenes, each made when first used, from (seed, number) alone."""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from hiptrack.extras.world.textures import SIZE, make_cloud, make_texture

TEXTURES = 160
CLOUDS = 24
_SMALLEST_LEVEL = 8
_NOISE, _RAIN, _CLOUD, _TEXTURE, THINGS = range(5)


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


def _halves(image):
    levels = [image]
    while levels[-1].shape[0] > _SMALLEST_LEVEL:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return levels


def _make_noise(rng):
    grey, colour = rng.standard_normal((SIZE, SIZE, 1)), rng.standard_normal((SIZE, SIZE, 3))
    return np.clip(128 + 32 * (0.8 * grey + 0.6 * colour), 0, 255).astype(np.uint8)


def _make_rain(rng):
    streaks = np.zeros((SIZE, SIZE), np.uint8)
    for x, y, length in rng.uniform((0, 0, 8), (SIZE, SIZE, 40), (220, 3)):
        start, end = (int(x), int(y)), (int(x + 0.12 * length), int(y + length))
        cv2.line(streaks, start, end, int(rng.integers(60, 255)), 1, cv2.LINE_AA)
    return cv2.GaussianBlur(streaks, (0, 0), 0.6)
