"""Vessels, buoys and piers: solids of few polygons, which turn, and how they look from a view.

A mesh lives in vessel coordinates: x forward, y to port, z up, the origin at the waterline amidships, a length of about
1. Colours are RGB, 0..255.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from hiptrack.extras.world.textures import natural_colour, near_colour

LIGHT = (-0.45, -0.6, 0.66)  # direction to the light: right, away from the camera, up
GLASS = np.array((35.0, 45.0, 55.0))
DECKS = ((120, 80, 70), (180, 140, 90), (150, 150, 145), (90, 100, 95))
KEELS = ((150, 30, 30), (20, 60, 120), (30, 30, 30), (20, 100, 60))
HULLS = ((235, 235, 235), (20, 40, 90), (190, 30, 30), (35, 35, 35), (30, 110, 50), (230, 110, 20), (120, 120, 120))
HOUSES = ((240, 240, 240), (235, 225, 205), (165, 170, 170), (150, 190, 215), (225, 130, 60))
SAILS = ((245, 245, 245), (240, 225, 200), (200, 40, 40), (30, 110, 190), (60, 60, 60))
SIGNALS = ((220, 40, 40), (240, 220, 60), (240, 240, 240), (20, 60, 200), (40, 160, 40))
NATURAL = 0.35  # share of paints of any colour
_SUB = 4  # bits below the pixel in OpenCV's corners


@dataclass(frozen=True)
class Mesh:
    """F faces of four corners (a triangle repeats its last) over V vertices.

    vertices [V, 3]; faces [F, 4]; normals [F, 3], outward, zero where both sides are seen; colours [F, 3]; layers [F];
    centres [F, 3] of the face's part. Faces are drawn by layer, inside a layer from the farthest part to the nearest; a
    part is convex.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    colours: np.ndarray
    layers: np.ndarray
    centres: np.ndarray


@dataclass
class _Builder:
    """Collects parts. pick: a paint near one of some colours."""

    pick: Callable
    vertices: list = field(default_factory=list)
    rows: list = field(default_factory=list)  # (indices, normal, colour, layer, centre)

    def part(self, points, faces, colours, layer, thin=False):
        """Adds a convex solid, or with `thin` a surface seen from both sides."""
        points = np.asarray(points, float)
        start, centre = len(self.vertices), points.mean(0)
        self.vertices.extend(points)
        for face, colour in zip(faces, colours, strict=True):
            corners = points[list(face)]
            normal = np.cross(corners[1] - corners[0], corners[-1] - corners[0])
            normal /= np.linalg.norm(normal) + 1e-9
            outward = -1.0 if normal @ (corners.mean(0) - centre) < 0 else 1.0
            face = (*face, *(face[-1],) * (4 - len(face)))
            self.rows.append((np.add(face, start), normal * (0.0 if thin else outward), colour, layer, centre))

    def block(self, x, y, z, colour, layer, taper=1.0, roof=True):
        """Adds a box between pairs of coordinates, its top shrunk to `taper`; its bottom is never seen."""
        middle = sum(x) / 2, sum(y) / 2
        points = [
            (middle[0] + (x[i] - middle[0]) * share, middle[1] + (y[j] - middle[1]) * share, height)
            for height, share in ((z[0], 1.0), (z[1], taper))
            for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))
        ]
        faces = ((0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7), (4, 5, 6, 7))
        self.part(points, faces[: 4 + roof], [colour] * (4 + roof), layer)

    def house(self, x, y, z, colour, layer, taper=0.9):
        """Adds a block with a band of windows."""
        self.block(x, y, z, colour, layer, taper)
        low, high = z[0] + 0.5 * (z[1] - z[0]), z[0] + 0.8 * (z[1] - z[0])
        inset = 0.25 * (1 - taper) - 0.01
        band = [(a + inset * (b - a), b - inset * (b - a)) for a, b in (x, y)]
        self.block(*band, (low, high), GLASS, layer + 0.5, 1 - 0.3 * (1 - taper), roof=False)

    def mast(self, x, y, z, colour, layer, thickness=0.012):
        half = thickness / 2
        self.block((x - half, x + half), (y - half, y + half), z, colour, layer)

    def hull(self, beam, freeboard, colour, keel, deck, offset=0.0):
        """Adds a hull of half-breadth `beam`, pointed at the bow, its lower third in `keel`'s colour."""
        xs = np.array((-0.5, -0.25, 0.1, 0.34, 0.5))
        top = beam * np.array((0.85, 1.0, 1.0, 0.66, 0.02))
        bottom = beam * np.array((0.75, 0.9, 0.85, 0.45, 0.0))
        height = freeboard * np.array((1.035, 1.0, 1.035, 1.19, 1.35))
        rake = np.array((0.0, 0.0, 0.0, -0.02, -0.07))
        points = np.concatenate([
            np.stack((xs + rake * (1 - share), offset + side * (bottom + (top - bottom) * share), height * level), 1)
            for level, share in ((0.0, 0.0), (0.35, 0.45), (1.0, 1.0))
            for side in (1, -1)
        ])  # fmt: skip
        # six lines of five points: port and starboard on three levels
        for level, paint in ((0, keel), (10, colour)):
            sides = [
                (line + i, line + i + 1, line + i + 11, line + i + 10) for line in (level, level + 5) for i in range(4)
            ]
            self.part(points, [*sides, (level, level + 5, level + 15, level + 10)], [paint] * 9, 0)
        self.part(points, [(20 + i, 21 + i, 26 + i, 25 + i) for i in range(4)], [deck] * 4, 0)

    def build(self):
        faces, normals, colours, layers, centres = (np.array(column) for column in zip(*self.rows, strict=True))
        return Mesh(np.array(self.vertices), faces, normals, colours, layers, centres)


