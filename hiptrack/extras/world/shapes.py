"""Outlines of things: bodies of several materials with holes, and limbs that swing.

Points are [n, 2] (right, down) and lie about within [-1, 1]; their shape is square before an object is stretched.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np

HOLE = -1


@dataclass(frozen=True)
class Piece:
    """A filled outline [n, 2] of a material (a number from 0), or a HOLE in what was drawn before it."""

    points: np.ndarray
    material: int = 0


@dataclass(frozen=True)
class Limb:
    """Pieces around the joint as origin, which sits at `joint` [2] of the body; drawn behind it or before it."""

    pieces: tuple[Piece, ...]
    joint: tuple[float, float]
    behind: bool = True


@dataclass(frozen=True)
class Shape:
    """A body and its limbs."""

    pieces: tuple[Piece, ...]
    limbs: tuple[Limb, ...] = field(default=())


def make_shape(rng: np.random.Generator, family: str) -> Shape:
    """A shape of a family, a key of FAMILIES."""
    return FAMILIES[family](rng)


def ellipse(cx, cy, rx, ry, angle=0.0, n=20):
    """[n, 2] points of an ellipse."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x, y = rx * np.cos(t), ry * np.sin(t)
    return np.column_stack((cx + x * np.cos(angle) - y * np.sin(angle), cy + x * np.sin(angle) + y * np.cos(angle)))


def box(left, top, right, bottom):
    """[4, 2] corners."""
    return np.array(((left, top), (right, top), (right, bottom), (left, bottom)), float)


def stick(start, end, width, tip=None):
    """[4, 2]: a bar from start to end, `width` thick there and `tip` here."""
    start, end = np.array(start, float), np.array(end, float)
    along = (end - start) / (np.hypot(*(end - start)) + 1e-6)
    side = np.array((-along[1], along[0])) / 2
    tip = width if tip is None else tip
    return np.array((start + side * width, end + side * tip, end - side * tip, start - side * width))


