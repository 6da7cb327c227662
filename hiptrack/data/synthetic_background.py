"""Sea and sky of a synthetic sequence. Pictures are BGR."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from hiptrack.data.synthetic_motion import FOCAL, Camera

TILE = 512  # side of the wave textures
WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

# Sky at the zenith, sky at the horizon, near sea, far sea, wave crests.
WEATHERS = (
    ((190, 120, 60), (235, 215, 190), (110, 80, 20), (150, 120, 60), (40, 38, 30)),
    ((175, 165, 155), (205, 203, 198), (95, 92, 80), (140, 138, 128), (45, 45, 43)),
    ((205, 150, 90), (240, 225, 205), (130, 130, 30), (170, 160, 80), (45, 48, 35)),
    ((120, 85, 80), (130, 165, 215), (85, 65, 55), (110, 110, 125), (35, 42, 55)),
    ((150, 140, 130), (190, 190, 188), (70, 80, 60), (120, 125, 110), (40, 44, 40)),
)


@dataclass(frozen=True)
class Background:
    """What sea and sky of one sequence are drawn from."""

    size: tuple[int, int]
    weather: np.ndarray  # [5, 3] colours, as in WEATHERS
    panorama: np.ndarray  # [rows, columns, 3] sky and land, its last row at the horizon; wraps around
    waves: tuple[np.ndarray, np.ndarray]
    swell: float  # contrast of the waves
    drift: np.ndarray  # [2, 2] texture pixels a frame by which the waves move
    glint: float | None  # pixels from the middle to the sun's column in the first frame, None: no glint


def make_background(rng: np.random.Generator, size: tuple[int, int]) -> Background:
    """Draws weather, land and sea state for pictures of `size` (w, h)."""
    width, height = size
    weather = np.array(WEATHERS[rng.integers(len(WEATHERS))]) + rng.normal(0, 6, (5, 1))
    first, second = rng.permutation(4)[:2].tolist()
    return Background(
        size=size,
        weather=weather.astype(np.float32),
        panorama=_make_panorama(rng, weather, width, height),
        waves=(_wave_tile(first), _wave_tile(second)),
        swell=float(rng.uniform(0.4, 1.1)),
        drift=rng.normal(0, 2.5, (2, 2)),
        glint=float(rng.uniform(-0.5, 0.5)) * width if rng.random() < 0.4 else None,
    )


def draw_background(background: Background, camera: Camera, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Sea and sky [h, w, 3] float32, and the wave texture [h, w] float32 in about -1..1, 0 in the sky."""
    width, height = background.size
    picture = np.empty((height, width, 3), np.float32)
    waves = np.zeros((height, width), np.float32)
    top = int(np.clip(np.round(camera.horizon[frame]), 0, height))
    if top > 0:
        picture[:top] = _sky(background, camera, frame, top)
    if top < height:
        _sea(background, camera, frame, picture[top:], waves[top:])
    return picture, waves


def _sky(background, camera, frame, rows):
    horizon, zoom, pan = (float(item[frame]) for item in (camera.horizon, camera.zoom, camera.pan))
    width = background.size[0]
    high, wide = background.panorama.shape[:2]
    left = 0.5 * pan + wide / 2 - width / 2 / zoom
    matrix = np.array([[1 / zoom, 0, left], [0, 1 / zoom, high - 1 - horizon / zoom]])
    return cv2.warpAffine(background.panorama, matrix, (width, rows), flags=WARP, borderMode=cv2.BORDER_WRAP)


def _sea(background, camera, frame, picture, waves):
    """Fills the rows below the horizon: [rows, w, 3] and [rows, w], in place."""
    rows, width = waves.shape
    horizon, zoom, pan = (float(item[frame]) for item in (camera.horizon, camera.zoom, camera.pan))
    unit = min(width / 320, background.size[1] / 240)
    nearest = (background.size[1] - rows + 1 - horizon) / zoom  # depth below the horizon of the top row
    depth = (nearest + np.arange(rows) / zoom).astype(np.float32)
    # A point of the water seen x beside the middle and d below the horizon lies at (x / d, focal / d).
    for tile, density, speed in zip(background.waves, (1.0, 0.37), background.drift, strict=True):
        across = density * camera.depth / unit
        right, away = speed * frame + (density * pan / unit, 0.0)
        matrix = np.array(((across, right, -across * width / 2 + right * nearest * zoom),
                           (0, away, across * FOCAL * unit * zoom + away * nearest * zoom),
                           (0, 1, nearest * zoom))) / zoom  # fmt: skip
        waves += cv2.warpPerspective(tile, matrix, (width, rows), flags=WARP, borderMode=cv2.BORDER_WRAP)
    waves -= 255
    waves *= np.clip((depth / camera.depth) ** 0.7, 0.12, 1.3)[:, None] / 90
    near, far, crest = background.weather[2:]
    share = np.exp(-depth / (0.5 * camera.depth))[:, None]
    channels = [near[c] + share * (far[c] - near[c]) + waves * (background.swell * crest[c]) for c in range(3)]
    if background.glint is not None:
        sun = width / 2 + zoom * (background.glint - 0.5 * (pan - float(camera.pan[0])))
        column = np.exp(-(((np.arange(width) - sun) / (0.12 * width)) ** 2)).astype(np.float32)
        sparkle = np.clip(waves - 0.1, 0, 1) * (120 * column)
        channels = [channel + sparkle for channel in channels]
    cv2.merge(channels, picture)


