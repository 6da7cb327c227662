"""Scenes of the world as whole frames on disk, in GOT-10k layout with challenge labels: to validate on, and to look at.

A split is byte-identical for the same parameters on the same machine and versions of NumPy and OpenCV, and its first
sequences do not depend on how many follow.
"""

import json
import os
import shutil
import zlib

import cv2
import numpy as np

from hiptrack.errors import DataError
from hiptrack.extras.world import shapes, textures
from hiptrack.extras.world.scene import Scene, render, target_mask
from hiptrack.extras.world.world import World, flags, inside_share, visible_boxes
from hiptrack.files import check_own, read_text
from hiptrack.progress import progress
from hiptrack.taxonomy import CV, VLM

VERSION = 1  # of the world: raise it when its pictures change
SMALLEST_SIDE, LARGEST_SIDE = 96, 8192
MOST_SEQUENCES, MOST_FRAMES = 10**5, 10**5
CANVAS = 128
TRAINING_SPLIT = "train"
CLEAR = 0.6  # share of the target that the first frame shows at least
TRIES = 200
ANNOTATIONS = "annotations"
PARAMETERS_FILE = "synthetic.json"
MAX_BYTES = 2**20  # of that file
JPEG_QUALITY = 92


def write_world(
    out: str, split: str, sequences: int, frames: int, size: tuple[int, int], seed: int, sea: float = 0.0
) -> None:
    """Writes `sequences` scenes of `frames` pictures of `size` (w, h) as a split of a data set; sea: see `World`.

    `out/<split>/` gets list.txt, synthetic.json (the parameters) and one folder a sequence, world_<split>_0001, ..., with
    images, groundtruth.txt (`x,y,w,h` of the whole target, clipped to the image), cover.label (visible eighths),
    absence.label, cut_by_image.label and meta_info.ini; `out/annotations/<seq>/<seq>.jsonl` gets the challenge labels
    (`ground_truth_bbox` is xyxy there). `train` is of the families that training draws from by default; any other split
    is of those held out, which such a training never saw. At sea only textures are held out: vessels are of the same kinds.

    A split that was written with the same parameters is left as it is; what an interrupted call left behind is written
    anew. Raises DataError for parameters out of range, for a split folder that holds anything else, and where the disk
    cannot be written.
    """
    if not split or split != os.path.basename(split) or split.startswith(".") or split == ANNOTATIONS:
        raise DataError(f"the split of a synthetic data set is a plain folder name such as 'train', not {split!r}.")
    in_range = 1 <= sequences <= MOST_SEQUENCES and 2 <= frames <= MOST_FRAMES and 0 <= seed < 2**63 and 0 <= sea <= 1
    if not in_range or min(size) < SMALLEST_SIDE or max(size) > LARGEST_SIDE:
        raise DataError(
            f"synthetic split '{split}': expected 1 to {MOST_SEQUENCES} sequences, 2 to {MOST_FRAMES} frames, {SMALLEST_SIDE} to "
            f"{LARGEST_SIDE} px a side, a seed from 0 to 2**63, a share at sea from 0 to 1; got {sequences} sequences, {frames} "
            f"frames, {size[0]}x{size[1]} pixels, seed {seed}, share {sea}."
        )
    parameters = {
        "world": VERSION, "split": split, "sequences": sequences, "frames": frames, "size": list(size), "seed": seed,
    }  # fmt: skip
    if sea:
        parameters["sea"] = sea
    names = [f"world_{split}_{index + 1:04d}" for index in range(sequences)]
    world, folder = split_world(split, frames, seed, sea), os.path.join(out, split)
    partial = os.path.join(out, f".{split}.partial")
    try:
        if _is_written(folder, parameters, [_annotation_folder(out, name) for name in names]):
            return
        check_own(partial)
        shutil.rmtree(partial, ignore_errors=True)
        with progress(sequences * frames, "frame", f"writing {split}") as bar:
            for index, name in enumerate(names):
                scene = clear_scene(world, index, size)
                folders = os.path.join(partial, split, name), _annotation_folder(partial, name)
                _write_sequence(scene, name, *folders, bar.update)
                bar.set_postfix_str(f"{index + 1} of {sequences} sequences", refresh=False)
        _write_text(os.path.join(partial, split, "list.txt"), names)
        _write_text(os.path.join(partial, split, PARAMETERS_FILE), [json.dumps(parameters)])
        _move_into_place(partial, out, split, names)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DataError(
            f"{error.filename or folder}: the synthetic sequences cannot be written "
            f"({error.strerror or error}). Make room or choose another folder, then call again."
        ) from error