def outline(rng, waves=6, slope=1.3, strength=0.45, n=40):
    """[n, 2]: a closed curve whose radius is a random Fourier series, of largest coordinate 1."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    k = np.arange(2, waves + 2)
    amplitude = strength * rng.standard_normal(waves) / k**slope * 2
    radius = np.exp((amplitude[:, None] * np.cos(k[:, None] * t + rng.uniform(0, 6.28, waves)[:, None])).sum(0))
    points = radius[:, None] * np.column_stack((np.cos(t), np.sin(t)))
    return points / np.abs(points).max()


def _blob(rng):
    return Shape((Piece(outline(rng, slope=rng.uniform(0.9, 1.8), strength=rng.uniform(0.2, 0.8))),))


def _lobes(rng):
    """A few overlapping blobs of different materials: fruit, luggage, toys."""
    pieces = []
    for number in range(int(rng.integers(2, 5))):
        centre, size = rng.uniform(-0.4, 0.4, 2), rng.uniform(0.4, 0.6)
        pieces.append(Piece(centre + size * outline(rng, strength=0.25), number % 3))
    return Shape(tuple(pieces))


def _box(rng):
    """A box seen from a corner: two or three sides of different shade."""
    lid, side = rng.uniform(0, 0.5), rng.uniform(0, 0.5)
    pieces = [Piece(box(-1, -1 + 2 * lid, 1 - 2 * side, 1))]
    slant = 2 * side
    pieces.append(Piece(np.array(((1 - slant, -1 + 2 * lid), (1, -1), (1, 1 - 2 * lid), (1 - slant, 1))), 1))
    pieces.append(Piece(np.array(((-1, -1 + 2 * lid), (-1 + slant, -1), (1, -1), (1 - slant, -1 + 2 * lid))), 2))
    return Shape(tuple(pieces))


def _polygon(rng):
    n = int(rng.integers(3, 9))
    t = np.sort(rng.uniform(0, 2 * np.pi, n))
    t = t * 0.5 + np.linspace(0, 2 * np.pi, n, endpoint=False) * 0.5
    points = np.column_stack((np.cos(t), np.sin(t))) * rng.uniform(0.55, 1.0, (n, 1))
    return Shape((Piece(points / np.abs(points).max()),))


def _vehicle(rng):
    """Seen from the side: body, cabin with windows, wheels."""
    top, roof, belly = rng.uniform(-0.2, 0.2), rng.uniform(-0.95, -0.3), rng.uniform(0.45, 0.7)
    front, rear = rng.uniform(-0.9, -0.2), rng.uniform(0.1, 0.95)
    rake = rng.uniform(0.02, 0.3)
    cabin = np.array(((front, top), (front + rake, roof), (rear - rake * rng.random(), roof), (rear, top)))
    hood = rng.uniform(0, 0.15)
    body = np.array(((-1, top + hood), (-0.9, top), (0.92, top), (1, top + hood), (0.97, belly), (-0.97, belly)))
    pieces = [Piece(cabin, int(rng.integers(2))), Piece(body)]
    windows = int(rng.integers(1, 5))
    edges = np.linspace(front + rake, rear - rake, windows + 1)
    for left, right in itertools.pairwise(edges):
        if right - left > 0.08:
            pieces.append(Piece(box(left + 0.03, roof + 0.1, right - 0.03, top - 0.02), 2))
    if rng.random() < 0.85:
        radius = rng.uniform(0.16, 0.3)
        for x in rng.uniform((-0.75, 0.35), (-0.4, 0.75)):
            pieces += [Piece(ellipse(x, belly, radius, radius), 3), Piece(ellipse(x, belly, radius / 2, radius / 2), 1)]
    if rng.random() < 0.5:
        pieces.append(Piece(box(-0.95, (top + belly) / 2 - 0.05, 0.95, (top + belly) / 2 + 0.05), 1))
    return Shape(tuple(pieces))


def _above(rng):
    """A vehicle or vessel from above: hull, roof, panes."""
    nose, w = rng.uniform(0.0, 0.5), rng.uniform(0.3, 0.5)
    hull = np.array(((-1, -w), (1 - nose, -w), (1, -w * 0.4), (1, w * 0.4), (1 - nose, w), (-1, w), (-1.0, 0)))
    left, right = rng.uniform(-0.8, -0.3), rng.uniform(0.1, 0.6)
    pieces = [Piece(hull), Piece(box(left, -w * 0.8, right, w * 0.8), 1)]
    pieces += [
        Piece(box(right, -w * 0.75, right + 0.15, w * 0.75), 2),
        Piece(box(left - 0.1, -w * 0.7, left, w * 0.7), 2),
    ]
    return Shape(tuple(pieces))


def _walker(rng):
    """A person or an upright animal: trunk of two materials, head, arms and legs."""
    hip, shoulder, w = rng.uniform(0.0, 0.2), rng.uniform(-0.6, -0.45), rng.uniform(0.16, 0.32)
    head = rng.uniform(0.13, 0.2)
    trunk = np.array(
        ((-w, shoulder), (w, shoulder), (w * rng.uniform(0.6, 1.1), hip), (-w * rng.uniform(0.6, 1.1), hip))
    )
    face = (0.0, shoulder - head * 1.05)
    pieces = [
        Piece(trunk),
        Piece(ellipse(*face, head * 0.85, head), 2),
        Piece(ellipse(0, face[1] - head * 0.4, head * 0.88, head * 0.65), 3),
    ]
    leg, arm, thick = 0.95 - hip, rng.uniform(0.45, 0.65), rng.uniform(0.13, 0.24)
    foot = Piece(stick((0, leg), (0.12, leg), 0.1), 3)
    limbs = [Limb((Piece(stick((0, 0), (0, leg), thick, thick * 0.6), 1), foot), (x, hip)) for x in (-w / 2, w / 2)]
    for x, behind in ((-w, True), (w, False)):
        hand = Piece(ellipse(0, arm, thick / 3, thick / 3, n=8), 2)
        limbs.append(
            Limb((Piece(stick((0, 0), (0, arm), thick * 0.75, thick * 0.45), 0), hand), (x, shoulder + 0.05), behind)
        )
    if rng.random() < 0.4:
        bag = outline(rng, strength=0.15, n=16) * rng.uniform(0.15, 0.3) + (
            w * rng.choice((-1, 1)),
            rng.uniform(shoulder, hip),
        )
        pieces.append(Piece(bag, 3))
    return Shape(tuple(pieces), tuple(limbs))


def _beast(rng):
    """A four-legged animal from the side: trunk, head, tail, four legs."""
    trunk = outline(rng, strength=0.15, n=24) * (0.62, rng.uniform(0.22, 0.36)) + (0, -0.1)
    head = outline(rng, strength=0.25, n=16) * (rng.uniform(0.16, 0.26), rng.uniform(0.13, 0.22))
    pieces = [Piece(trunk), Piece(ellipse(0.1, 0.05, 0.45, 0.1), 1)]
    thick, leg = rng.uniform(0.1, 0.18), rng.uniform(0.5, 0.85)
    limbs = [
        Limb(
            (Piece(stick((0, 0), (0, leg), thick, thick * 0.6), 0), Piece(ellipse(0, leg, thick / 2, 0.06, n=8), 2)),
            (x, 0.1),
            number < 2,
        )
        for number, x in enumerate((-0.45, 0.42, -0.35, 0.5))
    ]
    neck = rng.uniform(0.0, 0.4)
    limbs.append(
        Limb((Piece(stick((0, 0), (0.22, -neck), 0.22, 0.16)), Piece(head + (0.28, -neck), 1)), (0.5, -0.2), False)
    )
    limbs.append(Limb((Piece(stick((0, 0), (-rng.uniform(0.2, 0.5), 0.15), 0.08, 0.03), 1),), (-0.55, -0.15)))
    return Shape(tuple(pieces), tuple(limbs))


def _winged(rng):
    """Birds, planes, fish: a long body, wings that beat, a tail."""
    body = ellipse(0, 0, 0.95, rng.uniform(0.1, 0.25))
    sweep, span, root = rng.uniform(-0.7, 0.3), rng.uniform(0.5, 0.95), rng.uniform(0.2, 0.5)
    wing = np.array(((0, 0), (sweep, -span), (sweep + root * 0.4, -span), (root, 0)))
    tail = np.array(((-0.65, 0), (-1, -0.35), (-0.95, 0), (-1, 0.35)))
    limbs = (Limb((Piece(wing, 1),), (-0.1, 0.0)), Limb((Piece(wing * (1, -1), 1),), (-0.1, 0.0), False))
    return Shape((Piece(tail, 1), Piece(body), Piece(ellipse(0.7, -0.03, 0.1, 0.08, n=10), 2)), limbs)


def _frame(rng):
    """Things with holes: rings, frames, handles."""
    if rng.random() < 0.5:
        outer, inner = ellipse(0, 0, 1, rng.uniform(0.6, 1), n=28), rng.uniform(0.45, 0.8)
        pieces = [Piece(outer), Piece(outer * inner + rng.uniform(-0.1, 0.1, 2), HOLE)]
    else:
        pieces = [Piece(box(-1, -1, 1, 1))]
        columns, rows, bar = int(rng.integers(1, 4)), int(rng.integers(1, 4)), rng.uniform(0.06, 0.14)
        xs, ys = np.linspace(-1, 1, columns + 1), np.linspace(-1, 1, rows + 1)
        for x1, x2 in itertools.pairwise(xs):
            pieces += [Piece(box(x1 + bar, y1 + bar, x2 - bar, y2 - bar), HOLE) for y1, y2 in itertools.pairwise(ys)]
    if rng.random() < 0.4:
        pieces.append(Piece(outline(rng, strength=0.2, n=16) * 0.3 + rng.uniform(-0.3, 0.3, 2), 1))
    return Shape(tuple(pieces))


def _thin(rng):
    """Bicycles, tripods, branches: bars and wheels with air between."""
    joints = rng.uniform(-0.85, 0.85, (int(rng.integers(4, 7)), 2))
    width = rng.uniform(0.08, 0.16)
    pieces = [
        Piece(stick(a, b, width, width * rng.uniform(0.6, 1)), int(rng.integers(2)))
        for a, b in itertools.pairwise(joints)
    ]
    for centre in joints[: int(rng.integers(0, 3))]:
        radius = rng.uniform(0.2, 0.4)
        centre = np.clip(centre, radius - 1, 1 - radius)
        pieces += [
            Piece(ellipse(*centre, radius, radius), 2),
            Piece(ellipse(*centre, radius * 0.7, radius * 0.7), HOLE),
        ]
    return Shape(tuple(pieces))


def _tower(rng):
    """Buildings, machines, superstructures: boxes on boxes."""
    pieces, bottom = [], 1.0
    levels = int(rng.integers(2, 6))
    for number in range(levels):
        top = bottom - 2.0 / levels
        left, right = (
            np.sort(rng.uniform(-1, 1, 2)) * (1.0 if number else 0.2)
            + (0, 0)
            + ((-0.8, 0.8) if number == 0 else (-0.1, 0.1))
        )
        pieces.append(Piece(box(max(left, -1), top, min(right, 1), bottom + 0.02), int(rng.integers(3))))
        bottom = top
    return Shape(tuple(pieces))


def _formula(rng):
    """Gielis's superformula (American Journal of Botany 2003): flowers, shells, stars."""
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    m, n1, n2 = rng.integers(2, 9), rng.uniform(0.5, 3), rng.uniform(0.5, 4)
    radius = (np.abs(np.cos(m * t / 4)) ** n2 + np.abs(np.sin(m * t / 4)) ** n2) ** (-1 / n1)
    points = radius[:, None] * np.column_stack((np.cos(t), np.sin(t)))
    points = points / np.abs(points).max()
    return Shape((Piece(points), Piece(points * rng.uniform(0.3, 0.7), 1)))


