"""Low-polygon vessels and buoys for the synthetic sequences.

A mesh lives in vessel coordinates: x forward, y to port, z up, the origin at the waterline amidships,
a length of about 1. Colours are BGR, 0..255.
"""

from dataclasses import dataclass, field, replace

import cv2
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


LIGHT = (-0.45, -0.6, 0.66)  # direction to the light: right, away from the camera, up
SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
FINE_SIDE = 160  # a patch is drawn on a canvas of about this side, then averaged down


@dataclass(frozen=True)
class View:
    """How a mesh is seen.

    `heading`: radians from the picture's right to the bow, pi/2 pointing away from the camera. `tilt`:
    sine of the angle at which the camera looks down. `roll`: radians by which the picture is turned.
    """

    heading: float
    tilt: float
    roll: float = 0.0


@dataclass(frozen=True)
class Patch:
    """A drawn thing: `colour` [h, w, 3] float32 times `alpha` [h, w, 1] in 0..1, top left pixel (x, y)."""

    x: int
    y: int
    colour: np.ndarray
    alpha: np.ndarray

    def window(self, width, height):
        """Slices of the part inside a picture: (rows, columns) there and in the patch; None where empty."""
        h, w = self.alpha.shape[:2]
        left, right = max(self.x, 0), min(self.x + w, width)
        top, bottom = max(self.y, 0), min(self.y + h, height)
        if left >= right or top >= bottom:
            return None
        outer = slice(top, bottom), slice(left, right)
        inner = slice(top - self.y, bottom - self.y), slice(left - self.x, right - self.x)
        return outer, inner


def project(points: np.ndarray, view: View) -> np.ndarray:
    """[..., 3] vessel coordinates -> [..., 2] in the picture (right, down), in vessel lengths."""
    cos, sin = np.cos(view.heading), np.sin(view.heading)
    right = points[..., 0] * cos - points[..., 1] * sin
    away = points[..., 0] * sin + points[..., 1] * cos
    down = -points[..., 2] * np.sqrt(1 - view.tilt**2) - away * view.tilt
    cos, sin = np.cos(view.roll), np.sin(view.roll)
    return np.stack((right * cos - down * sin, right * sin + down * cos), -1)


def extent(mesh: Mesh, view: View) -> np.ndarray:
    """[4] xyxy of the projected mesh around its origin, in vessel lengths."""
    points = project(mesh.vertices, view)
    return np.concatenate((points.min(0), points.max(0)))


