"""How the camera and the things move. All paths are planned for all n frames of a scene at once.

The world is a plane in pixels of the frame at zoom 1; its origin is what the camera looks at when it has not moved.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hiptrack.extras.world.drawing import affines


def wander(rng: np.random.Generator, frames: int, dimensions: int, pace: float) -> np.ndarray:
    """[frames, dimensions]: smooth random paths, about within [-1, 1], at about `pace` radians per frame."""
    paces = pace * rng.uniform(0.3, 1.4, (3, dimensions))
    phases, weights = rng.uniform(0, 2 * np.pi, (3, dimensions)), rng.uniform(0.1, 0.6, (3, dimensions))
    return (weights * np.sin(paces * np.arange(frames)[:, None, None] + phases)).sum(1)


def envelope(rng: np.random.Generator, frames: int) -> np.ndarray:
    """[frames] in [0, 1]: something that comes, stays for a span of a third of the scene or so, and goes."""
    length = max(3.0, frames * rng.uniform(0.2, 0.7))
    start, ramp = rng.uniform(-0.2 * frames, frames - 0.5 * length), max(1.0, length * rng.uniform(0.05, 0.4))
    t = np.arange(frames)
    return np.clip(np.minimum(t - start, start + length - t) / ramp, 0, 1)


@dataclass(frozen=True)
class Camera:
    """size: the frame's (width, height). centre [n, 2]: where it looks, zoom [n], roll [n] in radians."""

    size: tuple[int, int]
    centre: np.ndarray
    zoom: np.ndarray
    roll: np.ndarray

    def affine(self, frame: int, parallax: float | np.ndarray = 1.0) -> np.ndarray:
        """[2, 3] from the world to the frame; what is far away moves by the share `parallax` of the camera's way, one
        for both directions or [2]."""
        c, s = self._turns[:, frame]
        return affines((c, -s, s, c), parallax * self.centre[frame], np.array(self.size) / 2)

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """[n, 2] points of the frames -> of the world."""
        (c, s), (x, y) = self._turns / self.zoom**2, (points - np.array(self.size) / 2).T
        return self.centre + np.column_stack((c * x + s * y, c * y - s * x))

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """[n, 2] points of the world -> of the frames."""
        (c, s), (x, y) = self._turns, (points - self.centre).T
        return np.column_stack((c * x - s * y, s * x + c * y)) + np.array(self.size) / 2

    @cached_property
    def _turns(self):
        return self.zoom * np.array((np.cos(self.roll), np.sin(self.roll)))


def plan_camera(rng: np.random.Generator, frames: int, size: tuple[int, int], strength: float) -> Camera:
    """A camera that stands, follows, pans, shakes and zooms, the more the larger `strength` (0..1)."""
    centre, zoom, roll = np.zeros((frames, 2)), np.ones(frames), np.zeros(frames)
    if rng.random() < 0.3 + 0.7 * strength:
        span = strength * size[0] * np.array((1.0, 0.5))
        centre = span * rng.uniform(0.05, 1.0) * wander(rng, frames, 2, rng.uniform(0.02, 0.15))
        centre += np.arange(frames)[:, None] * (strength * rng.normal(0, 0.012, 2) * size[0] * (1, 0.4))
    if rng.random() < 0.6 * strength:  # a hand's, or a vehicle's
        centre += strength * rng.exponential(0.006) * size[0] * rng.standard_normal((frames, 2))
        roll = strength * 0.02 * rng.standard_normal(frames)
    if rng.random() < strength:
        zoom = np.exp(0.6 * strength * wander(rng, frames, 1, rng.uniform(0.02, 0.12))[:, 0])
        roll = roll + 0.2 * strength * wander(rng, frames, 1, 0.05)[:, 0]
    return Camera(size, centre, zoom, roll)


@dataclass(frozen=True)
class Track:
    """Poses of a thing in n frames, in the frames' coordinates.

    position [n, 2]; size [n]: about sqrt(w*h) of its box; angle [n] in the picture and yaw [n] to the side, in radians;
    shear [n].
    """

    position: np.ndarray
    size: np.ndarray
    angle: np.ndarray
    yaw: np.ndarray
    shear: np.ndarray

    def affines(self, side: int, extent: float) -> np.ndarray:
        """[n, 2, 3] from a canvas of `side` pixels, `extent` of which is the thing's own size, to the frames."""
        scale = self.size / extent
        c, s = scale * np.cos(self.angle), scale * np.sin(self.angle)
        narrow = np.cos(0.75 * self.yaw)  # turned to the side, it shows less of its width
        turn = c * narrow, c * self.shear - s, s * narrow, s * self.shear + c
        return affines(turn, np.full(2, (side - 1) / 2), self.position - 0.5)


