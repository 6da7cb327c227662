"""Procedural maritime sequences with known boxes and challenge labels, in GOT-10k layout.

Everything is drawn: sea, sky, vessels that turn and grow, look-alikes, wakes, a moving camera, and the nine
challenges of `labels.CLASSES` in spans of some frames. A data set is byte-identical for the same
parameters on the same machine and versions of NumPy and OpenCV, and its first sequences do not depend on
how many follow.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from hiptrack.data.labels import CV_FLAGS, VLM_FLAGS
from hiptrack.errors import DataError
from hiptrack.extras.world.sea_motion import CHALLENGES, spans_expected
from hiptrack.extras.world.sea_scene import Scene, flags, make_scene, render

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


ANNOTATIONS = "annotations"
PARAMETERS_FILE = "synthetic.json"
JPEG_QUALITY = 92


@dataclass(frozen=True)
class Picture:
    """A frame: bgr uint8 [h, w, 3]; whole_xyxy [4]: all of the target, in pixels, also beyond the border; visible: the share of
    it that is seen; flags [9] bool in the order of CLASSES."""

    bgr: np.ndarray
    whole_xyxy: np.ndarray
    visible: float
    flags: np.ndarray


@dataclass(frozen=True)
class Film:
    """A sequence to be written: size (w, h), classes (object_class, motion_class, major_class, root_class) and its pictures."""

    size: tuple[int, int]
    classes: dict[str, str]
    pictures: Iterator[Picture]


def check_split(split: str, sequences: int, frames: int, size: tuple[int, int], seed: int, smallest_side: int) -> None:
    """Raises DataError for a name that is no folder's, and for numbers out of range."""
    if not split or split != os.path.basename(split) or split.startswith(".") or split == ANNOTATIONS:
        raise DataError(f"the split of a synthetic data set is a plain folder name such as 'train', not {split!r}.")
    if sequences < 1 or frames < 2 or seed < 0 or min(size) < smallest_side:
        raise DataError(
            f"synthetic split '{split}': expected at least 1 sequence, 2 frames, {smallest_side} px a side, "
            f"a seed >= 0; got {sequences} sequences, {frames} frames, {size[0]}x{size[1]} pixels, "
            f"seed {seed}."
        )


def write_split(out: str, split: str, parameters: dict, names: list[str], film: Callable[[int], Film]) -> None:
    """Writes sequences of these names, `film(index)` each, as a split of a data set.

    `out/<split>/` gets list.txt, synthetic.json (the parameters) and one folder a sequence with images, groundtruth.txt
    (`x,y,w,h` of the whole target, clipped to the image), cover.label (visible eighths), absence.label, cut_by_image.label and
    meta_info.ini; `out/annotations/<seq>/<seq>.jsonl` gets the challenge labels (`ground_truth_bbox` is xyxy there).

    A split that was written with the same parameters is left as it is; what an interrupted call left behind is written anew.
    Raises DataError for a split folder that holds anything else, and where the disk cannot be written.
    """
    folder = os.path.join(out, split)
    try:
        if _is_written(folder, parameters, [_annotation_folder(out, name) for name in names]):
            return
        partial = os.path.join(out, f".{split}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for index, name in enumerate(names):
            _write_sequence(film(index), name, os.path.join(partial, split, name), _annotation_folder(partial, name))
        _write_text(os.path.join(partial, split, "list.txt"), names)
        _write_text(os.path.join(partial, split, PARAMETERS_FILE), [json.dumps(parameters)])
        _move_into_place(partial, out, split, names)
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: the synthetic sequences cannot be written "
            f"({error.strerror or error}). Make room or choose another folder, then call again."
        ) from error


def _is_written(folder, parameters, annotation_folders):
    """Whether the split is there already, complete and with these parameters; DataError where another is."""
    if not os.path.lexists(folder) or (os.path.isdir(folder) and not os.listdir(folder)):
        return False
    try:
        with open(os.path.join(folder, PARAMETERS_FILE), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        raise DataError(
            f"{folder} exists and was not written by this generator (it has no readable {PARAMETERS_FILE}): "
            "choose another folder, or move it away."
        ) from None
    if found != parameters:
        raise DataError(
            f"{folder} holds a synthetic data set with other parameters: found {json.dumps(found)}, "
            f"asked for {json.dumps(parameters)}. Choose another folder, or delete this one."
        )
    missing = [path for path in annotation_folders if not os.path.isdir(path)]
    if missing:
        raise DataError(f"{missing[0]} is missing although {folder} is there: delete the latter to have both written.")
    return True


def _move_into_place(partial, out, split, names):
    """Moves a complete split to where it belongs; the split's own folder comes last."""
    os.makedirs(os.path.join(out, ANNOTATIONS), exist_ok=True)
    for name in names:
        shutil.rmtree(_annotation_folder(out, name), ignore_errors=True)
        os.replace(_annotation_folder(partial, name), _annotation_folder(out, name))
    os.replace(os.path.join(partial, split), os.path.join(out, split))
    shutil.rmtree(partial)


def _annotation_folder(out, name):
    return os.path.join(out, ANNOTATIONS, name)


def _write_sequence(film, name, folder, annotation_folder):
    os.makedirs(folder)
    os.makedirs(annotation_folder)
    width, height = film.size
    edges = np.array((width, height, width, height), np.float64)
    boxes, covers, cuts, lines = [], [], [], []
    for frame, picture in enumerate(film.pictures):
        file = f"{frame + 1:08d}.jpg"
        _write_jpeg(os.path.join(folder, file), picture.bgr)
        x1, y1, x2, y2 = box = np.clip(picture.whole_xyxy, 0, edges).round(4).tolist()
        boxes.append(f"{x1:.4f},{y1:.4f},{x2 - x1:.4f},{y2 - y1:.4f}")
        covers.append(round(8 * picture.visible))
        cuts.append(int(box != picture.whole_xyxy.round(4).tolist()))
        lines.append(json.dumps(_annotation(name, frame, file, picture.flags, box)))
    _write_text(os.path.join(folder, "groundtruth.txt"), boxes)
    _write_text(os.path.join(folder, "cover.label"), covers)
    _write_text(os.path.join(folder, "absence.label"), [int(cover == 0) for cover in covers])
    _write_text(os.path.join(folder, "cut_by_image.label"), cuts)
    _write_text(os.path.join(folder, "meta_info.ini"), _meta_info(film))
    _write_text(os.path.join(annotation_folder, f"{name}.jsonl"), lines)


def _annotation(name, frame, file, active, box_xyxy):
    return {
        "sequence_name": name,
        "frame_id": frame + 1,
        "frame_file": file,
        "cv_response": {key: int(active[index]) for key, index in CV_FLAGS.items()},
        "vlm_response": {
            key: {"flag": int(active[index]), "conf": float(active[index])} for key, index in VLM_FLAGS.items()
        },
        "ground_truth_bbox": box_xyxy,
    }


def _meta_info(film):
    values = {
        "url": "synthetic", "begin": "00:00:00", "end": "00:00:00", "anno_fps": "10Hz", **film.classes,
        "motion_adverb": "unknown", "resolution": str(tuple(film.size)),
    }  # fmt: skip
    return ["[METAINFO]", *(f"{key}: {value}" for key, value in values.items())]


def _write_jpeg(path, picture):
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    with open(path, "wb") as file:
        file.write(data)


def _write_text(path, lines):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
