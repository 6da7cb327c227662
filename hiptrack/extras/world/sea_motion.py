"""How the vessels of a synthetic sequence and the camera move.

The target's path over the picture is planned first, with the camera's shake in it; the camera's pan and
the height of the horizon follow from it and from the target's own way over the water. All positions are
pixels (x right, y down), angles radians, one entry a frame.
"""

from dataclasses import dataclass

import numpy as np

from hiptrack.data.labels import CLASSES
from hiptrack.extras.world.sea_vessels import KINDS, Mesh, View, extent, make_buoy, make_vessel, similar

CHALLENGES = len(CLASSES) - 1
(OCCLUSION, ILLUMINATION, SCALE, BLUR, APPEARANCE, PARTIAL, LOW_RESOLUTION, CLUTTER, LOW_CONTRAST) = range(CHALLENGES)

START_FRAMES = (2, 5)  # a sequence starts with this many normal frames
SPAN_FRAMES = (5, 13)
PAUSE_FRAMES = (3, 7)
PAUSE_SHARE = 0.3  # spans that are followed by normal frames
PAIR_SHARE = 0.12  # spans of two challenges
UNFIT = {(SCALE, APPEARANCE), (BLUR, LOW_RESOLUTION), (SCALE, PARTIAL)}

HIDDEN_SHARE = 0.2  # of the target inside the picture: from here on a frame counts as occluded
OUTSIDE_SHARE = 0.08  # of the target: from here on it counts as partially visible

OCCLUDERS = {"pile": (0.4, 0.6), "barge": (0.35, 0.52), "bow": (0.4, 0.6), "buoy": (0.5, 0.75)}  # shares


@dataclass(frozen=True)
class Span:
    """One challenge in the frames start <= t < stop (0-based)."""

    start: int
    stop: int
    challenge: int


@dataclass(frozen=True)
class Occluder:
    """A thing between camera and target in one frame.

    `place`: its centre from the box's centre, in box widths (a bow: the share of the width that it hides).
    `share`: its size as a share of the box (height of a barge, width of the others). `side`: where it
    comes from, 1 for the right. `mesh`: of a buoy.
    """

    kind: str
    place: float
    share: float
    side: int
    colour: tuple[float, float, float]
    mesh: Mesh | None


@dataclass
class Effects:
    """What is done to the picture of each of n frames; lengths in units of the target's size."""

    gain: np.ndarray  # [n, 3] factors on B, G, R
    lift: np.ndarray  # [n] added grey levels
    glare: np.ndarray  # [n, 3] place right and below the target's centre, strength in grey levels
    blur: np.ndarray  # [n, 2] right, down: the path of a point while the shutter is open
    cells: np.ndarray  # [n] coarse pixels across the target, 0: full resolution
    smooth: np.ndarray  # [n] bool: coarse pixels are interpolated
    opacity: np.ndarray  # [n] of the target
    haze: np.ndarray  # [n] share of haze over everything
    dressed: np.ndarray  # [n] bool: the target is repainted and dressed with flags
    spray: np.ndarray  # [n, 2, 5] height of the spray at the target, NaN: none
    occluders: list[Occluder | None]


def spans_expected(frames: int) -> int:
    """About how many spans fit into a sequence."""
    usual = np.mean(SPAN_FRAMES) - 0.5 + PAUSE_SHARE * (np.mean(PAUSE_FRAMES) - 0.5)
    return max(1, round(frames / usual))


def plan_spans(rng: np.random.Generator, frames: int, order: list[int]) -> list[Span]:
    """Spans over a sequence, mostly one challenge at a time: those of `order` first, then random ones."""
    spans, queue, t = [], list(order), int(rng.integers(*START_FRAMES))
    while t < frames:
        first = queue.pop(0) if queue else int(rng.integers(CHALLENGES))
        stop = min(t + int(rng.integers(*SPAN_FRAMES)), frames)
        spans.append(Span(t, stop, first))
        second = int(rng.integers(CHALLENGES))
        fits = second != first and not UNFIT & {(first, second), (second, first)}
        if rng.random() < PAIR_SHARE and fits:
            spans.append(Span(t, stop, second))
        t = stop + (int(rng.integers(*PAUSE_FRAMES)) if rng.random() < PAUSE_SHARE else 0)
    return spans


