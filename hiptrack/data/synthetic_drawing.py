"""Draws the meshes of synthetic_vessels.py, their wakes, their dressing, and what hides them.

Meshes are seen in parallel projection. Pictures are BGR; points and boxes are in pixels, where pixel i
covers [i, i + 1).
"""

from dataclasses import dataclass

import cv2
import numpy as np

from hiptrack.data.synthetic_vessels import SIGNALS, Mesh

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
