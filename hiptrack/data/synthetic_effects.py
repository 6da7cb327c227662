"""What lies between a synthetic scene and its picture: occluders, blur, coarse pixels, light.

Pictures are [h, w, 3] float32 BGR, in grey levels.
"""

import cv2
import numpy as np

from hiptrack.data.synthetic_drawing import View, draw_mesh, extent, fill_outlines
from hiptrack.data.synthetic_plan import Effects, Occluder

INTERPOLATION = (cv2.INTER_NEAREST, cv2.INTER_LINEAR)


def draw_occluder(picture: np.ndarray, occluder: Occluder, box: np.ndarray, tilt: float) -> np.ndarray:
    """Draws an occluder over the target's box (xyxy, pixels); returns where it lies, [h, w] bool."""
    height, width = picture.shape[:2]
    left, top, right, bottom = box.tolist()
    w, h = right - left, bottom - top
    centre = (left + right) / 2 + occluder.place * w
    if occluder.mesh is not None:
        return _draw_buoy(picture, occluder, w, h, np.array((centre, bottom + 0.15 * h)), tilt)
    mask = np.zeros((height, width), np.uint8)
    fill_outlines(mask, [np.array(_outline(occluder, box, centre, height), np.float32)], 255)
    covered = mask > 127
    x, y = (np.arange(width) - centre) / w, (np.arange(height) - top) / h
    if occluder.kind == "pile":  # round, with rings
        shade = (0.55 + 0.6 * np.sqrt(np.clip(1 - (x * 2 / occluder.share) ** 2, 0, 1)))[None, :]
        shade = shade * np.where(y % 0.5 < 0.08, 0.7, 1.0)[:, None]
    else:  # plates, darker towards the water
        shade = np.where((x % 0.45 < 0.04)[None, :], 0.8, 1.0) * (1.2 - 0.35 * np.clip(y, 0, 1.2))[:, None]
    picture[covered] = shade[covered][:, None] * np.array(occluder.colour)
    return covered


def _outline(occluder, box, centre, picture_height):
    """Corners (x, y) of a pile, a barge or the bow of a ship."""
    left, top, right, bottom = box.tolist()
    w, h = right - left, bottom - top
    if occluder.kind == "pile":
        start, stop = centre - occluder.share * w / 2, centre + occluder.share * w / 2
        return (start, -1), (stop, -1), (stop, picture_height + 1), (start, picture_height + 1)
    if occluder.kind == "barge":
        deck, rail, keel, half = bottom - occluder.share * h, -0.12 * h, bottom + 0.2 * h, 1.25 * w
        shape = ((-1, deck + rail), (-0.8, deck), (0.8, deck), (1, deck + rail), (0.9, keel), (-0.9, keel))
        return [(centre + part * half, y) for part, y in shape]
    side, rake, deck, keel = occluder.side, 0.25 * h * occluder.side, top - 0.35 * h, bottom + 0.3 * h
    stem = (right if side > 0 else left) - side * occluder.place * w
    rear = stem + side * 6 * w
    return (stem - rake, deck), (rear, deck), (rear, keel), (stem + rake, keel)


def _draw_buoy(picture, occluder, w, h, foot, tilt):
    """A buoy as wide as its share of the box, or wider to stand 0.7 of the box high, its bottom at `foot`."""
    view = View(0.6, tilt)
    left, top, right, bottom = extent(occluder.mesh, view).tolist()
    scale = max(occluder.share * w / (right - left), 0.7 * h / (bottom - top))
    patch = draw_mesh(occluder.mesh, view, scale, foot - (0, bottom * scale))
    covered = np.zeros(picture.shape[:2], bool)
    windows = patch.window(picture.shape[1], picture.shape[0])
    if windows is not None:
        outer, inner = windows
        picture[outer] += patch.colour[inner] - patch.alpha[inner] * picture[outer]
        covered[outer] = patch.alpha[inner][..., 0] > 0.5
    return covered


def blur(picture: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Motion blur along `path` [2], pixels to the right and down."""
    length = float(np.hypot(*path))
    if length < 1:
        return picture
    radius = int(np.ceil(length / 2))
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.uint8)
    ends = [tuple(int(v) for v in np.round((radius + sign * np.array(path) / 2) * 16)) for sign in (-1, 1)]
    cv2.line(kernel, *ends, 255, 1, cv2.LINE_AA, 4)
    kernel = kernel.astype(np.float32) / kernel.sum()
    return cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REPLICATE)


def coarsen(picture: np.ndarray, cells: float, size: float, smooth: bool) -> np.ndarray:
    """The picture as seen with `cells` pixels across a target of `size` pixels; 0 leaves it as it is."""
    if cells == 0:
        return picture
    cells = min(cells, size / 2.5)
    height, width = picture.shape[:2]
    small = max(4, round(width * cells / size)), max(4, round(height * cells / size))
    coarse = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(coarse, (width, height), interpolation=INTERPOLATION[smooth])


def apply_light(picture: np.ndarray, effects: Effects, frame: int, centre: np.ndarray, size: float) -> np.ndarray:
    """Gain, lift and glare of a frame around a target at `centre` [2] of `size` pixels."""
    if np.any(effects.gain[frame] != 1):
        picture = picture * effects.gain[frame].astype(np.float32) + np.float32(effects.lift[frame])
    right, down, strength = effects.glare[frame]
    if strength > 0:
        height, width = picture.shape[:2]
        x = (np.arange(width) - centre[0] - right * size) / (0.9 * size)
        y = (np.arange(height) - centre[1] - down * size) / (0.9 * size)
        rays = np.exp(-(x**2))[None, :] * np.exp(-(y**2))[:, None]
        rays += 0.25 * (np.exp(-((x * 6) ** 2))[None, :] + np.exp(-((y * 6) ** 2))[:, None])
        picture += (strength * rays)[..., None].astype(np.float32)
    return picture