def plan_effects(rng: np.random.Generator, spans: list[Span], frames: int) -> Effects:
    """Draws the strength of every span's effect."""
    effects = Effects(
        gain=np.ones((frames, 3)),
        lift=np.zeros(frames),
        glare=np.zeros((frames, 3)),
        blur=np.zeros((frames, 2)),
        cells=np.zeros(frames),
        smooth=np.zeros(frames, bool),
        opacity=np.ones(frames),
        haze=np.zeros(frames),
        dressed=np.zeros(frames, bool),
        spray=np.full((frames, 2, 5), np.nan),
        occluders=[None] * frames,
    )
    for span in spans:
        where, count = slice(span.start, span.stop), span.stop - span.start
        if span.challenge == OCCLUSION:
            _plan_occluder(rng, effects, span, frames)
        elif span.challenge == ILLUMINATION:
            _plan_light(rng, effects, where, count)
        elif span.challenge == BLUR:
            angle, length = rng.uniform(-0.6, 0.6) + np.pi * rng.integers(2) / 2, rng.uniform(0.32, 0.5)
            effects.blur[where] = length * np.array((np.cos(angle), np.sin(angle)))
            effects.blur[where] *= rng.uniform(0.85, 1.15, (count, 1))
        elif span.challenge == LOW_RESOLUTION:
            effects.cells[where] = rng.uniform(6.0, 8.5)
            effects.smooth[where] = rng.random() < 0.3
        elif span.challenge == LOW_CONTRAST:
            effects.opacity[where] = rng.uniform(0.3, 0.42)
            effects.haze[where] = rng.uniform(0.25, 0.45)
        elif span.challenge == APPEARANCE:
            effects.dressed[where] = True
        elif span.challenge == SCALE:
            effects.spray[where] = rng.random((count, 2, 5))
    return effects


def _plan_light(rng, effects, where, count):
    flicker = 1 + 0.15 * np.sin(np.arange(count) * rng.uniform(0.5, 1.2) + rng.uniform(0, 6))
    kind = rng.integers(4)
    if kind == 0:
        effects.gain[where] = rng.uniform(0.26, 0.38) * flicker[:, None]
    elif kind == 1:
        effects.gain[where] = rng.uniform(1.7, 2.2) * flicker[:, None]
        effects.lift[where] = rng.uniform(20, 50)
    elif kind == 2:
        casts = np.array(((0.3, 0.75, 1.6), (1.7, 0.8, 0.35), (1.2, 0.45, 1.5)))
        effects.gain[where] = casts[rng.integers(len(casts))] * flicker[:, None]
    else:
        effects.glare[where, :2] = rng.uniform(-0.7, 0.7, 2)
        effects.glare[where, 2] = rng.uniform(170, 250) * flicker


def _plan_occluder(rng, effects, span, frames):
    kind, side = str(rng.choice(list(OCCLUDERS))), int(rng.choice((-1, 1)))
    share = rng.uniform(*OCCLUDERS[kind])
    base = np.array(((120, 125, 130), (60, 85, 110), (40, 40, 130), (45, 45, 45), (110, 60, 30)))
    colour = tuple(np.clip(base[rng.integers(len(base))] + rng.normal(0, 10, 3), 10, 240).tolist())
    mesh = make_buoy(rng) if kind == "buoy" else None
    reach = {"pile": 0.5 - share / 2, "buoy": 0.5 - share / 2, "barge": 0.5, "bow": 0.06}[kind]
    outside = {"pile": 0.52 + share / 2, "buoy": 0.52 + share / 2, "barge": 1.75, "bow": -0.2 - share}[kind]
    for t in range(max(span.start - 1, 0), min(span.stop + 1, frames)):
        if t in (span.start - 1, span.stop):
            place = outside if t < span.start or kind == "bow" else -outside
        else:
            place = reach * (1 - 2 * (t - span.start) / max(span.stop - span.start - 1, 1))
        place = place + share if kind == "bow" else side * place
        effects.occluders[t] = Occluder(kind, place, share, side, colour, mesh)


FOCAL = 400.0  # of the camera, in pixels at 320x240
SMALLEST, LARGEST = 20.0, 76.0  # target size sqrt(w * h) seen from abeam, in pixels at 320x240
LARGEST_STEP = 0.6  # of the target's box between two frames, in target sizes
PACE = (0.05, 0.14)  # of the target over the picture, in target sizes a frame, shake apart
LOOK_AHEAD = 16  # frames in which a target makes for the edge, or turns, ahead of a span that needs it


@dataclass(frozen=True)
class Actor:
    """A vessel or buoy over n frames: where its origin at the waterline is seen, and how."""

    mesh: Mesh
    anchor: np.ndarray  # [n, 2]
    scale: np.ndarray  # [n] pixels a vessel length
    views: list[View]
    active: np.ndarray  # [n] bool
    wake: float  # length of its wake in vessel lengths, 0: lies still


