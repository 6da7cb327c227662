"""A synthetic sequence as a whole, and the pictures made of it. Pictures are BGR."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from hiptrack.data.synthetic_background import Background, draw_background, make_background
from hiptrack.data.synthetic_drawing import draw_mesh, fill_outlines, spray, wake
from hiptrack.data.synthetic_effects import apply_light, blur, coarsen, draw_occluder
from hiptrack.data.synthetic_motion import Motion, plan_motion
from hiptrack.data.synthetic_plan import (
    CHALLENGES,
    HIDDEN_SHARE,
    OCCLUSION,
    OUTSIDE_SHARE,
    PARTIAL,
    Effects,
    Span,
    plan_effects,
    plan_spans,
)
from hiptrack.data.synthetic_vessels import Mesh, repaint

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
