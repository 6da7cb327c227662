"""What lies between scene and picture: light, shadow, fog, rain, glare, defocus, coarse pixels, noise, compression.

Pictures are float32 [h, w, 3] RGB in grey levels. A view [2, 3] takes the frame's pixels to the picture's; lengths are
in frame pixels. So an effect looks the same in a frame and in a crop of it.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from hiptrack.extras.world.drawing import halvings, scale_of, thrice
from hiptrack.extras.world.motion import envelope, wander
from hiptrack.extras.world.textures import CLOUDS, SIZE, SPREAD, Bank


@dataclass(frozen=True)
class Effects:
    """Of each of n frames.

    gain [n, 3]; shade [n]: strength of the shadows and lights on the ground, 0..1; fog [n]: share of fog; rain [n] in
    grey levels; glare [n, 3]: place in the frame and grey levels; defocus [n]: standard deviation; coarse [n]: side of
    a coarse pixel, 0: none; shutter [n]: share of the time between frames that it is open; noise: standard deviation in
    grey levels; quality: of JPEG, 0: not compressed; vignette: share of light lost in the corners; sharpening:
    how much the camera exaggerates edges.
    """

    gain: np.ndarray
    shade: np.ndarray
    shade_cloud: int
    shade_edge: float
    shade_scale: float
    fog: np.ndarray
    fog_colour: np.ndarray
    fog_cloud: int
    rain: np.ndarray
    glare: np.ndarray
    defocus: np.ndarray
    coarse: np.ndarray
    shutter: np.ndarray
    noise: float
    quality: int
    vignette: float
    sharpening: float
    offsets: np.ndarray  # [n, 2] where each frame reads noise and rain


def plan_effects(
    rng: np.random.Generator, frames: int, size: tuple[int, int], target, *, light: float, weather: float, blur: float,
    noise: float, compression: float,
) -> Effects:  # fmt: skip
    """Draws all effects; the numbers are chances and strengths in 0..1 (see `World`). target: the target's Track."""
    gain, shade, glare = np.ones((frames, 3)), np.zeros(frames), np.zeros((frames, 3))
    fog, rain = np.zeros(frames), np.zeros(frames)
    defocus, coarse, shutter = np.zeros(frames), np.zeros(frames), np.zeros(frames)
    mean = float(target.size.mean())
    if rng.random() < light:  # the whole light changes
        change = np.exp(light * rng.normal(0, 0.5) + light * rng.normal(0, 0.18, 3))
        gain = change ** envelope(rng, frames)[:, None]
        if rng.random() < 0.2:
            gain = gain * (1 + 0.3 * light * wander(rng, frames, 1, rng.uniform(0.3, 2.0)))
    if rng.random() < light:
        shade[:] = rng.uniform(0.2, 1.0) * light
    if rng.random() < 0.3 * light:
        place = target.position + mean * rng.normal(0, 1.5, 2)
        glare = np.column_stack((place, rng.uniform(60, 230) * envelope(rng, frames)))
    if rng.random() < weather:
        fog = rng.uniform(0.1, 0.75) * weather**0.5 * (envelope(rng, frames) if rng.random() < 0.5 else 1.0) + fog
    if rng.random() < 0.25 * weather:
        rain[:] = rng.uniform(30, 160)
    if rng.random() < 0.5 * blur:
        defocus = 0.09 * mean * rng.uniform(0.2, 1.0) * envelope(rng, frames)
    if rng.random() < 0.4 * blur:
        coarse = np.where(envelope(rng, frames) > 0.3, mean / rng.uniform(7, 16), 0.0)
    if rng.random() < blur:
        shutter[:] = rng.uniform(0.1, 1.0)
    return Effects(
        gain=np.clip(gain, 0.2, 3.0),
        shade=shade,
        shade_cloud=int(rng.integers(CLOUDS)),
        shade_edge=rng.uniform(0.5, 8.0),
        shade_scale=np.exp(rng.uniform(np.log(0.5), np.log(4.0))),
        fog=fog,
        fog_colour=np.full(3, rng.uniform(110, 230)) + rng.normal(0, 8, 3),
        fog_cloud=int(rng.integers(CLOUDS)),
        rain=rain,
        glare=glare,
        defocus=defocus,
        coarse=coarse,
        shutter=shutter,
        noise=rng.exponential(8.0) * noise if rng.random() < noise else 0.0,
        quality=int(rng.integers(15, 85)) if rng.random() < compression else 0,
        vignette=rng.uniform(0, 0.4) if rng.random() < 0.3 * light else 0.0,
        sharpening=rng.uniform(0.3, 1.5) if rng.random() < 0.6 else 0.0,
        offsets=rng.uniform(0, SIZE, (frames, 2)),
    )


