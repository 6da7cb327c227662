"""Procedural maritime sequences with known boxes and challenge labels, in GOT-10k layout.

Everything is drawn: sea, sky, vessels that turn and grow, look-alikes, wakes, a moving camera, and the nine
challenges of `labels.CLASSES` in spans of some frames. A data set is byte-identical for the same
parameters on the same machine and versions of NumPy and OpenCV, and its first sequences do not depend on
how many follow.
"""

import zlib

import numpy as np

from hiptrack.data.synthetic_files import Film, Picture, check_split, write_split
from hiptrack.data.synthetic_plan import CHALLENGES, spans_expected
from hiptrack.data.synthetic_scene import Scene, flags, make_scene, render

VERSION = 1  # of the generator: raise it when its pictures change
SMALLEST_SIDE = 96


def write_dataset(out: str, split: str, sequences: int, frames: int, size: tuple[int, int], seed: int) -> None:
    """Writes `sequences` sequences of `frames` pictures of `size` (w, h) as a split of a data set (see `write_split`).

    The sequences are called `synth_<split>_0001`, ... Raises DataError as `write_split` does, and for parameters out of range.
    """
    check_split(split, sequences, frames, size, seed, SMALLEST_SIDE)
    parameters = {
        "version": VERSION, "split": split, "sequences": sequences, "frames": frames, "size": list(size),
        "seed": seed,
    }  # fmt: skip
    names = [f"synth_{split}_{index + 1:04d}" for index in range(sequences)]
    write_split(out, split, parameters, names, lambda index: _film(dataset_scene(split, index, frames, size, seed)))


def _film(scene):
    classes = {
        "object_class": scene.motion.kind, "motion_class": "sailing", "major_class": "vessel", "root_class": "vehicle",
    }  # fmt: skip
    return Film(scene.size, classes, _pictures(scene))


def _pictures(scene):
    for frame, whole in enumerate(scene.motion.boxes):
        picture, inside, visible = render(scene, frame)
        yield Picture(picture, whole, visible, flags(scene, frame, inside, visible))


def dataset_scene(split: str, index: int, frames: int, size: tuple[int, int], seed: int) -> Scene:
    """The scene of one sequence (0-based) of a split, to be drawn with `synthetic_scene.render`."""
    key, count = (seed, zlib.crc32(split.encode())), spans_expected(frames)
    order = []
    # one sequence after the other takes its share of shuffled rounds of all nine: balance in small sets
    for slot in range(index * count, (index + 1) * count):
        rounds = np.random.default_rng((*key, slot // CHALLENGES, 1)).permutation(CHALLENGES)
        order.append(int(rounds[slot % CHALLENGES]))
    return make_scene(np.random.default_rng((*key, index)), frames, size, order)
