"""Sea, sky and light of a synthetic sequence, and the pictures made of them. Pictures are BGR."""

import functools
from dataclasses import dataclass, replace

import cv2
import numpy as np

from hiptrack.data.synthetic_drawing import draw_mesh, fill_outlines, spray, wake
from hiptrack.data.synthetic_effects import apply_light, blur, coarsen, draw_occluder
from hiptrack.data.synthetic_motion import FOCAL, Motion, plan_motion
from hiptrack.data.synthetic_plan import Effects, plan_effects, plan_spans
from hiptrack.data.synthetic_vessels import repaint

TILE = 512  # side of the wave textures
NOISE_MARGIN = 64

# Sky at the zenith, sky at the horizon, near sea, far sea, wave crests.
WEATHERS = (
    ((190, 120, 60), (235, 215, 190), (110, 80, 20), (150, 120, 60), (40, 38, 30)),
    ((175, 165, 155), (205, 203, 198), (95, 92, 80), (140, 138, 128), (45, 45, 43)),
    ((205, 150, 90), (240, 225, 205), (130, 130, 30), (170, 160, 80), (45, 48, 35)),
    ((120, 85, 80), (130, 165, 215), (85, 65, 55), (110, 110, 125), (35, 42, 55)),
    ((150, 140, 130), (190, 190, 188), (70, 80, 60), (120, 125, 110), (40, 44, 40)),
)


@dataclass(frozen=True)
class Scene:
    """Everything of one sequence; a pure function of the generator that made it."""

    size: tuple[int, int]
    motion: Motion
    effects: Effects
    dressed_target: object
    weather: np.ndarray  # [5, 3]
    panorama: np.ndarray  # [rows, columns, 3] sky and land, its last row at the horizon
    waves: tuple[np.ndarray, np.ndarray]
    swell: float  # contrast of the waves
    drift: np.ndarray  # [2, 2] texture pixels a frame by which the waves move
    glint: float | None  # column of the sun in the panorama's frame, None: no glint
    noise: np.ndarray  # sensor noise, larger than the picture
    noise_at: np.ndarray  # [n, 2] where each frame reads it


def make_scene(rng: np.random.Generator, frames: int, size: tuple[int, int]) -> Scene:
    """Plans a sequence of `frames` pictures of `size` (w, h)."""
    spans = plan_spans(rng, frames)
    motion = plan_motion(rng, spans, frames, size)
    weather = np.array(WEATHERS[rng.integers(len(WEATHERS))], np.float32) + rng.normal(0, 6, (5, 1))
    tiles = rng.permutation(4)[:2]
    width, height = size
    return Scene(
        size=size,
        motion=motion,
        effects=plan_effects(rng, spans, frames),
        dressed_target=repaint(motion.target.mesh, rng),
        weather=weather.astype(np.float32),
        panorama=_make_panorama(rng, weather, width, height),
        waves=(_wave_tile(int(tiles[0])), _wave_tile(int(tiles[1]))),
        swell=rng.uniform(0.4, 1.1),
        drift=rng.normal(0, 2.5, (2, 2)),
        glint=rng.uniform(-0.5, 0.5) * width if rng.random() < 0.4 else None,
        noise=rng.normal(0, rng.uniform(1.0, 4.0), (height + NOISE_MARGIN, width + NOISE_MARGIN, 1)).astype(np.float32),
        noise_at=rng.integers(0, NOISE_MARGIN, (frames, 2)),
    )


