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

import cv2
import numpy as np

from hiptrack.data.labels import CV_FLAGS, VLM_FLAGS
from hiptrack.data.synthetic_plan import CHALLENGES, spans_expected
from hiptrack.data.synthetic_scene import Scene, flags, make_scene, render
from hiptrack.errors import DataError

ANNOTATIONS = "annotations"
PARAMETERS_FILE = "synthetic.json"
VERSION = 1  # of the generator: raise it when its pictures change
SMALLEST_SIDE = 96
JPEG_QUALITY = 92


def write_dataset(out: str, split: str, sequences: int, frames: int, size: tuple[int, int], seed: int) -> None:
    """Writes `sequences` sequences of `frames` pictures of `size` (w, h) as a split of a data set.

    `out/<split>/` gets list.txt, synthetic.json and one folder a sequence (`synth_<split>_0001`, ...) with
    images, groundtruth.txt (`x,y,w,h` of the whole target, clipped to the image), cover.label (visible
    eighths), absence.label, cut_by_image.label and meta_info.ini; `out/annotations/<seq>/<seq>.jsonl` gets
    the challenge labels (`ground_truth_bbox` is xyxy there).

    A split that was written with the same parameters is left as it is; what an interrupted call left
    behind is written anew. Raises DataError for a split folder that holds anything else, for parameters
    out of range, and where the disk cannot be written.
    """
    _check(split, sequences, frames, size, seed)
    parameters = {
        "version": VERSION, "split": split, "sequences": sequences, "frames": frames, "size": list(size),
        "seed": seed,
    }  # fmt: skip
    folder = os.path.join(out, split)
    names = [f"synth_{split}_{index + 1:04d}" for index in range(sequences)]
    try:
        if _is_written(folder, parameters, [_annotation_folder(out, name) for name in names]):
            return
        partial = os.path.join(out, f".{split}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for index, name in enumerate(names):
            scene = dataset_scene(split, index, frames, size, seed)
            _write_sequence(scene, name, os.path.join(partial, split, name), _annotation_folder(partial, name))
        _write_text(os.path.join(partial, split, "list.txt"), names)
        _write_text(os.path.join(partial, split, PARAMETERS_FILE), [json.dumps(parameters)])
        _move_into_place(partial, out, split, names)
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: the synthetic sequences cannot be written "
            f"({error.strerror or error}). Make room or choose another folder, then call again."
        ) from error


def dataset_scene(split: str, index: int, frames: int, size: tuple[int, int], seed: int) -> Scene:
    """The scene of one sequence (0-based) of a split, to be drawn with `synthetic_scene.render`."""
    key, count = (seed, zlib.crc32(split.encode())), spans_expected(frames)
    order = []
    # one sequence after the other takes its share of shuffled rounds of all nine: balance in small sets
    for slot in range(index * count, (index + 1) * count):
        rounds = np.random.default_rng((*key, slot // CHALLENGES, 1)).permutation(CHALLENGES)
        order.append(int(rounds[slot % CHALLENGES]))
    return make_scene(np.random.default_rng((*key, index)), frames, size, order)


def _check(split, sequences, frames, size, seed):
    if not split or split != os.path.basename(split) or split.startswith(".") or split == ANNOTATIONS:
        raise DataError(f"the split of a synthetic data set is a plain folder name such as 'train', not {split!r}.")
    if sequences < 1 or frames < 2 or seed < 0 or min(size) < SMALLEST_SIDE:
        raise DataError(
            f"synthetic split '{split}': expected at least 1 sequence, 2 frames, {SMALLEST_SIDE} px a side, "
            f"a seed >= 0; got {sequences} sequences, {frames} frames, {size[0]}x{size[1]} pixels, "
            f"seed {seed}."
        )


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


def _write_sequence(scene, name, folder, annotation_folder):
    os.makedirs(folder)
    os.makedirs(annotation_folder)
    width, height = scene.size
    edges = np.array((width, height, width, height), np.float64)
    boxes, covers, cuts, lines = [], [], [], []
    for frame, whole in enumerate(scene.motion.boxes):
        picture, inside, visible = render(scene, frame)
        file = f"{frame + 1:08d}.jpg"
        _write_jpeg(os.path.join(folder, file), picture)
        x1, y1, x2, y2 = box = np.clip(whole, 0, edges).round(4).tolist()
        boxes.append(f"{x1:.4f},{y1:.4f},{x2 - x1:.4f},{y2 - y1:.4f}")
        covers.append(round(8 * visible))
        cuts.append(int(box != whole.round(4).tolist()))
        lines.append(json.dumps(_annotation(name, frame, file, flags(scene, frame, inside, visible), box)))
    _write_text(os.path.join(folder, "groundtruth.txt"), boxes)
    _write_text(os.path.join(folder, "cover.label"), covers)
    _write_text(os.path.join(folder, "absence.label"), [int(cover == 0) for cover in covers])
    _write_text(os.path.join(folder, "cut_by_image.label"), cuts)
    _write_text(os.path.join(folder, "meta_info.ini"), _meta_info(scene))
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


def _meta_info(scene):
    values = {
        "url": "synthetic", "begin": "00:00:00", "end": "00:00:00", "anno_fps": "10Hz",
        "object_class": scene.motion.kind, "motion_class": "sailing", "major_class": "vessel",
        "root_class": "vehicle", "motion_adverb": "unknown", "resolution": str(tuple(scene.size)),
    }  # fmt: skip
    return ["[METAINFO]", *(f"{key}: {value}" for key, value in values.items())]


def _write_jpeg(path, picture):
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    with open(path, "wb") as file:
        file.write(data)


def _write_text(path, lines):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
