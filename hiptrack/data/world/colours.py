"""Colours as in natural pictures: mostly dull, alike within a scene, and how a texture takes them on."""

import numpy as np

from hiptrack.data.world.textures import SPREAD

_CHROMA = np.array(((1.0, 0.0, -1.0), (-0.5, 0.9, -0.5)))  # across luminance: warm to cold, green to magenta
VIVID = 0.18  # share of things of strong colours


def natural_colour(rng: np.random.Generator) -> np.ndarray:
    """RGB [3] in grey levels: any brightness, mostly little saturation, more often warm or bluish than green or magenta."""
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
    """[3, 4] float32 for cv2.transform: texture channels -> RGB of this mean, `contrast` grey levels of standard deviation."""
    chroma = 0.4 * rng.beta(1.0, 2.0)
    tint = 1 + 0.6 * (mean / max(mean.mean(), 1.0) - 1)  # dark and light parts of a thing share its hue
    matrix = np.column_stack((tint, chroma * _CHROMA[0], chroma * _CHROMA[1])) * (contrast / SPREAD)
    return np.column_stack((matrix, mean - matrix.sum(1) * 128)).astype(np.float32)