def render(scene: Scene, frame: int, with_target: bool = True) -> tuple[np.ndarray, float, float]:
    """Frame (0-based) of a scene.

    Returns the picture [h, w, 3] uint8 BGR, the share of the target's pixels that lies inside the picture,
    and the share of the target's pixels that is inside and not hidden by anything. Without the target
    the picture lacks it, its wake and its spray, and both shares are 0.
    """
    width, height = scene.size
    motion, effects = scene.motion, scene.effects
    target = motion.target
    if effects.dressed[frame]:
        target = replace(target, mesh=scene.dressed_target)
    actors = [actor for actor in motion.others if actor.active[frame]] + [target] * with_target
    picture, waves = _background(scene, frame)
    opacity = effects.opacity[frame]

    foam = np.zeros((height, width), np.uint8)
    for actor in actors:
        if actor.wake > 0.1 and not (actor is target and opacity < 1):
            view, anchor = actor.views[frame], actor.anchor[frame]
            fill_outlines(foam, wake(view, actor.scale[frame], anchor, actor.wake), 150)
    _blend_foam(picture, foam, waves)

    visible, inside = None, 0.0
    for actor in sorted(actors, key=lambda actor: actor.anchor[frame, 1]):
        is_target = actor is target
        patch = draw_mesh(
            actor.mesh, actor.views[frame], actor.scale[frame], actor.anchor[frame],
            dressed=is_target and bool(effects.dressed[frame]),
        )  # fmt: skip
        windows = patch.window(width, height)
        if windows is None:
            continue
        outer, inner = windows
        strength = opacity if is_target else 1.0
        alpha = patch.alpha[inner]
        picture[outer] += strength * (patch.colour[inner] - alpha * picture[outer])
        if is_target:
            visible = np.zeros((height, width), np.float32)
            visible[outer] = alpha[..., 0]
            inside, whole = float(alpha.sum()), float(patch.alpha.sum())
        elif visible is not None:
            visible[outer] *= 1 - alpha[..., 0]
    if with_target and not np.isnan(effects.spray[frame, 0, 0]):
        foam[:] = 0
        view, anchor = target.views[frame], target.anchor[frame]
        fill_outlines(foam, spray(view, target.scale[frame], anchor, effects.spray[frame]), 235)
        _blend_foam(picture, foam, waves)

    picture += effects.haze[frame] * (scene.weather[1] - picture)
    occluder = effects.occluders[frame]
    if occluder is not None:
        covered = draw_occluder(picture, occluder, motion.boxes[frame], motion.target.views[frame].tilt)
        if visible is not None:
            visible *= ~covered
    picture = blur(picture, effects.blur[frame] * motion.sizes[frame])
    picture = coarsen(picture, effects.cells[frame], motion.sizes[frame], bool(effects.smooth[frame]))
    centre = (motion.boxes[frame, :2] + motion.boxes[frame, 2:]) / 2
    picture = apply_light(picture, effects, frame, centre, motion.sizes[frame])
    y, x = scene.noise_at[frame]
    picture += scene.noise[y : y + height, x : x + width]
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    if visible is None:
        return picture, 0.0, 0.0
    return picture, inside / whole, float(visible.sum()) / whole


def _background(scene, frame):
    """Sea and sky [h, w, 3] float32, and the wave texture [h, w] float32 in about -1..1."""
    width, height = scene.size
    camera = scene.motion.camera
    horizon, zoom, pan = camera.horizon[frame], camera.zoom[frame], camera.pan[frame]
    unit = min(width / 320, height / 240)
    picture = np.empty((height, width, 3), np.float32)
    waves = np.zeros((height, width), np.float32)
    top = int(np.clip(np.round(horizon), 0, height))
    if top > 0:
        rows, columns = scene.panorama.shape[:2]
        matrix = np.array([[1 / zoom, 0, 0.5 * pan + columns / 2 - width / 2 / zoom], [0, 1 / zoom, rows - 1 - horizon / zoom]])
        picture[:top] = cv2.warpAffine(
            scene.panorama, matrix, (width, top), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP
        )
    if top < height:
        depth = ((np.arange(top, height) + 1 - horizon) / zoom).astype(np.float32)
        texture = np.zeros((height - top, width), np.float32)
        for tile, density, speed in zip(scene.waves, (1.0, 0.37), scene.drift):
            across = density * camera.depth / unit
            flow = speed * frame + (density * pan / unit, 0)
            matrix = np.array(
                [
                    [across / zoom, flow[0] / zoom, -across * width / 2 / zoom + flow[0] * (top + 1 - horizon) / zoom],
                    [0, flow[1] / zoom, across * FOCAL * unit + flow[1] * (top + 1 - horizon) / zoom],
                    [0, 1 / zoom, (top + 1 - horizon) / zoom],
                ]
            )
            texture += cv2.warpPerspective(
                tile, matrix, (width, height - top), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP
            )
        texture = (texture - 255) / 90 * np.clip((depth / camera.depth) ** 0.7, 0.12, 1.3)[:, None]
        far = np.exp(-depth / (0.5 * camera.depth))[:, None]
        base = scene.weather[2] + far * (scene.weather[3] - scene.weather[2])
        sea = base[:, None, :] + (scene.swell * texture)[..., None] * scene.weather[4]
        if scene.glint is not None:
            sun = width / 2 + zoom * (scene.glint - 0.5 * (pan - camera.pan[0]))
            column = np.exp(-(((np.arange(width) - sun) / (0.12 * width)) ** 2)).astype(np.float32)
            sea += (np.clip(texture - 0.1, 0, 1) * (120 * column))[..., None]
        picture[top:], waves[top:] = sea, texture
    return picture, waves


def _blend_foam(picture, foam, waves):
    """Lays white water over the picture where the uint8 mask says so, broken up by the waves."""
    left, top, width, height = cv2.boundingRect(foam)
    if width == 0:
        return
    where = slice(top, top + height), slice(left, left + width)
    share = foam[where] * np.clip(0.75 + 0.45 * waves[where], 0.15, 1) / np.float32(255)
    picture[where] += share[..., None] * (238 - picture[where])


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