def _glyph(rng):
    """Strokes on a grid, as of letters, on a plate or without one."""
    pieces = [Piece(outline(rng, strength=0.1), 1)] if rng.random() < 0.5 else []
    nodes = rng.integers(-1, 2, (int(rng.integers(4, 8)), 2)) * 0.7
    width = rng.uniform(0.2, 0.4)
    pieces += [Piece(stick(a, b + (0.01, 0.0), width)) for a, b in itertools.pairwise(nodes)]
    return Shape(tuple(pieces))


def _chain(rng):
    """Links that follow each other: caterpillars, trains, snakes."""
    half = 1 / int(rng.integers(2, 5))
    centres = np.arange(-1 + half, 1, 2 * half)
    bend = rng.uniform(-0.4, 0.4)
    links = [
        outline(rng, strength=0.2, n=20) * (half * 1.4, rng.uniform(0.25, 0.5)) + (x, bend * np.cos(3 * x))
        for x in centres
    ]
    limbs = [
        Limb((Piece(link - (x, 0), number % 3),), (x, 0.0))
        for number, (x, link) in enumerate(zip(centres[1:], links[1:]))
    ]
    return Shape((Piece(links[0]),), tuple(limbs))


TRAINING = (
    "blob",
    "lobes",
    "box",
    "polygon",
    "vehicle",
    "above",
    "walker",
    "beast",
    "winged",
    "frame",
    "thin",
    "tower",
)
HELD_OUT = ("formula", "glyph", "chain")  # for validation: never seen in training by default
FAMILIES = {
    "blob": _blob, "lobes": _lobes, "box": _box, "polygon": _polygon, "vehicle": _vehicle, "above": _above, "walker": _walker,
    "beast": _beast, "winged": _winged, "frame": _frame, "thin": _thin, "tower": _tower, "formula": _formula, "glyph": _glyph,
    "chain": _chain,
}  # fmt: skip