def _builder(rng, base):
    def pick(colours):
        if base is not None:
            return near_colour(rng, base, 16)
        if rng.random() < NATURAL:
            return natural_colour(rng)
        return np.clip(colours[rng.integers(len(colours))] + rng.normal(0, 8, 3), 5, 250)

    return _Builder(pick)


def make_vessel(rng: np.random.Generator, base: np.ndarray | None = None) -> Mesh:
    """A boat, ship, sailing boat or uncrewed craft, of drawn proportions and colours; base [3]: all are near to it."""
    builder = _builder(rng, base)
    kind = (_boat, _ship, _sailboat, _craft)[rng.integers(4)]
    kind(builder, rng, builder.pick(HULLS), builder.pick(HOUSES), builder.pick(KEELS))
    return builder.build()


def _boat(builder, rng, hull, house, keel):
    beam, board = rng.uniform(0.14, 0.2), rng.uniform(0.08, 0.14)
    builder.hull(beam, board, hull, keel, builder.pick(DECKS))
    start = rng.uniform(-0.25, 0.0)
    end, top = start + rng.uniform(0.2, 0.36), board + rng.uniform(0.12, 0.24)
    builder.house((start, end), (-0.75 * beam, 0.75 * beam), (board, top), house, 1, rng.uniform(0.75, 1.0))
    if rng.random() < 0.5:  # its engine
        builder.block((-0.56, -0.48), (-0.05, 0.05), (0.02, board + 0.09), GLASS, 1)
    if rng.random() < 0.5:
        roof = (start - 0.12, end + 0.03)
        builder.block(roof, (-0.8 * beam, 0.8 * beam), (top, top + 0.03), builder.pick(HULLS), 3)
    if rng.random() < 0.6:
        builder.mast(start, 0.0, (top, top + rng.uniform(0.1, 0.3)), GLASS + 60, 4)


def _ship(builder, rng, hull, house, keel):
    beam, board = rng.uniform(0.08, 0.11), rng.uniform(0.07, 0.11)
    builder.hull(beam, board, hull, keel, builder.pick(DECKS))
    aft = rng.uniform(-0.46, -0.4) if rng.random() < 0.7 else rng.uniform(-0.1, 0.1)
    fore, top, wide = aft + rng.uniform(0.1, 0.2), board + rng.uniform(0.12, 0.2), (-0.85 * beam, 0.85 * beam)
    builder.house((aft, fore), wide, (board, top), house, 1, 0.95)
    builder.house((aft + 0.02, fore - 0.01), (-0.6 * beam, 0.6 * beam), (top, top + 0.06), house, 3)
    funnel = (aft + 0.01, aft + 0.06)
    builder.block(funnel, (-0.03, 0.03), (top, top + rng.uniform(0.09, 0.15)), builder.pick(KEELS), 5, 0.8)
    start, stop = (fore + 0.04, 0.36) if aft < -0.3 else (-0.44, aft - 0.02)
    cargo, width = rng.random(), rng.uniform(0.09, 0.14)
    for x in np.arange(start, stop - width, width):
        if cargo < 0.6:
            height = board + 0.045 * rng.integers(1, 4)
            builder.block((x, x + width * 0.93), wide, (board, height), builder.pick(HULLS), 1)
        elif rng.random() < 0.6:
            builder.mast(x, 0.0, (board, board + rng.uniform(0.14, 0.22)), house, 1, 0.02)


