"""Low-polygon vessels and buoys for the synthetic sequences.

A mesh lives in vessel coordinates: x forward, y to port, z up, the origin at the waterline amidships,
a length of about 1. Colours are BGR, 0..255.
"""

from dataclasses import dataclass, field, replace

import numpy as np

KINDS = ("boat", "ship", "sailboat", "usv")

HULLS = np.array(
    [(235, 235, 235), (90, 40, 20), (30, 30, 190), (35, 35, 35), (50, 110, 30), (20, 110, 230),
     (40, 200, 235), (120, 120, 120), (190, 140, 60), (60, 70, 110), (150, 170, 60)], np.float32
)  # fmt: skip
HOUSES = np.array(
    [(240, 240, 240), (205, 225, 235), (170, 170, 165), (215, 190, 150), (60, 130, 225), (120, 90, 70)],
    np.float32,
)
KEELS = np.array([(30, 30, 150), (120, 60, 20), (30, 30, 30), (60, 100, 20), (40, 150, 200)], np.float32)
SAILS = np.array(
    [(245, 245, 245), (200, 225, 240), (40, 40, 200), (190, 110, 30), (30, 150, 240), (60, 60, 60)],
    np.float32,
)
CONTAINERS = np.array([(40, 60, 170), (160, 90, 30), (60, 130, 50), (40, 140, 220), (150, 150, 150)], np.float32)
SIGNALS = ((40, 40, 220), (60, 220, 240), (240, 240, 240), (200, 60, 20), (40, 160, 40))
GLASS = np.array((55, 45, 35), np.float32)


@dataclass(frozen=True)
class Mesh:
    """F faces of four corners (a triangle repeats its last) over V vertices.

    Faces are drawn by `layer`, inside a layer from the farthest part to the nearest; a part is convex.
    """

    vertices: np.ndarray  # [V, 3]
    faces: np.ndarray  # [F, 4] indices
    normals: np.ndarray  # [F, 3] outward, zero where both sides are seen
    colours: np.ndarray  # [F, 3]
    layers: np.ndarray  # [F]
    centres: np.ndarray  # [F, 3] of the face's part


@dataclass
class _Builder:
    vertices: list = field(default_factory=list)
    rows: list = field(default_factory=list)  # (indices, normal, colour, layer, centre)

    def part(self, points, faces, colours, layer, thin=False):
        """Adds a convex solid, or with `thin` a surface seen from both sides."""
        points = np.asarray(points, np.float32)
        start, centre = len(self.vertices), points.mean(0)
        self.vertices.extend(points)
        for face, colour in zip(faces, colours, strict=True):
            corners = points[list(face)]
            normal = np.cross(corners[1] - corners[0], corners[-1] - corners[0])
            normal /= np.linalg.norm(normal) + 1e-9
            outward = -1.0 if normal @ (corners.mean(0) - centre) < 0 else 1.0
            face = tuple(face) + (face[-1],) * (4 - len(face))
            self.rows.append((np.add(face, start), normal * (0.0 if thin else outward), colour, layer, centre))

    def block(self, x, y, z, colour, layer, taper=1.0, roof=True):
        """Adds a box between pairs of coordinates, its top shrunk to `taper`; its bottom is never seen."""
        middle = sum(x) / 2, sum(y) / 2
        points = []
        for height, share in ((z[0], 1.0), (z[1], taper)):
            for i, j in ((0, 0), (1, 0), (1, 1), (0, 1)):
                points.append((middle[0] + (x[i] - middle[0]) * share, middle[1] + (y[j] - middle[1]) * share, height))
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

    def hull(self, beam, freeboard, colour, keel, deck, offset=0.0, sheer=0.35):
        """Adds a hull of half-breadth `beam`, pointed at the bow, its lower third in `keel`'s colour."""
        xs = np.array((-0.5, -0.25, 0.1, 0.34, 0.5))
        top = beam * np.array((0.85, 1.0, 1.0, 0.66, 0.02))
        bottom = beam * np.array((0.75, 0.9, 0.85, 0.45, 0.0))
        height = freeboard * (1 + sheer * np.array((0.1, 0.0, 0.1, 0.55, 1.0)))
        rake = np.array((0.0, 0.0, 0.0, -0.02, -0.07))
        rings = []
        for level, share in ((0.0, 0.0), (0.35, 0.45), (1.0, 1.0)):
            breadth = bottom + (top - bottom) * share
            for side in (1, -1):
                rings.append(np.stack((xs + rake * (1 - share), offset + side * breadth, height * level), 1))
        points = np.concatenate(rings)  # six lines of five points: port and starboard on three levels
        faces, colours = [], []
        for level, paint in ((0, keel), (1, colour)):
            for side in (0, 1):
                line, above = 5 * (2 * level + side), 5 * (2 * level + 2 + side)
                faces += [(line + i, line + i + 1, above + i + 1, above + i) for i in range(4)]
                colours += [paint] * 4
            faces.append((10 * level, 10 * level + 5, 10 * level + 15, 10 * level + 10))
            colours.append(paint)
        faces += [(20 + i, 21 + i, 26 + i, 25 + i) for i in range(4)]
        colours += [deck] * 4
        self.part(points, faces, colours, 0)

    def build(self):
        faces, normals, colours, layers, centres = zip(*self.rows, strict=True)
        arrays = (np.array(item, np.float32) for item in (normals, colours, layers, centres))
        return Mesh(np.array(self.vertices, np.float32), np.array(faces), *arrays)


