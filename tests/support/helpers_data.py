"""Miniature data sets for tests: GOT-10k folders and annotation files."""

import json
from pathlib import Path

import cv2
import numpy as np

from hiptrack.config import REPO_ROOT
from hiptrack.taxonomy import CV, VLM

CLIPS = REPO_ROOT.parent / "shared" / "clips"


def write_image(path, width=48, height=32, seed=0):
    """A noise picture; the format follows the name's suffix."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def write_sequence(folder, boxes_xywh, names=None, size=(48, 32), **label_files):
    """A sequence folder, one picture a box; `absence=`, `cover=`, `cut_by_image=` become label files."""
    names = names or [f"{i:08d}.jpg" for i in range(1, len(boxes_xywh) + 1)]
    for seed, name in enumerate(names):
        write_image(Path(folder) / name, *size, seed=seed)
    write_lines(Path(folder) / "groundtruth.txt", [",".join(map(str, box)) for box in boxes_xywh])
    for label, values in label_files.items():
        write_lines(Path(folder) / f"{label}.label", values)


def write_split(folder, sequences, listed=True):
    """`sequences`: name -> boxes; a split folder with its list.txt."""
    for name, boxes_xywh in sequences.items():
        write_sequence(Path(folder) / name, boxes_xywh)
    if listed:
        write_lines(Path(folder) / "list.txt", sequences)


def write_lines(path, lines):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(f"{line}\n" for line in lines))


def annotation(sequence, frame_id, flags=(), frame_file=None, box=(1.0, 2.0, 10.0, 8.0)):
    """One annotation as a dict; `flags`: names of the set ones, as they stand in the files."""
    assert set(flags) <= set(CV) | set(VLM)
    return {
        "sequence_name": sequence,
        "frame_id": frame_id,
        "frame_file": frame_file or f"{frame_id:08d}.jpg",
        "cv_response": {key: int(key in flags) for key in CV},
        "vlm_response": {key: {"flag": int(key in flags), "conf": 0.5} for key in VLM},
        "ground_truth_bbox": list(box),
    }


def write_annotations(directory, sequence, lines):
    """The annotation file of a sequence from dicts, or from texts written as they are; its path."""
    path = Path(directory) / sequence / f"{sequence}.jsonl"
    write_lines(path, [line if isinstance(line, str) else json.dumps(line) for line in lines])
    return path