def _sailboat(builder, rng, hull, house, keel):
    beam, board = rng.uniform(0.12, 0.16), rng.uniform(0.06, 0.1)
    builder.hull(beam, board, hull, keel, builder.pick(DECKS))
    builder.house((-0.15, 0.15), (-0.6 * beam, 0.6 * beam), (board, board + 0.06), house, 1)
    foot, peak, x = board + 0.1, rng.uniform(0.85, 1.3), rng.uniform(0.02, 0.12)
    builder.mast(x, 0.0, (board, peak), GLASS + 130, 2, 0.018)
    main, swing, share = builder.pick(SAILS), rng.uniform(-0.12, 0.12), 0.52
    upper = main if rng.random() < 0.6 else builder.pick(SAILS)
    low, cut = (x - 0.02, 0.0), foot + 0.45 * (peak - foot)
    inner = (x - 0.02 - 0.45 * share, swing * share)
    points = [(*low, foot), (x - 0.47, swing, foot), (*inner, cut), (*low, cut), (*low, 0.98 * peak)]
    builder.part(points, ((0, 1, 2, 3), (3, 2, 4)), (main, upper), 3, thin=True)
    if rng.random() < 0.75:
        jib = [(x + 0.02, 0.0, 0.88 * peak), (0.47, 0.0, board + 0.06), (x + 0.03, 0.6 * swing, foot)]
        builder.part(jib, ((0, 1, 2),), (builder.pick(SAILS),), 3, thin=True)


def _craft(builder, rng, hull, house, keel):
    """Uncrewed, of one hull or two, with instruments on its mast."""
    hull, board = builder.pick(SIGNALS), rng.uniform(0.08, 0.12)
    if rng.random() < 0.5:
        for offset in (-0.15, 0.15):
            builder.hull(0.06, board, hull, keel, hull * 0.9, offset)
        builder.block((-0.35, 0.25), (-0.17, 0.17), (board, board + 0.04), GLASS + 30, 1)
    else:
        builder.hull(0.15, board, hull, keel, hull * 0.8)
    top = board + rng.uniform(0.1, 0.16)
    mast = top + rng.uniform(0.12, 0.26)
    builder.block((-0.2, rng.uniform(0.0, 0.15)), (-0.09, 0.09), (board, top), house, 2, 0.7)
    builder.mast(-0.1, 0.0, (top, mast), GLASS + 40, 3, 0.03)
    builder.block((-0.16, -0.04), (-0.08, 0.08), (mast, mast + 0.07), builder.pick(HOUSES), 4, 0.7)
    if rng.random() < 0.5:
        builder.mast(-0.4, 0.08, (board, mast + 0.1), GLASS, 3)


def make_obstacle(rng: np.random.Generator, base: np.ndarray | None = None) -> Mesh:
    """What stands in the water: a buoy, a pile, a barge or a pier; base as in make_vessel."""
    builder = _builder(rng, base)
    kind, paint = rng.integers(5), builder.pick(HULLS + DECKS)
    if kind < 2:  # a buoy with a band and a top mark
        first, second, top = builder.pick(SIGNALS), builder.pick(SIGNALS), rng.uniform(0.7, 1.3)
        builder.block((-0.4, 0.4), (-0.4, 0.4), (0.0, 0.3), first * 0.6, 0, 0.9)
        builder.block((-0.3, 0.3), (-0.3, 0.3), (0.3, 0.55 * top), first, 1, 0.7)
        builder.block((-0.22, 0.22), (-0.22, 0.22), (0.55 * top, top), second, 2, 0.4)
    elif kind == 2:  # a pile with rings
        half, top = rng.uniform(0.1, 0.2), rng.uniform(1.2, 2.5)
        edges = np.linspace(0, top, 5)
        for level, (low, high) in enumerate(itertools.pairwise(edges)):
            builder.block((-half, half), (-half, half), (low, 0.9 * high), paint, 2 * level)
            builder.block((-half, half), (-half, half), (0.9 * high, high), 0.6 * paint, 2 * level + 1)
    elif kind == 3:
        top = rng.uniform(0.08, 0.2)
        builder.block((-0.5, 0.5), (-0.15, 0.15), (0.0, top), paint, 0)
        if rng.random() < 0.5:
            roof = top + rng.uniform(0.12, 0.25)
            builder.house((-0.45, -0.25), (-0.1, 0.1), (top, roof), builder.pick(HOUSES), 1)
    else:  # a pier on piles
        deck, count = rng.uniform(0.12, 0.3), int(rng.integers(3, 8))
        for x in np.linspace(-0.47, 0.47, count):
            builder.mast(x, 0.0, (0.0, deck), 0.5 * paint, 0, 0.03)
        builder.block((-0.5, 0.5), (-0.08, 0.08), (deck, deck + 0.06), paint, 1)
    return builder.build()