def plan_target(
    rng: np.random.Generator, camera: Camera, sizes: tuple[float, float], reach: float, speed: float, deformation: float,
    cut: float,
) -> Track:  # fmt: skip
    """The target's track: inside the frame, but for scenes in which it leaves it partly (chance `cut`).

    sizes: the smallest and largest mean size in pixels. reach: how far it goes from its centre, in its sizes. speed:
    about the largest way in a frame, in target sizes.
    """
    frames, frame_size = len(camera.zoom), np.array(camera.size, float)
    largest = min(sizes[1], 0.42 * frame_size.min() / reach)
    mean = np.exp(rng.uniform(np.log(min(sizes[0], largest)), np.log(largest)))
    own = 0.35 * rng.random() * wander(rng, frames, 1, rng.uniform(0.02, 0.15))[:, 0]
    size = np.minimum(mean * camera.zoom * np.exp(own), 0.48 * frame_size.min() / reach)
    size = np.maximum(size, min(0.7 * sizes[0], largest))
    span = frame_size * rng.uniform(0.02, 0.4)
    pace = np.clip(speed * np.exp(rng.uniform(-4, 0)) * mean / span.mean(), 0.005, 0.9)
    is_cut = rng.random() < cut
    home = rng.uniform(0.3, 0.7, 2)
    if is_cut:
        home[rng.integers(2)] = rng.integers(2)
    position = frame_size * home + span * wander(rng, frames, 2, pace)
    if rng.random() < 0.3:  # jerks
        jumps = speed * mean * rng.standard_normal((frames, 2)) * (rng.random((frames, 1)) < 0.1)
        position = position + np.cumsum(jumps, 0)
    margin = rng.uniform(-0.15, 0.4) if is_cut else reach
    inner = np.minimum(margin * size[:, None], 0.5 * frame_size)
    return _turning(rng, np.clip(position, inner, frame_size - inner), size, deformation)


def plan_companion(rng: np.random.Generator, track: Track, deformation: float) -> Track:
    """A track near another one: beside it, somewhat with it, of about its size."""
    frames, angle = len(track.size), rng.uniform(0, 2 * np.pi)
    offset = rng.uniform(1.0, 4.0) * np.array((np.cos(angle), 0.8 * np.sin(angle)))
    offset = (offset + rng.uniform(0, 1.2) * wander(rng, frames, 2, rng.uniform(0.01, 0.2))) * track.size[:, None]
    size = track.size * np.exp(rng.normal(0, 0.15))
    return _turning(rng, track.position + offset, size, deformation)


def plan_passer(rng: np.random.Generator, track: Track, when: np.ndarray, widest: float) -> Track:
    """A track across another one: over its middle where the envelope `when` [n] is 1, beside it where it is 0."""
    angle = rng.uniform(0, 2 * np.pi)
    away = rng.uniform(1.6, 3.0) * (1 - when)
    beside = rng.uniform(-0.35, 0.35) * np.array((-np.sin(angle), np.cos(angle)))
    path = away[:, None] * np.array((np.cos(angle), np.sin(angle))) + beside
    size = track.size * rng.uniform(0.45, widest)
    return _turning(rng, track.position + path * track.size[:, None], size, 0.0)


def plan_bystander(rng: np.random.Generator, camera: Camera, track: Track) -> Track:
    """The track of a thing that stands or drifts in the world not far from another one's way."""
    frames = len(track.size)
    moment = int(rng.integers(frames))
    way = camera.to_world(track.position)
    mean = track.size[moment] / camera.zoom[moment]
    place = (
        way[moment] + mean * rng.normal(0, 3.0, 2) + 1.5 * mean * np.array((rng.choice((-1, 1)), rng.choice((-1, 1))))
    )
    size = mean * np.exp(rng.normal(0.0, 0.7))
    if rng.random() < 0.3:
        place = place + mean * 0.05 * rng.standard_normal(2) * np.arange(-moment, frames - moment)[:, None]
    position = camera.to_frame(np.broadcast_to(place, (frames, 2)))
    still = np.zeros(frames)
    return Track(position, size * camera.zoom, rng.normal(0, 0.3) + camera.roll, still, still)


def _turning(rng, position, size, deformation):
    frames = len(size)
    angle = (
        rng.normal(0, 0.15) + 0.6 * deformation * rng.random() * wander(rng, frames, 1, rng.uniform(0.02, 0.2))[:, 0]
    )
    if rng.random() < 0.15 * deformation:  # it spins
        angle = angle + rng.normal(0, 0.12) * np.arange(frames)
    yaw = np.clip(1.3 * deformation * rng.random() * wander(rng, frames, 1, rng.uniform(0.02, 0.15))[:, 0], -1.1, 1.1)
    shear = 0.35 * deformation * rng.random() * wander(rng, frames, 1, 0.08)[:, 0]
    return Track(position, size, angle, yaw, shear)