def _pick(rng, colours):
    return np.clip(colours[rng.integers(len(colours))] + rng.normal(0, 8, 3), 5, 250).astype(np.float32)


def make_vessel(rng: np.random.Generator, kind: str) -> Mesh:
    """A vessel of one of `KINDS`, its proportions and colours drawn from `rng`."""
    hull, house, keel = _pick(rng, HULLS), _pick(rng, HOUSES), _pick(rng, KEELS)
    if kind != "ship" and rng.random() < 0.4:
        keel = hull
    builder = _Builder()
    {"boat": _boat, "ship": _ship, "sailboat": _sailboat, "usv": _usv}[kind](builder, rng, hull, house, keel)
    return builder.build()


def _boat(builder, rng, hull, house, keel):
    beam, board = rng.uniform(0.14, 0.2), rng.uniform(0.08, 0.14)
    builder.hull(beam, board, hull, keel, 0.75 * house + 40)
    start = rng.uniform(-0.25, 0.0)
    end, top = start + rng.uniform(0.2, 0.36), board + rng.uniform(0.12, 0.24)
    builder.house((start, end), (-0.75 * beam, 0.75 * beam), (board, top), house, 1, rng.uniform(0.75, 1.0))
    if rng.random() < 0.5:
        builder.block((-0.56, -0.48), (-0.05, 0.05), (0.02, board + 0.09), GLASS, 1)
    if rng.random() < 0.5:
        roof = (start - 0.12, end + 0.03)
        builder.block(roof, (-0.8 * beam, 0.8 * beam), (top, top + 0.03), _pick(rng, HULLS), 3)
    if rng.random() < 0.6:
        builder.mast(start, 0.0, (top, top + rng.uniform(0.1, 0.3)), GLASS + 60, 4)


def _ship(builder, rng, hull, house, keel):
    beam, board = rng.uniform(0.08, 0.11), rng.uniform(0.07, 0.11)
    builder.hull(beam, board, hull, keel, np.array((70, 80, 120), np.float32))
    aft = rng.uniform(-0.46, -0.4) if rng.random() < 0.7 else rng.uniform(-0.1, 0.1)
    fore, top = aft + rng.uniform(0.1, 0.2), board + rng.uniform(0.12, 0.2)
    wide = (-0.85 * beam, 0.85 * beam)
    builder.house((aft, fore), wide, (board, top), house, 1, 0.95)
    builder.house((aft + 0.02, fore - 0.01), (-0.6 * beam, 0.6 * beam), (top, top + 0.06), house, 3)
    funnel = (aft + 0.01, aft + 0.06)
    builder.block(funnel, (-0.03, 0.03), (top, top + rng.uniform(0.09, 0.15)), _pick(rng, KEELS), 5, 0.8)
    x = fore + 0.04 if aft < -0.3 else -0.44
    stop = 0.36 if aft < -0.3 else aft - 0.02
    cargo, width = rng.random(), rng.uniform(0.09, 0.14)
    while x + width < stop:
        if cargo < 0.6:
            height = board + 0.045 * rng.integers(1, 4)
            builder.block((x, x + width * 0.93), wide, (board, height), _pick(rng, CONTAINERS), 1)
        elif rng.random() < 0.6:
            builder.mast(x, 0.0, (board, board + rng.uniform(0.14, 0.22)), house, 1, 0.02)
        x += width


