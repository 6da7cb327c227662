"""A synthetic sequence as a whole, and the pictures made of it. Pictures are BGR."""

import functools
from dataclasses import dataclass, replace

import cv2
import numpy as np

from hiptrack.extras.world.sea_motion import (
    CHALLENGES,
    FOCAL,
    HIDDEN_SHARE,
    OCCLUSION,
    OUTSIDE_SHARE,
    PARTIAL,
    Camera,
    Effects,
    Motion,
    Occluder,
    Span,
    plan_effects,
    plan_motion,
    plan_spans,
)
from hiptrack.extras.world.sea_vessels import Mesh, View, draw_mesh, extent, fill_outlines, repaint, spray, wake

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


NOISE_MARGIN = 64
FOAM_COLOUR = 238
WAKE_FOAM, SPRAY_FOAM = 150, 235  # opacity, of 255


@dataclass(frozen=True)
class Scene:
    """Everything of one sequence; a pure function of the generator that made it."""

    size: tuple[int, int]
    spans: list[Span]
    motion: Motion
    effects: Effects
    background: Background
    dressed_target: Mesh
    noise: np.ndarray  # sensor noise, larger than the picture
    noise_at: np.ndarray  # [n, 2] where each frame reads it


def make_scene(rng: np.random.Generator, frames: int, size: tuple[int, int], order: list[int]) -> Scene:
    """Plans a sequence of `frames` pictures of `size` (w, h) with the challenges of `order` one by one."""
    spans = plan_spans(rng, frames, order)
    motion = plan_motion(rng, spans, frames, size)
    return Scene(
        size=size,
        spans=spans,
        motion=motion,
        effects=plan_effects(rng, spans, frames),
        background=make_background(rng, size),
        dressed_target=repaint(motion.target.mesh, rng),
        noise=_sensor_noise(rng, size[0] + NOISE_MARGIN, size[1] + NOISE_MARGIN),
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
    box, size = motion.boxes[frame], float(motion.sizes[frame])
    picture, waves = draw_background(scene.background, motion.camera, frame)
    inside, visible = _draw_actors(picture, waves, scene, frame, with_target)
    if effects.haze[frame] > 0:
        picture += float(effects.haze[frame]) * (scene.background.weather[1] - picture)
    occluder = effects.occluders[frame]
    if occluder is not None:
        visible[draw_occluder(picture, occluder, box, motion.target.views[frame].tilt)] = 0
    picture = blur(picture, effects.blur[frame] * size)
    picture = coarsen(picture, effects.cells[frame], size, bool(effects.smooth[frame]))
    picture = apply_light(picture, effects, frame, (box[:2] + box[2:]) / 2, size)
    y, x = scene.noise_at[frame]
    picture += scene.noise[y : y + height, x : x + width]
    return np.clip(picture, 0, 255).astype(np.uint8), inside, float(visible.sum())


def flags(scene: Scene, frame: int, inside: float, visible: float) -> np.ndarray:
    """[9] bool challenges of a frame, given the two shares that `render` returned for it.

    Occlusion and partial visibility are what is seen to be so, whatever caused it; the rest is as planned.
    """
    active = np.zeros(CHALLENGES, bool)
    for span in scene.spans:
        active[span.challenge] |= span.start <= frame < span.stop
    active[OCCLUSION] = visible < (1 - HIDDEN_SHARE) * inside
    active[PARTIAL] = inside < 1 - OUTSIDE_SHARE
    return active


def _draw_actors(picture, waves, scene, frame, with_target):
    """Draws all vessels, far ones first; returns the target's share inside the picture and where it is seen.

    The latter is [h, w] float32: the share of the target's pixels in each pixel of the picture.
    """
    width, height = scene.size
    effects, target = scene.effects, scene.motion.target
    dressed, opacity = bool(effects.dressed[frame]), float(effects.opacity[frame])
    if dressed:
        target = replace(target, mesh=scene.dressed_target)
    actors = [actor for actor in scene.motion.others if actor.active[frame]] + [target] * with_target
    foam = np.zeros((height, width), np.uint8)
    for actor in actors:
        if actor.wake > 0.1 and (actor is not target or opacity == 1):
            place = actor.views[frame], actor.scale[frame], actor.anchor[frame]
            fill_outlines(foam, wake(*place, actor.wake), WAKE_FOAM)
    _blend_foam(picture, foam, waves)

    inside, visible = 0.0, np.zeros((height, width), np.float32)
    for actor in sorted(actors, key=lambda actor: actor.anchor[frame, 1]):
        place = actor.views[frame], actor.scale[frame], actor.anchor[frame]
        patch = draw_mesh(actor.mesh, *place, dressed=dressed and actor is target)
        windows = patch.window(width, height)
        if windows is None:
            continue
        outer, inner = windows
        alpha = patch.alpha[inner]
        change = patch.colour[inner] - alpha * picture[outer]
        picture[outer] += change * (opacity if actor is target else 1.0)
        visible[outer] *= 1 - alpha[..., 0]
        if actor is target:
            visible[outer] = alpha[..., 0] / patch.alpha.sum()
            inside = float(visible.sum())
    if with_target and not np.isnan(effects.spray[frame, 0, 0]):
        foam[:] = 0
        place = target.views[frame], target.scale[frame], target.anchor[frame]
        fill_outlines(foam, spray(*place, effects.spray[frame]), SPRAY_FOAM)
        _blend_foam(picture, foam, waves)
    return inside, visible


def _blend_foam(picture, foam, waves):
    """Lays white water over the picture where the uint8 mask says so, broken up by the waves."""
    left, top, width, height = cv2.boundingRect(foam)
    if width == 0:
        return
    where = slice(top, top + height), slice(left, left + width)
    share = foam[where] * np.clip(0.75 + 0.45 * waves[where], 0.15, 1) / np.float32(255)
    picture[where] += share[..., None] * (FOAM_COLOUR - picture[where])


def _sensor_noise(rng, width, height):
    grain = rng.uniform(1.0, 4.0) * rng.standard_normal((height, width), np.float32)
    return cv2.merge([grain, grain, grain])


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
