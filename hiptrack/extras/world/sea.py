"""A scene at sea: vessels on the water where other scenes have things on the ground."""

from dataclasses import dataclass, replace
from functools import lru_cache, partial

import cv2
import numpy as np

from hiptrack.extras.world.drawing import Levels, affines, thrice
from hiptrack.extras.world.effects import plan_effects
from hiptrack.extras.world.motion import (
    Track,
    envelope,
    plan_bystander,
    plan_camera,
    plan_companion,
    plan_passer,
    plan_target,
    wander,
)
from hiptrack.extras.world.scene import (
    BANK_THINGS,
    FRAME_SIZES,
    LIKE_PASSES,
    Bystander,
    Scene,
    SceneDifficulty,
)
from hiptrack.extras.world.textures import AFLOAT, SPREAD, TEXTURES, Bank
from hiptrack.extras.world.vessels import Mesh, Views, bounds, draw_mesh, make_obstacle, make_vessel, similar
from hiptrack.extras.world.water import MIRRORED, plan_sea

FOCAL = 1.25  # of the camera, in widths of the frame
TILTS = (0.05, 0.45)  # sines of the angles at which the camera looks down
SHADOW_EDGE = 1.0  # edge of the shadows: clouds cast them, from high above
REACH = 1.0  # how far a vessel goes from its centre, in its sizes
CORNER = np.array((-0.5, -0.5))  # of a canvas, in pixel coordinates
GRID = 24  # points along the sides of a box by which is found how much is hidden
FINE = 2  # a solid is drawn so many times finer than the frame shows it
_SUB = 4


@dataclass(frozen=True, eq=False)
class Afloat:
    """A solid on its way over the water; to a scene what its Actor is elsewhere.

    points [n, V, 2]: its mesh's vertices in the frames; boxes [n, 4] xyxy; anchors [n, 2]: where its origin at the
    waterline is, scales [n]: frame pixels a vessel length; wake: its length in vessel lengths, 0: it lies still; grain
    [S, S]: factors of its colours; side: as of a Thing's canvas.
    """

    mesh: Mesh
    track: Track
    views: Views
    points: np.ndarray
    boxes: np.ndarray
    anchors: np.ndarray
    scales: np.ndarray
    wake: float
    grain: np.ndarray
    side: int

    def parts(self, frame):
        """(look, affine to the frame, frame pixels per canvas pixel) of its only part."""
        canvas, scale, corner = _drawn(self, frame)
        return [(Levels(canvas), affines((1 / scale, 0, 0, 1 / scale), CORNER, corner - 0.5), 1 / scale)]

    def mirrored(self, frame):
        """The same of what the water shows of it."""
        canvas, scale, corner = _drawn(self, frame)
        waterline = self.anchors[frame, 1]
        image = mirror_image(canvas, (waterline - corner[1]) * scale)
        place = np.array((corner[0], waterline)) - 0.5
        return Levels(image), affines((1 / scale, 0, 0, 1 / scale), CORNER, place), 1 / scale

    def foam(self, frame):
        """Outlines [4, 2] in the frame of the foam behind it and beside its bow."""
        if not self.wake:
            return []
        tail, middle, wide = -0.45 - self.wake, -0.45 - 0.6 * self.wake, 0.1 + 0.16 * self.wake
        outlines = [
            ((-0.45, 0.08), (tail, wide), (tail, -wide), (-0.45, -0.08)),
            ((-0.45, 0.06), (middle, 0.09), (middle, -0.09), (-0.45, -0.06)),
            *(((0.5, 0.0), (-0.2, side * 0.34), (-0.35, side * 0.24), (0.1, side * 0.12)) for side in (1, -1)),
        ]
        points = np.array([(x, y, 0.0) for outline in outlines for x, y in outline])
        placed = self.views.at(frame).project(points)[0] * self.scales[frame] + self.anchors[frame] - 0.5
        return list(placed.reshape(len(outlines), 4, 2))

    def share_behind(self, passer):
        """[n]: the share of it that is behind another one."""
        mine, other = self.boxes, passer.boxes
        shares = np.zeros(len(mine))
        near = (np.minimum(mine[:, 2:], other[:, 2:]) > np.maximum(mine[:, :2], other[:, :2])).all(1)
        for frame in np.flatnonzero(near):
            outline, hiding = (_outline(each, frame, mine[frame]) for each in (self, passer))
            shares[frame] = outline[hiding].sum() / max(outline.sum(), 1)
        return shares