def draw_mesh(mesh: Mesh, view: View, scale: float, anchor: np.ndarray, dressed: bool = False) -> Patch:
    """The mesh with its origin at the pixel position `anchor` [2], `scale` pixels long a unit.

    `dressed`: with stripes over everything and signal flags from bow to stern, all inside its box.
    """
    points = project(mesh.vertices, view) * scale + anchor
    x, y = np.floor(points.min(0)).astype(int) - 1
    w, h = np.ceil(points.max(0)).astype(int) + 1 - (x, y)
    fine = int(np.clip(FINE_SIDE // max(w, h), 1, 4))
    canvas = np.zeros((h * fine, w * fine, 4), np.uint8)
    fixed = _fixed((points - (x, y)) * fine)
    for face, colour in zip(*_visible_faces(mesh, view), strict=True):
        cv2.fillConvexPoly(canvas, fixed[face], (*colour, 255), cv2.LINE_8, SHIFT)
    if dressed:
        _dress(canvas, (points - (x, y)) * fine)
    small = cv2.resize(canvas, (int(w), int(h)), interpolation=cv2.INTER_AREA).astype(np.float32)
    return Patch(int(x), int(y), small[..., :3], small[..., 3:] / 255)


def wake(view: View, scale: float, anchor: np.ndarray, length: float) -> list[np.ndarray]:
    """Outlines [k, 2] in pixels of the foam behind a vessel and beside its bow; they may overlap."""
    tail = -0.45 - length
    astern = ((-0.45, 0.08), (tail, 0.1 + 0.16 * length), (tail, -0.1 - 0.16 * length), (-0.45, -0.08))
    core = ((-0.45, 0.06), (-0.45 - 0.6 * length, 0.09), (-0.45 - 0.6 * length, -0.09), (-0.45, -0.06))
    bow = [((0.5, 0.0), (-0.2, side * 0.34), (-0.35, side * 0.24), (0.1, side * 0.12)) for side in (1, -1)]
    outlines = []
    for outline in (astern, core, *bow):
        outlines.append(project(np.array([(*point, 0.0) for point in outline]), view) * scale + anchor)
    return outlines


def spray(view: View, scale: float, anchor: np.ndarray, jitter: np.ndarray) -> list[np.ndarray]:
    """Outlines [k, 2] of the water thrown up at the end that faces the camera; `jitter` [2, 5] in 0..1."""
    end = -1.0 if np.sin(view.heading) > 0 else 1.0
    outlines = []
    for side, noise in zip((1, -1), jitter, strict=True):
        high = 0.12 + 0.14 * noise
        line = ((0.5, 0.02, -0.04), (0.46, 0.12, high[0]), (0.4, 0.26, high[1]), (0.32, 0.4, 0.7 * high[2]))
        line += ((0.25, 0.5 + 0.1 * noise[3], 0.3 * high[4]), (0.2, 0.5, -0.05))
        points = np.array([(end * x, side * y, z) for x, y, z in line])
        outlines.append(project(points, view) * scale + anchor)
    return outlines


def fill_outlines(mask: np.ndarray, outlines: list[np.ndarray], value: int):
    """Fills outlines [k, 2] in pixels, of any shape, into the uint8 mask, each raising it to `value`."""
    for outline in outlines:
        cv2.fillPoly(mask, [_fixed(outline)], value, cv2.LINE_AA, SHIFT)


def _fixed(points):
    return np.round((points - 0.5) * (1 << SHIFT)).astype(np.int32)


def _visible_faces(mesh, view):
    """Indices [n, 4] of the faces that are seen in the order of drawing, and their shaded colours."""
    cos, sin = np.cos(view.heading), np.sin(view.heading)
    nx, ny, nz = mesh.normals.T
    right, away = nx * cos - ny * sin, nx * sin + ny * cos
    facing = away * np.sqrt(1 - view.tilt**2) - nz * view.tilt
    thin = np.all(mesh.normals == 0, 1)
    depth = mesh.centres[:, 0] * sin + mesh.centres[:, 1] * cos
    shown = np.flatnonzero((facing < 0) | thin)
    shown = shown[np.lexsort((-depth[shown], mesh.layers[shown]))]
    shade = 0.68 + 0.32 * (right * LIGHT[0] + away * LIGHT[1] + nz * LIGHT[2])
    shade[thin] = 0.95
    return mesh.faces[shown], np.minimum(mesh.colours[shown] * shade[shown, None], 255).tolist()


def _dress(canvas, points):
    h, w = canvas.shape[:2]
    period = max(4.0, 0.16 * max(h, w))
    diagonal = (np.arange(w)[None, :] + 0.7 * np.arange(h)[:, None]) / period
    for share, colour in ((0.0, SIGNALS[1]), (0.5, SIGNALS[3])):
        stripe = (np.abs(diagonal % 1.0 - share) < 0.14) & (canvas[..., 3] > 0)
        canvas[stripe] = (*colour, 255)
    (left, top), right = points[points.argmin(0)], points[points[:, 0].argmax()]
    side = max(2.5, 0.13 * h)
    for start, stop in ((left, top), (top, right)):
        count = max(2, int(np.linalg.norm(stop - start) / (1.3 * side)))
        for i in range(count):
            x, y = start + (stop - start) * ((i + 0.5) / count)
            flag = np.array(((x - 0.5 * side, y), (x + 0.5 * side, y), (x, y + 1.4 * side)))
            cv2.fillConvexPoly(canvas, _fixed(flag), (*SIGNALS[i % len(SIGNALS)], 255), cv2.LINE_8, SHIFT)