@dataclass(frozen=True)
class Camera:
    """Where the camera looks."""

    pan: np.ndarray  # [n] pixels moved to the right
    horizon: np.ndarray  # [n] its row
    zoom: np.ndarray  # [n] factor
    depth: float  # pixels between the horizon and a thing at the target's usual distance


@dataclass(frozen=True)
class Motion:
    """Everything that moves."""

    kind: str  # of the target
    target: Actor
    boxes: np.ndarray  # [n, 4] xyxy of the whole target, not clipped to the picture
    sizes: np.ndarray  # [n] side sqrt(w * h) of the target as seen from abeam
    others: list[Actor]
    camera: Camera


def plan_motion(rng: np.random.Generator, spans: list[Span], frames: int, size: tuple[int, int]) -> Motion:
    """Draws a target, its path, its companions and the camera for a picture of `size` (w, h)."""
    unit = min(size[0] / 320, size[1] / 240)
    kind = KINDS[rng.integers(len(KINDS))]
    mesh = make_vessel(rng, kind)
    sizes = unit * _plan_sizes(rng, spans, frames)
    headings = _plan_headings(rng, spans, frames, np.diff(np.log(sizes), append=np.log(sizes[-1])))
    zoom = np.exp(rng.uniform(0.0, 0.12) * np.sin(np.arange(frames) / rng.uniform(8, 25) + rng.uniform(0, 6)))
    nearness = np.exp(rng.uniform(np.log(0.25), np.log(1.1)))  # target size over its depth below the horizon
    depths = sizes / nearness
    tilts = np.clip(depths / (FOCAL * unit), 0.05, 0.45)
    rolls = rng.uniform(0, 0.07) * np.sin(np.arange(frames) * rng.uniform(0.15, 0.4) + rng.uniform(0, 6))
    views = [View(*item) for item in zip(headings, tilts, rolls, strict=True)]

    outlines = np.array([extent(mesh, view) for view in views])
    abeam = _side(extent(mesh, View(0.0, float(tilts.mean()))))
    seen = np.array([_side(outline) for outline in outlines])
    scales = sizes / np.sqrt(seen * abeam)  # halfway between constant length and constant area: no tiny bows
    outlines = outlines * scales[:, None]
    extents = outlines[:, 2:] - outlines[:, :2]
    centres = _plan_path(rng, spans, extents, sizes, size)
    anchors = centres - (outlines[:, :2] + outlines[:, 2:]) / 2
    boxes = np.concatenate((centres - extents / 2, centres + extents / 2), 1)

    target = Actor(mesh, anchors, scales, views, np.ones(frames, bool), rng.uniform(0.0, 1.6))
    own_way = np.cumsum(np.cos(headings) * target.wake * 0.02 * sizes)
    horizon = anchors[:, 1] - depths
    camera = Camera(own_way - anchors[:, 0], horizon, zoom, float(np.median(depths)))
    companions = rng.choice(5, p=(0.1, 0.25, 0.3, 0.2, 0.15))
    others = [_companion(rng, target, sizes, camera, unit) for _ in range(companions)]
    for span in spans:
        if span.challenge == CLUTTER:
            others += _clutter(rng, span, target, extents, sizes, camera)
    return Motion(kind, target, boxes, sizes, others, camera)


def _side(box):
    return np.sqrt((box[2] - box[0]) * (box[3] - box[1]))


def _inside(spans, challenge, frame):
    return any(span.challenge == challenge and span.start <= frame < span.stop for span in spans)


def _next_start(spans, challenge, frame):
    """Frames until the next span of a challenge starts; infinite where none does."""
    starts = (span.start for span in spans if span.challenge == challenge and span.start > frame)
    return min(starts, default=np.inf) - frame


def _plan_sizes(rng, spans, frames):
    """[n] target sizes at 320x240: a slow drift, in scale spans 2.5 to 5.5 % a frame up or down."""
    low, high = np.log(SMALLEST), np.log(LARGEST)
    rates = {}
    logs = [rng.uniform(np.log(24.0), np.log(62.0))]
    drift = 0.0
    for t in range(1, frames):
        drift = 0.8 * drift + 0.2 * rng.normal(0, 0.008) + 0.002 * (np.log(40.0) - logs[-1])
        span = next((s for s in spans if s.challenge == SCALE and s.start <= t < s.stop), None)
        if span is None:
            rate = np.clip(drift, -0.009, 0.009)
        else:
            if span not in rates:
                up = rng.random() < (high - logs[-1]) / (high - low)
                room = (high - logs[-1] if up else logs[-1] - low) / (span.stop - span.start)
                rates[span] = (1 if up else -1) * np.clip(rng.uniform(0.03, 0.055), 0.025, max(room, 0.025))
            rate = rates[span]
        logs.append(logs[-1] + rate)
    return np.exp(logs)


