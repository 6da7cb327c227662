"""Scenes of the world as whole frames on disk, in GOT-10k layout: for validation, and to look at."""

import zlib

import numpy as np

from hiptrack.errors import DataError
from hiptrack.extras.world import shapes, textures
from hiptrack.extras.world.scene import Scene, render, target_mask
from hiptrack.extras.world.sea_files import Film, Picture, check_split, write_split
from hiptrack.extras.world.world import World, flags, inside_share, visible_boxes

VERSION = 1  # of the world: raise it when its pictures change
SMALLEST_SIDE = 96
CANVAS = 128
TRAINING_SPLIT = "train"
CLEAR = 0.6  # share of the target that the first frame shows at least
TRIES = 200
_CLASSES = {"object_class": "thing", "motion_class": "any", "major_class": "thing", "root_class": "thing"}


def write_world(out: str, split: str, sequences: int, frames: int, size: tuple[int, int], seed: int) -> None:
    """Writes `sequences` scenes of `frames` pictures of `size` (w, h) as a split of a data set (see `write_split`).

    The sequences are called `world_<split>_0001`, ... `train` is of the families that training draws from by default;
    any other split is of those held out, which such a training never saw. Raises DataError as `write_split` does, and
    for parameters out of range.
    """
    check_split(split, sequences, frames, size, seed, SMALLEST_SIDE)
    parameters = {
        "world": VERSION, "split": split, "sequences": sequences, "frames": frames, "size": list(size), "seed": seed,
    }  # fmt: skip
    names = [f"world_{split}_{index + 1:04d}" for index in range(sequences)]
    world = split_world(split, frames, seed)
    write_split(out, split, parameters, names, lambda index: _film(clear_scene(world, index, size)))


def split_world(split: str, frames: int, seed: int) -> World:
    """The World of a split."""
    held_out = split != TRAINING_SPLIT
    return World(
        seed=seed * 2**32 + zlib.crc32(split.encode()),
        frames=frames,
        canvas=CANVAS,
        textures=list(textures.HELD_OUT if held_out else textures.TRAINING),
        shapes=list(shapes.HELD_OUT if held_out else shapes.TRAINING),
    )


def clear_scene(world: World, index: int, size: tuple[int, int]) -> Scene:
    """The scene of sequence `index` (0-based): one whose first frame shows the target, as tracking begins there."""
    for attempt in range(TRIES):
        scene = world.scene(index * TRIES + attempt, size)
        if visible_boxes(scene)[1][0] and visible_share(scene, 0) >= CLEAR:
            return scene
    raise DataError(f"{world.name}: none of {TRIES} scenes shows its target in the first frame; use larger frames.")


def visible_share(scene: Scene, frame: int) -> float:
    """The share of the target that is inside the frame and not hidden by what passes before it."""
    mask = target_mask(scene, frame)
    seen = target_mask(scene, frame, with_passers=True)
    return float(inside_share(scene)[frame] * seen.sum() / max(mask.sum(), 1e-6))


def _film(scene):
    return Film(scene.size, _CLASSES, _pictures(scene))


def _pictures(scene):
    held = flags(scene)
    for frame in range(scene.frames):
        picture = np.ascontiguousarray(render(scene, frame)[..., ::-1])
        yield Picture(picture, scene.target.boxes[frame], visible_share(scene, frame), held[frame])