@functools.lru_cache(maxsize=4)
def _wave_tile(index):
    """[TILE, TILE] uint8 periodic wave texture of mean 127.5, crests roughly along x."""
    rng = np.random.default_rng(index)
    fy, fx = np.fft.fftfreq(TILE)[:, None] * TILE, np.fft.rfftfreq(TILE)[None, :] * TILE
    radius, angle = np.hypot(fx, fy) + 1e-6, np.arctan2(np.abs(fx), np.abs(fy))
    peak = (9, 14, 20, 28)[index]
    power = np.exp(-(np.log(radius / peak) ** 2) / 0.7) * (0.25 + np.cos(angle) ** 4) / np.sqrt(radius)
    waves = np.fft.irfft2(power * np.exp(2j * np.pi * rng.random(power.shape)), (TILE, TILE))
    waves /= waves.std()
    crests = waves + 0.3 * (waves**2 - 1)  # sharp crests, flat troughs
    return np.clip(127.5 + 45 * crests, 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=1)
def _cloud_tile():
    """[256, TILE * 2] float32 periodic cloud texture of mean 0 and deviation 1."""
    rng = np.random.default_rng(99)
    fy, fx = np.fft.fftfreq(256)[:, None] * 256, np.fft.rfftfreq(2 * TILE)[None, :] * 256
    power = 1 / (2 + np.hypot(fx, 0.6 * fy)) ** 1.7
    clouds = np.fft.irfft2(power * np.exp(2j * np.pi * rng.random(power.shape)), (256, 2 * TILE))
    return (clouds / clouds.std()).astype(np.float32)


def _make_panorama(rng, weather, width, height):
    """Sky with clouds, and on most of them hills and houses along the horizon; wraps around."""
    rows, columns = int(1.3 * height), 4 * width
    fall = np.linspace(0, 1, rows)[:, None] ** 1.5
    sky = weather[0] + fall * (weather[1] - weather[0])
    clouds = np.roll(_cloud_tile(), tuple(rng.integers(0, 256, 2)), (0, 1))
    clouds = cv2.resize(clouds, (columns, rows), interpolation=cv2.INTER_LINEAR)
    cover = np.clip(0.5 * clouds + rng.uniform(-0.6, 0.5), 0, 0.85)[..., None]
    picture = sky[:, None, :] * (1 - cover) + cover * (0.4 * weather[1] + 0.6 * 235)
    if rng.random() < 0.65:
        _add_land(rng, picture, weather)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _add_land(rng, picture, weather):
    rows, columns = picture.shape[:2]
    x = np.arange(columns) * (2 * np.pi / columns)
    profile = sum(rng.normal(0, 1 / k**0.7) * np.sin(k * x + rng.uniform(0, 6)) for k in range(1, 40))
    profile = np.maximum(profile / profile.std() + rng.uniform(-0.8, 1.0), 0) * rng.uniform(0.02, 0.06) * rows
    base = np.array(((60, 85, 70), (90, 110, 125), (120, 105, 95)), np.float32)[rng.integers(3)]
    colour = base + rng.uniform(0.1, 0.5) * (weather[1] - base)
    land = np.arange(rows)[:, None] >= rows - profile[None, :]
    grain = cv2.resize(rng.normal(0, 12, (rows // 4, columns // 4)).astype(np.float32), (columns, rows))
    picture[land] = colour + grain[land][:, None]
    for _ in range(rng.integers(0, 60)):
        left, wide = int(rng.integers(0, columns - 12)), int(rng.integers(3, 12))
        if profile[left] > 0:
            high = int(rng.integers(3, 4 + int(0.06 * rows)))
            picture[rows - high :, left : left + wide] = rng.uniform(110, 235) + rng.normal(0, 10, 3)