def _plan_headings(rng, spans, frames, growth):
    """[n] headings: near abeam, turning fast in appearance spans, end on where the size changes fast."""
    heading = rng.uniform(-0.9, 0.9) + np.pi * rng.integers(2)
    drift, turns, headings = 0.0, {}, []
    end_on_offset = rng.uniform(-0.3, 0.3)
    for t in range(frames):
        headings.append(heading)
        drift = 0.85 * drift + rng.normal(0, 0.008)
        ahead = _next_start(spans, SCALE, t)
        turning = next((s for s in spans if s.challenge == APPEARANCE and s.start <= t < s.stop), None)
        if turning is not None:
            if turning not in turns:
                turns[turning] = rng.uniform(0.14, 0.26) * rng.choice((-1, 1))
            heading += turns[turning]
        elif _inside(spans, SCALE, t) or ahead <= LOOK_AHEAD:
            grows = growth[t if _inside(spans, SCALE, t) else min(t + int(ahead), frames - 1)] > 0
            goal = (-np.pi / 2 if grows else np.pi / 2) + end_on_offset
            pace = 0.3 if ahead > LOOK_AHEAD else min(0.09, abs(_turn(heading, goal)) / ahead)
            heading += np.clip(_turn(heading, goal), -pace, pace)
        else:
            goal = 0.0 if np.cos(heading) > 0 else np.pi
            off = _turn(heading, goal)
            heading += np.clip(off, -0.05, 0.05) if abs(off) > 1.0 else drift
    return np.array(headings)


def _turn(start, goal):
    return (goal - start + np.pi) % (2 * np.pi) - np.pi


def _plan_path(rng, spans, extents, sizes, size):
    """[n, 2] box centres: from goal to goal with shake, leaving the picture in PARTIAL spans only."""
    low, high = extents / 2 + 2, np.array(size) - extents / 2 - 2
    pace, shaking = rng.uniform(*PACE), rng.uniform(0.005, 0.035)
    point = home = rng.uniform(low[0], high[0])
    velocity, shake, goal, edge = np.zeros(2), np.zeros(2), None, None
    centres = [point]
    for t in range(1, len(sizes)):
        ahead, partial = _next_start(spans, PARTIAL, t), _inside(spans, PARTIAL, t)
        if not partial and ahead > LOOK_AHEAD:
            edge = None
        elif edge is None:
            edge = _choose_edge(rng, point, low[t], high[t], sizes[t])
        if edge is not None:
            axis, sign, cut = edge
            goal = np.clip(point, low[t], high[t])
            goal[axis] = high[t, axis] if sign > 0 else low[t, axis]
            if partial:
                goal[axis] += sign * cut * extents[t, axis]
            distance = np.linalg.norm(goal - point)
            limit = 0.3 if partial else np.clip(distance / ahead / sizes[t], 0.03, 0.28)
            velocity = (goal - point) / max(distance, 1e-6) * min(limit * sizes[t], distance)
        else:
            if goal is None or np.linalg.norm(goal - point) < 2 * pace * sizes[t] or rng.random() < 0.04:
                goal, pace = _choose_goal(rng, home, low[t], high[t], sizes[t]), rng.uniform(*PACE)
            direction = (goal - point) / max(np.linalg.norm(goal - point), 1e-6)
            velocity = velocity + 0.4 * (direction * pace * sizes[t] - velocity)
        amount = 0.1 if _inside(spans, BLUR, t) else shaking
        shake = 0.5 * shake + rng.normal(0, amount, 2) * sizes[t]
        point = point + velocity
        if not partial:
            limit = 0.3 * sizes[t]
            point = point + np.clip(np.clip(point, low[t], high[t]) - point, -limit, limit)
        inside = np.all((point >= low[t] - 0.01) & (point <= high[t] + 0.01))
        place = np.clip(point + shake, low[t], high[t]) if inside else point + 0.3 * shake
        step = place - centres[-1]
        longest = LARGEST_STEP * sizes[t]
        centres.append(centres[-1] + step * min(1.0, longest / max(np.linalg.norm(step), 1e-6)))
    return np.array(centres)