def _sailboat(builder, rng, hull, house, keel):
    beam, board = rng.uniform(0.12, 0.16), rng.uniform(0.06, 0.1)
    builder.hull(beam, board, hull, keel, np.array((90, 140, 180), np.float32))
    builder.house((-0.15, 0.15), (-0.6 * beam, 0.6 * beam), (board, board + 0.06), house, 1)
    foot, peak, x = board + 0.1, rng.uniform(0.85, 1.3), rng.uniform(0.02, 0.12)
    builder.mast(x, 0.0, (board, peak), np.array((170, 170, 170), np.float32), 2, 0.018)
    main, swing = _pick(rng, SAILS), rng.uniform(-0.12, 0.12)
    low, middle = (x - 0.02, 0.0), (x - 0.47, swing)
    cut = foot + 0.45 * (peak - foot)
    share = 0.52
    inner = (x - 0.02 - 0.45 * share, swing * share)
    upper = main if rng.random() < 0.6 else _pick(rng, SAILS)
    points = [(*low, foot), (*middle, foot), (*inner, cut), (*low, cut), (*low, 0.98 * peak)]
    builder.part(points, ((0, 1, 2, 3), (3, 2, 4)), (main, upper), 3, thin=True)
    if rng.random() < 0.75:
        jib = [(x + 0.02, 0.0, 0.88 * peak), (0.47, 0.0, board + 0.06), (x + 0.03, 0.6 * swing, foot)]
        builder.part(jib, ((0, 1, 2),), (_pick(rng, SAILS),), 3, thin=True)


def _usv(builder, rng, hull, house, keel):
    bright = np.array([(20, 110, 235), (30, 210, 240), (200, 190, 40), (130, 130, 130), (60, 60, 60)], np.float32)
    hull, board = _pick(rng, bright), rng.uniform(0.08, 0.12)
    if rng.random() < 0.5:
        for offset in (-0.15, 0.15):
            builder.hull(0.06, board, hull, keel, hull * 0.9, offset)
        builder.block((-0.35, 0.25), (-0.17, 0.17), (board, board + 0.04), GLASS + 30, 1)
    else:
        builder.hull(0.15, board, hull, keel, hull * 0.8)
    top = board + rng.uniform(0.1, 0.16)
    builder.block((-0.2, rng.uniform(0.0, 0.15)), (-0.09, 0.09), (board, top), house, 2, 0.7)
    mast = top + rng.uniform(0.12, 0.26)
    builder.mast(-0.1, 0.0, (top, mast), GLASS + 40, 3, 0.03)
    builder.block((-0.16, -0.04), (-0.08, 0.08), (mast, mast + 0.07), _pick(rng, HOUSES), 4, 0.7)
    if rng.random() < 0.5:
        builder.mast(-0.4, 0.08, (board, mast + 0.1), GLASS, 3)


def make_buoy(rng: np.random.Generator) -> Mesh:
    """A buoy: a body with a band and a top mark."""
    first, second = (_pick(rng, np.array(SIGNALS, np.float32)) for _ in range(2))
    builder = _Builder()
    top = rng.uniform(0.7, 1.3)
    builder.block((-0.4, 0.4), (-0.4, 0.4), (0.0, 0.3), first * 0.6, 0, 0.9)
    builder.block((-0.3, 0.3), (-0.3, 0.3), (0.3, 0.55 * top), first, 1, 0.7)
    builder.block((-0.22, 0.22), (-0.22, 0.22), (0.55 * top, top), second, 2, 0.4)
    return builder.build()


def repaint(mesh: Mesh, rng: np.random.Generator) -> Mesh:
    """The same vessel with every colour exchanged for another one."""
    palette, index = np.unique(mesh.colours, axis=0, return_inverse=True)
    vivid = np.array(SIGNALS + ((230, 60, 200), (230, 230, 40), (30, 30, 30)), np.float32)
    chosen = vivid[rng.permutation(np.arange(max(len(palette), len(vivid))) % len(vivid))[: len(palette)]]
    return replace(mesh, colours=chosen[index.reshape(-1)])


def similar(mesh: Mesh, rng: np.random.Generator) -> Mesh:
    """A look-alike: other proportions, slightly other colours."""
    colours = np.clip(mesh.colours + rng.normal(0, 12, 3), 0, 255).astype(np.float32)
    stretch = rng.uniform((0.85, 0.85, 0.75), (1.15, 1.15, 1.25)).astype(np.float32)
    return replace(mesh, vertices=mesh.vertices * stretch, centres=mesh.centres * stretch, colours=colours)