def split_world(split: str, frames: int, seed: int, sea: float = 0.0) -> World:
    """The World of a split."""
    held_out = split != TRAINING_SPLIT
    return World(
        seed=seed * 2**32 + zlib.crc32(split.encode()),
        frames=frames,
        canvas=CANVAS,
        textures=list(textures.HELD_OUT if held_out else textures.TRAINING),
        shapes=list(shapes.HELD_OUT if held_out else shapes.TRAINING),
        sea=sea,
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


def _is_written(folder, parameters, annotation_folders):
    """Whether the split is there already, complete and with these parameters; DataError where another is."""
    if not os.path.lexists(folder) or (os.path.isdir(folder) and not os.listdir(folder)):
        return False
    try:
        found = json.loads(read_text(os.path.join(folder, PARAMETERS_FILE), MAX_BYTES))
    except (OSError, ValueError, RecursionError):
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


def _write_sequence(scene, name, folder, annotation_folder, written):
    """written: called after each picture."""
    os.makedirs(folder)
    os.makedirs(annotation_folder)
    edges, held = np.array((*scene.size, *scene.size), np.float64), flags(scene)
    boxes, covers, cuts, lines = [], [], [], []
    for frame, whole in enumerate(scene.target.boxes):
        file = f"{frame + 1:08d}.jpg"
        _write_jpeg(os.path.join(folder, file), np.ascontiguousarray(render(scene, frame)[..., ::-1]))
        x1, y1, x2, y2 = box = np.clip(whole, 0, edges).round(4).tolist()
        boxes.append(f"{x1:.4f},{y1:.4f},{x2 - x1:.4f},{y2 - y1:.4f}")
        covers.append(round(8 * visible_share(scene, frame)))
        cuts.append(int(box != whole.round(4).tolist()))
        lines.append(json.dumps(_annotation(name, frame, file, held, box)))
        written()
    _write_text(os.path.join(folder, "groundtruth.txt"), boxes)
    _write_text(os.path.join(folder, "cover.label"), covers)
    _write_text(os.path.join(folder, "absence.label"), [int(cover == 0) for cover in covers])
    _write_text(os.path.join(folder, "cut_by_image.label"), cuts)
    _write_text(os.path.join(folder, "meta_info.ini"), _meta_info(scene))
    _write_text(os.path.join(annotation_folder, f"{name}.jsonl"), lines)


def _annotation(name, frame, file, held, box_xyxy):
    return {
        "sequence_name": name,
        "frame_id": frame + 1,
        "frame_file": file,
        "cv_response": {flag: int(held[flag][frame]) for flag in CV},
        "vlm_response": {flag: {"flag": int(held[flag][frame]), "conf": float(held[flag][frame])} for flag in VLM},
        "ground_truth_bbox": box_xyxy,
    }


def _meta_info(scene):
    kind = ("vessel", "sailing") if scene.water else ("thing", "any")
    values = {
        "url": "synthetic", "begin": "00:00:00", "end": "00:00:00", "anno_fps": "10Hz", "object_class": kind[0],
        "motion_class": kind[1], "major_class": kind[0], "root_class": kind[0], "motion_adverb": "unknown",
        "resolution": str(tuple(scene.size)),
    }  # fmt: skip
    return ["[METAINFO]", *(f"{key}: {value}" for key, value in values.items())]


def _write_jpeg(path, picture):
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    with open(path, "wb") as file:
        file.write(data)


def _write_text(path, lines):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