@lru_cache(maxsize=16)
def _drawn(afloat, frame):
    """As draw_mesh, FINE times as fine as the frame, and with its grain."""
    x1, y1, x2, y2 = afloat.boxes[frame]
    longest = FINE * int(np.clip(max(x2 - x1, y2 - y1), 4, afloat.side))
    canvas, scale, corner = draw_mesh(afloat.mesh, afloat.views.at(frame), afloat.points[frame], longest)
    canvas[..., :3] *= thrice(cv2.resize(afloat.grain, canvas.shape[1::-1]))
    return np.minimum(canvas, 255, out=canvas), scale, corner


def _outline(afloat, frame, box_xyxy):
    """bool [GRID, GRID]: where it is within a box."""
    cells = GRID / np.maximum(box_xyxy[2:] - box_xyxy[:2], 1e-6)
    corners = np.round(((afloat.points[frame] - box_xyxy[:2]) * cells - 0.5) * 2**_SUB)
    corners = np.clip(corners, -(2**20), 2**20).astype(np.int32)
    mask = np.zeros((GRID, GRID), np.uint8)
    for face in corners[afloat.mesh.faces]:
        cv2.fillConvexPoly(mask, face, 1, cv2.LINE_8, _SUB)
    return mask > 0


def mirror_image(canvas, waterline):
    """What water shows of a premultiplied RGBA picture, float32; its first row is at the waterline, a row of the picture."""
    above = canvas[: max(int(waterline), 2)]
    image = cv2.resize(cv2.flip(above, 0), (above.shape[1], max(int(0.7 * len(above)), 2)))
    fading = MIRRORED * np.linspace(1, 0.2, len(image), dtype=np.float32)
    return cv2.blur(image, (1, max(len(image) // 12, 1))) * fading[:, None, None]


def make_sea_scene(
    rng: np.random.Generator, bank: Bank, frames: int, side: int, difficulty: SceneDifficulty,
    size: tuple[int, int] | None = None,
) -> Scene:  # fmt: skip
    """Plans a scene of `frames` frames of `size` (w, h; None: of FRAME_SIZES); see scene.make_scene."""
    hard = difficulty
    size = FRAME_SIZES[rng.integers(len(FRAME_SIZES))] if size is None else size
    camera = plan_camera(rng, frames, size, hard.camera)
    track = plan_target(rng, camera, hard.sizes, REACH, hard.speed, 0.0, hard.cut)
    nearness = np.exp(rng.uniform(np.log(0.25), np.log(1.1)))  # size of the target over its depth below the horizon
    depth = track.size / nearness
    layers, water = plan_sea(rng, size, float(np.median(depth / camera.zoom)), FOCAL * size[0])
    is_camouflaged = bool(rng.random() < hard.camouflage)
    base = water.near if is_camouflaged else None
    launch = partial(_launch, rng, bank, side, hard.deformation)

    mesh = make_vessel(rng, base)
    target = launch(mesh, track, depth, camera, follows=True)
    camera = _levelled(camera, target.anchors, depth)
    # the farthest first, and all of them farther than the target: so they are drawn
    likes = []
    for farness in np.sort(rng.uniform(0.6, 0.98, min(rng.poisson(hard.lookalikes), 6))):
        beside = plan_companion(rng, target.track, 0.0)
        likes.append(launch(similar(mesh, rng), replace(beside, size=farness * beside.size), farness * depth, camera))
    passers = []
    if rng.random() < hard.occlusion:
        kind, across = rng.random(), _sideways(rng, target.track, envelope(rng, frames), 0.6 + 0.6 * hard.occlusion)
        passer = similar(mesh, rng) if kind < LIKE_PASSES else (make_vessel, make_obstacle)[kind < 0.6](rng, base)
        passers.append(launch(passer, across, depth + rng.uniform(0.02, 0.25) * across.size, camera))
    farness = np.sort(rng.uniform(0.15, 0.6, min(rng.poisson(hard.clutter), 40)))
    bystanders = [_bystander(rng, bank, side, camera, target.track, far, far * water.depth) for far in farness]
    effects = plan_effects(
        rng, frames, size, target.track, light=hard.light, weather=hard.weather, blur=hard.blur, noise=hard.noise,
        compression=hard.compression,
    )  # fmt: skip
    effects = replace(effects, shade_edge=min(effects.shade_edge, SHADOW_EDGE))
    return Scene(size, bank, camera, layers, bystanders, likes, target, passers, effects, None, is_camouflaged, water)


def _launch(rng, bank, side, deformation, mesh, track, depth, camera, follows=False):
    """Afloat, of a track's sizes, `depth` [n] frame pixels below the horizon at the track's places to the side; where
    the camera follows it, at the track's places."""
    frames, steps = len(depth), np.arange(len(depth))
    heading = rng.uniform(-0.9, 0.9) + np.pi * rng.integers(2)
    heading = heading + 1.6 * deformation * rng.random() * wander(rng, frames, 1, rng.uniform(0.02, 0.12))[:, 0]
    if rng.random() < 0.2 * deformation:  # it goes round
        heading = heading + rng.normal(0, 0.06) * steps
    roll = camera.roll + rng.uniform(0, 0.07) * np.sin(steps * rng.uniform(0.15, 0.4) + rng.uniform(0, 6))
    views = Views(heading, np.clip(depth / (FOCAL * camera.size[0]), *TILTS), roll)
    points = views.project(mesh.vertices)
    from_abeam = bounds(Views(np.zeros(1), views.tilt[:1], np.zeros(1)).project(mesh.vertices))
    # halfway between a constant length and a constant area: no tiny bows
    scales = track.size / np.sqrt(_root_area(bounds(points)) * _root_area(from_abeam))
    points = points * scales[:, None, None]
    outlines = bounds(points)
    middles = (outlines[:, :2] + outlines[:, 2:]) / 2
    if follows:
        anchors = track.position - middles
    else:
        to_side = camera.to_world(track.position)[:, 0]
        anchors = camera.to_frame(np.column_stack((to_side, depth / camera.zoom)))
    texture = bank.texture(int(rng.integers(TEXTURES)))[2][..., 0]
    return Afloat(
        mesh=mesh,
        track=replace(track, position=anchors + middles, angle=roll, yaw=heading, shear=np.zeros(frames)),
        views=views,
        points=points + anchors[:, None],
        boxes=outlines + np.tile(anchors, 2),
        anchors=anchors,
        scales=scales,
        wake=rng.uniform(0.2, 1.6) if rng.random() < 0.7 else 0.0,
        grain=1 + rng.uniform(0.02, 0.2) * (texture.astype(np.float32) - 128) / np.float32(SPREAD),
        side=side,
    )


def _root_area(box):
    return np.sqrt((box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]))


def _levelled(camera, anchors, depth):
    """The camera that looks up or down such that water `depth` [n] frame pixels below the horizon is at the anchors."""
    centre = camera.centre.copy()
    level = replace(camera, centre=np.zeros_like(centre))
    centre[:, 1] = depth / camera.zoom - level.to_world(anchors)[:, 1]
    return replace(camera, centre=centre)


def _sideways(rng, track, when, widest):
    """As plan_passer, but across from one side to where it came from, as all goes on the water."""
    passer = plan_passer(rng, track, when, widest)
    way = passer.position - track.position
    to_side = np.copysign(np.hypot(*way.T), way[:, 0].mean())
    return replace(passer, position=track.position + to_side[:, None] * (1, 0))


def _bystander(rng, bank, side, camera, track, farness, depth):
    """Of a target's sizes times farness, `depth` world pixels below the horizon."""
    number = int(rng.integers(BANK_THINGS))
    levels, origin, middle, size = bank.once((AFLOAT, number, side), lambda own: _at_anchor(own, side))
    beside = plan_bystander(rng, camera, track)
    to_side = camera.to_world(beside.position)[:, 0]
    place = camera.to_frame(np.column_stack((to_side, np.full(len(to_side), depth))))
    scale = farness * beside.size / size
    c, s = scale * np.cos(camera.roll), scale * np.sin(camera.roll)
    gain = np.exp(rng.normal(0, 0.25) + rng.normal(0, 0.1, 3))
    return Bystander(levels, affines((c, -s, s, c), origin - 0.5, place - 0.5), gain, middle)


def _at_anchor(rng, side):
    """(the look of something with its mirror image; in its pixels [2] its origin, [2] its middle, root of its area)."""
    mesh = make_vessel(rng) if rng.random() < 0.5 else make_obstacle(rng)
    view = Views(rng.uniform(0, 2 * np.pi, 1), rng.uniform(*TILTS, 1) / 2, np.zeros(1))
    canvas, scale, corner = draw_mesh(mesh, view, view.project(mesh.vertices)[0], side)
    origin = -corner * scale
    image, foot = mirror_image(canvas, origin[1]), int(origin[1])
    whole = np.zeros((max(len(canvas), foot + len(image)), *canvas.shape[1:]), np.float32)
    whole[foot : foot + len(image)] = image
    whole[: len(canvas)] = canvas + whole[: len(canvas)] * (1 - canvas[..., 3:] / 255)
    height, width = canvas.shape[:2]
    return Levels(whole), origin, np.array((width, height)) / 2, np.sqrt(height * width)