def similar(mesh: Mesh, rng: np.random.Generator) -> Mesh:
    """A look-alike: other proportions, slightly other colours."""
    colours = np.clip(mesh.colours + rng.normal(0, 12, 3), 0, 255)
    stretch = rng.uniform((0.85, 0.85, 0.75), (1.15, 1.15, 1.25))
    return replace(mesh, vertices=mesh.vertices * stretch, centres=mesh.centres * stretch, colours=colours)


@dataclass(frozen=True)
class Views:
    """How a mesh is seen in n frames, [n] each.

    heading: radians from the picture's right to the bow, pi/2 pointing away from the camera. tilt: sine of the angle at
    which the camera looks down. roll: radians by which the picture is turned.
    """

    heading: np.ndarray
    tilt: np.ndarray
    roll: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """[P, 3] vessel coordinates -> [n, P, 2] in the pictures (right, down), in vessel lengths."""
        x, y, z = points.T
        tilt, (cos, sin) = self.tilt[:, None], _turn(self.heading)
        right, away = x * cos - y * sin, x * sin + y * cos
        down = -z * np.sqrt(1 - tilt**2) - away * tilt
        cos, sin = _turn(self.roll)
        return np.stack((right * cos - down * sin, right * sin + down * cos), -1)

    def at(self, frame: int) -> "Views":
        """Of one frame."""
        return Views(*(values[frame : frame + 1] for values in (self.heading, self.tilt, self.roll)))


def _turn(angle):
    return np.cos(angle)[:, None], np.sin(angle)[:, None]


def bounds(points: np.ndarray) -> np.ndarray:
    """[n, 4] xyxy of points [n, P, 2]."""
    return np.concatenate((points.min(1), points.max(1)), 1)


def draw_mesh(mesh: Mesh, view: Views, points: np.ndarray, longest: int) -> tuple[np.ndarray, float, np.ndarray]:
    """A mesh as one view sees it, with its vertices at points [V, 2]: (premultiplied RGBA float32 [h, w, 4], canvas
    pixels a unit of points, [2]: the point at the canvas's corner); longest: pixels of its longer side."""
    low, high = points.min(0), points.max(0)
    scale = longest / (high - low).max()
    width, height = np.ceil((high - low) * scale).astype(int) + 1
    canvas = np.zeros((height, width, 4), np.uint8)
    corners = np.round(((points - low) * scale - 0.5) * 2**_SUB).astype(np.int32)
    for face, colour in zip(*_visible_faces(mesh, view), strict=True):
        cv2.fillConvexPoly(canvas, corners[face], (*colour, 255), cv2.LINE_8, _SUB)
    return canvas.astype(np.float32), scale, low


def _visible_faces(mesh, view):
    """Indices [k, 4] of the faces that are seen, in the order of drawing, and their shaded colours."""
    cos, sin, tilt = np.cos(view.heading), np.sin(view.heading), view.tilt
    x, y, z = mesh.normals.T
    right, away = x * cos - y * sin, x * sin + y * cos
    thin = (mesh.normals == 0).all(1)
    depth = mesh.centres[:, 0] * sin + mesh.centres[:, 1] * cos
    shown = np.flatnonzero((away * np.sqrt(1 - tilt**2) - z * tilt < 0) | thin)
    shown = shown[np.lexsort((-depth[shown], mesh.layers[shown]))]
    shade = np.where(thin, 0.95, 0.68 + 0.32 * (right * LIGHT[0] + away * LIGHT[1] + z * LIGHT[2]))
    return mesh.faces[shown], np.minimum(mesh.colours[shown] * shade[shown, None], 255).tolist()