def light_up(
    picture: np.ndarray, effects: Effects, bank: Bank, frame: int, to_frame: np.ndarray, view: np.ndarray
) -> np.ndarray:
    """Shadows and lights that lie on the ground, the camera's gain and vignette. to_frame [2, 3]: from the world."""
    strength = effects.shade[frame]
    if strength > 0:
        turn = effects.shade_scale * to_frame[:, :2]
        cloud = _sampled(bank.cloud(effects.shade_cloud), np.column_stack((turn, to_frame[:, 2])), view, picture)
        lit = np.tanh((cloud - 128) * np.float32(effects.shade_edge / SPREAD)) * np.float32(0.45 * strength) + 1
        picture = picture * thrice(lit)
    if effects.vignette:
        width, height = 1 / view[0, 0], 1 / view[1, 1]
        x = ((np.arange(picture.shape[1]) - view[0, 2]) * width - 320) / 640
        y = ((np.arange(picture.shape[0]) - view[1, 2]) * height - 180) / 360
        falloff = 1 - effects.vignette * np.minimum(x[None] ** 2 + y[:, None] ** 2, 1.5)
        picture = picture * thrice(falloff.astype(np.float32))
    gain = effects.gain[frame]
    return picture if (gain == 1).all() else cv2.multiply(picture, (*gain, 1.0))


def lay_weather(picture: np.ndarray, effects: Effects, bank: Bank, frame: int, view: np.ndarray) -> np.ndarray:
    """Fog, rain and glare."""
    fog = float(effects.fog[frame])
    if fog > 0:
        cloud = _sampled(bank.cloud(effects.fog_cloud), np.array(((3.0, 0, 2.0 * frame), (0, 3.0, 0))), view, picture)
        share = np.clip(np.float32(fog) * (1 + (cloud - 128) * np.float32(0.5 / SPREAD)), 0, 0.9)
        picture = picture + thrice(share) * (np.full_like(picture, effects.fog_colour) - picture)
    if effects.rain[frame] > 0:
        x, y = effects.offsets[frame]
        rain = _sampled([bank.rain], np.array(((1.5, 0, x), (0, 1.5, y))), view, picture)
        picture = picture + thrice(rain * np.float32(effects.rain[frame] / 255))
    x, y, strength = effects.glare[frame]
    if strength > 1:
        across = ((np.arange(picture.shape[1]) - view[0, 2]) / view[0, 0] - x) / (0.2 * strength)
        down = ((np.arange(picture.shape[0]) - view[1, 2]) / view[1, 1] - y) / (0.2 * strength)
        rays = (
            np.exp(-(across**2))[None] * np.exp(-(down**2))[:, None]
            + 0.3 * np.exp(-np.abs(across))[None] * np.exp(-((8 * down) ** 2))[:, None]
        )
        picture = picture + thrice((strength * rays).astype(np.float32))
    return picture


def take(picture: np.ndarray, effects: Effects, bank: Bank, frame: int, view: np.ndarray) -> np.ndarray:
    """What the camera makes of it, uint8: defocus or sharpened edges, coarse pixels, noise, compression."""
    height, width = picture.shape[:2]
    scale = view[0, 0]
    sigma = effects.defocus[frame] * scale
    if sigma > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    elif effects.sharpening and scale > 0.3:
        picture = picture + np.float32(effects.sharpening) * (
            picture - cv2.GaussianBlur(picture, (0, 0), max(scale, 0.5))
        )
    cell = effects.coarse[frame] * scale
    if cell > 1.3:
        small = max(4, round(width / cell)), max(4, round(height / cell))
        picture = cv2.resize(
            cv2.resize(picture, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=cv2.INTER_LINEAR
        )
    if effects.noise:
        x, y = np.floor(effects.offsets[frame])
        noise = _sampled([bank.noise], np.array(((1.0, 0, x), (0, 1.0, y))), view, picture)
        picture = picture + (noise - 128) * np.float32(effects.noise / 32)
    picture = cv2.convertScaleAbs(np.maximum(picture, 0, out=picture))
    return compressed(picture, effects.quality, scale) if effects.quality else picture


def compressed(picture: np.ndarray, quality: int, scale: float) -> np.ndarray:
    """As JPEG leaves it; the blocks of a magnified picture are as large as in the frame."""
    height, width = picture.shape[:2]
    if scale > 1:
        picture = cv2.resize(
            picture, (max(8, round(width / scale)), max(8, round(height / scale))), interpolation=cv2.INTER_AREA
        )
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR) if scale > 1 else picture


def _sampled(levels, to_frame, view, picture):
    """A tiling picture laid over the frame by `to_frame` [2, 3], as the view sees it: float32."""
    number = min(halvings(scale_of(to_frame)), len(levels) - 1)
    half = 2.0**number
    affine = view[:, :2] @ to_frame[:, :2], view[:, :2] @ to_frame[:, 2] + view[:, 2]
    backward = cv2.invertAffineTransform(np.column_stack((affine[0] * half, affine[1])))
    backward[:, 2] %= SIZE / half
    size = picture.shape[1], picture.shape[0]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(levels[number], backward, size, flags=flags, borderMode=cv2.BORDER_WRAP).astype(np.float32)
