"""What happens in a synthetic sequence: which challenges when, and how strong."""

from dataclasses import dataclass

import numpy as np

from hiptrack.data.labels import CLASSES
from hiptrack.data.synthetic_vessels import Mesh, make_buoy

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
