"""What makes each frame of a scene hard, by how it was made: the nine challenges of `labels.CLASSES`, and the boxes."""

import numpy as np

from hiptrack.data.labels import CLASSES, NORMAL
from hiptrack.data.world.objects import flattened
from hiptrack.data.world.scene import Scene, smears

HIDDEN = 0.15  # share of the target behind what passes: from here on a frame counts as occluded
GRID = 4  # pixels of a canvas between the points by which that is found
OUTSIDE = 0.08  # share of the box outside the frame: partially visible
GROWN = 1.5  # factor of the size since the first frame, up or down: scale variation
TURNED = 0.5  # radians of turning or of yaw since the first frame: appearance variation
SMEARED = 0.15  # way while the shutter is open, in target sizes: motion blur
DEFOCUSED = 0.045  # standard deviation, in target sizes: it counts as motion blur too (the classes know no other blur)
DIMMED = 0.25  # change of the logarithm of the light in any channel: illumination change
GLARING = 80.0  # grey levels
SMALL = 400.0  # pixels of the box (OTB: low resolution)
FEW_CELLS = 14.0  # coarse pixels across the target: low resolution
NEAR = 1.8  # target sizes: a look-alike so near, or ...
CROWD = 5  # ... so many bystanders are background clutter
FOGGY = 0.4  # share of fog: low contrast
SEEN = 0.2  # share of the box inside the frame and not hidden, below which a frame shows no target
SMALLEST_SIDE = 3.0  # pixels of what is inside the frame


def visible_boxes(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """(xywh [n, 4]: the whole target as far as it lies inside the frame, hidden parts included, as in GOT-10k; [n] bool: it
    is seen)."""
    x1, y1, x2, y2 = _clipped(scene.target.boxes, scene.size).T
    width, height = np.maximum(x2 - x1, 0), np.maximum(y2 - y1, 0)
    seen = (inside_share(scene) * (1 - hidden_share(scene)) >= SEEN) & (np.minimum(width, height) >= SMALLEST_SIDE)
    return np.column_stack((x1, y1, width, height)), seen


def inside_share(scene: Scene) -> np.ndarray:
    """[n]: the share of the target's box that lies inside the frame."""
    return _area(_clipped(scene.target.boxes, scene.size)) / np.maximum(_area(scene.target.boxes), 1e-6)


def hidden_share(scene: Scene) -> np.ndarray:
    """[n]: the share of the target that is behind what passes before it, by points on it, its limbs at rest."""
    hidden = np.zeros(scene.frames)
    if not scene.passers:
        return hidden
    outline = flattened(scene.target.thing)[::GRID, ::GRID, 3] > 127
    points = np.argwhere(outline)[:, ::-1] * GRID
    places = _moved(points, scene.target.affines)
    for passer in scene.passers:
        alpha = flattened(passer.thing)[..., 3]
        at = np.rint(_moved_back(places, passer.affines)).astype(int)
        within = ((at >= 0) & (at < len(alpha))).all(2)
        at = np.where(within[..., None], at, 0)
        hidden = np.maximum(hidden, (within & (alpha[at[..., 1], at[..., 0]] > 127)).mean(1))
    return hidden


def _moved(points, affines):
    return points @ affines[:, :, :2].transpose(0, 2, 1) + affines[:, None, :, 2]


def _moved_back(places, affines):
    return (places - affines[:, None, :, 2]) @ np.linalg.inv(affines[:, :, :2]).transpose(0, 2, 1)


def flags(scene: Scene) -> np.ndarray:
    """[n, 9] bool, columns in the order of CLASSES without "normal"; several may hold at once."""
    effects, track, frames = scene.effects, scene.target.track, scene.frames
    size = np.sqrt(np.maximum(_area(scene.target.boxes), 1.0))
    smeared = np.hypot(*smears(scene, scene.target).T)
    distances = [np.hypot(*(like.track.position - track.position).T) / size for like in scene.likes]
    centres = [
        b.affines[:, :, :2] @ np.full(2, scene.target.thing.side / 2) + b.affines[:, :, 2] for b in scene.bystanders
    ]
    beside = sum((np.hypot(*(centre - track.position).T) < NEAR * size).astype(int) for centre in centres)
    held = {
        "occlusion": hidden_share(scene) > HIDDEN,
        "illumination_change": (np.abs(np.log(effects.gain)).max(1) > DIMMED) | (effects.glare[:, 2] > GLARING),
        "scale_variation": np.abs(np.log(size / size[0])) > np.log(GROWN),
        "motion_blur": (smeared > SMEARED * size) & (smeared > 2) | (effects.defocus > DEFOCUSED * size),
        "appearance_variation": np.maximum(_turned(track.angle), _turned(track.yaw)) > TURNED,
        "partial_visibility": inside_share(scene) < 1 - OUTSIDE,
        "low_resolution": (size**2 < SMALL) | (effects.coarse * FEW_CELLS > size),
        "background_clutter": (np.min(distances, 0) < NEAR if distances else np.zeros(frames, bool))
        | (beside >= CROWD),
        "low_contrast": (effects.fog > FOGGY) | scene.is_camouflaged,
    }
    return np.column_stack([held[name] for name in CLASSES[:NORMAL]])


def _turned(angle):
    return np.abs(angle - angle[0])


def _clipped(boxes, size):
    return np.clip(boxes, 0, np.array((*size, *size), float))


def _area(boxes):
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