def _choose_edge(rng, point, low, high, size):
    """(axis, sign, share of the box beyond the edge), near edges more often."""
    edges = [(axis, sign) for axis in (0, 1) for sign in (-1, 1)]
    distances = [(high[axis] - point[axis] if sign > 0 else point[axis] - low[axis]) / size for axis, sign in edges]
    weights = np.exp(-np.maximum(distances, 0)) * (1.0, 1.0, 0.5, 0.8) + 1e-6
    axis, sign = edges[rng.choice(4, p=weights / weights.sum())]
    return axis, sign, rng.uniform(0.35, 0.6)


def _choose_goal(rng, home, low, high, size):
    """A place inside the picture, within 1.5 target sizes of where the target started."""
    for _ in range(8):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 1.5) * size
        goal = home + distance * np.array((np.cos(angle), np.sin(angle)))
        if np.all((goal >= low) & (goal <= high)):
            return goal
    return rng.uniform(low, high)


def _companion(rng, target, sizes, camera, unit):
    """Another vessel that stays near the target and often looks like it."""
    frames, steps = len(sizes), np.arange(len(sizes))
    alike = rng.random() < 0.5
    mesh = similar(target.mesh, rng) if alike else make_vessel(rng, KINDS[rng.integers(len(KINDS))])
    usual = float(np.median(sizes))
    nearness = usual / camera.depth
    before = rng.random() < 0.2
    share = rng.uniform(1.15, 1.5) if before else rng.uniform(0.55, 0.95)
    depth = max(share * camera.depth, 4 * unit)
    length = depth * nearness * (rng.uniform(0.8, 1.2) if alike else rng.uniform(0.5, 1.4))
    length *= 0.5 if before else 1.0  # may hide a part of the target, seldom all of it
    across = usual * rng.uniform(0.8, 3.5) * np.sin(steps / rng.uniform(7, 20) + rng.uniform(0, 6))
    across += usual * rng.uniform(-2.0, 2.0)
    if abs(across[0]) < 1.8 * usual:
        across += (1.8 * usual - abs(across[0])) * (1 if across[0] >= 0 else -1)
    anchor = np.stack((target.anchor[:, 0] + across, camera.horizon + depth * camera.zoom), 1)
    if alike:
        headings = np.array([view.heading for view in target.views]) + rng.normal(0, 0.25)
    else:
        headings = rng.uniform(0, 2 * np.pi) + steps * rng.normal(0, 0.02)
    tilt = float(np.clip(depth / (FOCAL * unit), 0.05, 0.45))
    views = [View(heading, tilt) for heading in headings]
    scale = length / _side(extent(mesh, View(0.0, tilt))) * camera.zoom
    return Actor(mesh, anchor, scale, views, np.ones(frames, bool), rng.uniform(0.0, 1.5))


def _clutter(rng, span, target, extents, sizes, camera):
    """Small craft and buoys close around the target, behind it and before it, hiding little of it."""
    frames, actors = len(sizes), []
    active = np.zeros(frames, bool)
    active[span.start : span.stop] = True
    middle = (span.start + span.stop) // 2
    half = 0.5 * extents[middle, 0] / sizes[middle]
    for _ in range(rng.integers(13, 19)):
        buoy = rng.random() < 0.4
        mesh = make_buoy(rng) if buoy else make_vessel(rng, KINDS[rng.integers(len(KINDS))])
        big = rng.uniform(0.2, 0.4) if buoy else rng.uniform(0.35, 0.65)
        across, below = rng.uniform(-2.2, 2.2), rng.uniform(-1.3, 1.3)
        if 0 < below < 2.0 * big and abs(across) < half + 0.6 * big:
            across += (half + 0.6 * big) * (1 if across > 0 else -1)
        sway = rng.uniform(0.0, 0.15) * np.sin(np.arange(frames) * rng.uniform(0.1, 0.5) + rng.uniform(0, 6))
        anchor = target.anchor + sizes[:, None] * np.stack((across + sway, np.full(frames, below)), 1)
        anchor[:, 1] = np.maximum(anchor[:, 1], camera.horizon + 0.1 * big * sizes)
        heading, tilt = rng.uniform(0, 2 * np.pi), target.views[middle].tilt
        scale = big * sizes / _side(extent(mesh, View(0.0, tilt)))
        actors.append(Actor(mesh, anchor, scale, [View(heading, tilt)] * frames, active, 0.0))
    return actors
