"""Trackers to compare with: a box that keeps still, and OpenCV's MIL. They need no weights."""

import ctypes
import json
import logging
import subprocess
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from hiptrack.errors import DataError, HiptrackError, NotFoundError
from hiptrack.evaluation import results
from hiptrack.evaluation.results import SequenceResult
from hiptrack.evaluation.score import Report, evaluate_sequences
from hiptrack.files import excerpt

# OpenCV's MIL never finds a feature in a window of 4x4 px, nor stops searching; and to sample the background
# it needs room to move the window.
_MIN_WINDOW = 8
_MIN_ROOM = 24


@dataclass(frozen=True)
class BaselineResult:
    """box xywh [4] float64 in frame pixels; score, always 1; challenge, always None."""

    box: np.ndarray
    score: float = 1.0
    challenge: None = None


class StillBox:
    """The given box, in every frame."""

    def init(self, frame_rgb, box_xywh):
        """frame_rgb uint8 [H,W,3] is not looked at; box_xywh [4] is the answer from now on."""
        self.box = np.array(box_xywh, np.float64)

    def update(self, frame_rgb) -> BaselineResult:
        return BaselineResult(self.box.copy())


class MIL:
    """OpenCV's multiple instance learning tracker (Babenko et al., CVPR 2009).

    It follows a window of whole pixels inside the image; the given box moves with it and keeps its size.
    Deterministic: init seeds the two sources of its random numbers, OpenCV's and the C library's.
    """

    def init(self, frame_rgb, box_xywh):
        """frame_rgb uint8 [H,W,3]; box_xywh [4] in pixels. Raises DataError for a side below 32 px."""
        size = np.array(frame_rgb.shape[1::-1])
        if (size < _MIN_WINDOW + _MIN_ROOM).any():
            raise DataError(
                f"The frame has {size[0]}x{size[1]} px; the MIL baseline takes none with a side below "
                f"{_MIN_WINDOW + _MIN_ROOM}. Leave the sequence or the baseline out."
            )
        self.given = np.array(box_xywh, np.float64)
        extent = np.clip(np.round(self.given[2:]), _MIN_WINDOW, size - _MIN_ROOM)
        corner = np.clip(np.round(self.given[:2] + (self.given[2:] - extent) / 2), 0, size - extent - 2)
        window = [int(value) for value in (*corner, *extent)]
        cv2.setRNGSeed(0)
        ctypes.CDLL(None).srand(0)  # its Haar features come from rand()
        self.tracker = cv2.TrackerMIL_create()
        self.tracker.init(_bgr(frame_rgb), window)
        self.start = self.corner = corner

    def update(self, frame_rgb) -> BaselineResult:
        """frame_rgb uint8 [H,W,3], of the first frame's size. While the target is lost the box stays."""
        found, window = self.tracker.update(_bgr(frame_rgb))
        if found:
            self.corner = np.array(window[:2], np.float64)
        return BaselineResult(self.given + np.concatenate((self.corner - self.start, (0, 0))))


def _bgr(frame_rgb):
    return np.ascontiguousarray(frame_rgb[..., ::-1])


logger = logging.getLogger(__name__)
WORKER = Path(__file__).with_name("contrib_worker.py")


def evaluate_contrib(name, python, dataset, folder):
    """The score.Report of an OpenCV tracker on a data set; a sequence that fails is logged and among its failures.

    name: "KCF" or "CSRT": cv2.Tracker<name>. python: an interpreter with NumPy and opencv-contrib-python 4. folder:
    where its result files go, in GOT-10k's form; sequences that it holds already are not tracked again.
    Raises NotFoundError without such an interpreter, and HiptrackError where it cannot run the tracker at all.
    """
    if not Path(python).is_file():
        raise NotFoundError(
            f"not found: {python} (an interpreter with opencv-contrib-python; `make compare-opencv` makes one)",
            str(python),
        )
    key, failures = f"OpenCV {name}", {}
    results.claim_folder(folder, key, [sequence.name for sequence in dataset.sequences])
    for sequence in tqdm(dataset.sequences, desc=name, unit="sequence", leave=False):
        if not results.is_finished(folder, sequence.name):
            try:
                results.write_result(folder, _track(name, python, sequence))
            except DataError as error:
                logger.error("%s failed: %s", sequence.name, error)
                failures[sequence.name] = str(error)
    tracked = [sequence for sequence in dataset.sequences if sequence.name not in failures]
    scores = evaluate_sequences(None, tracked, folder, key, protocol=dataset.PROTOCOL).scores if tracked else ()
    return Report(scores, tuple(failures.items()), dataset.PROTOCOL)


def _track(name, python, sequence):
    """One sequence's SequenceResult; some of OpenCV's errors end its process. Raises as above, or DataError."""
    given = np.array(sequence.boxes_xywh[0], np.float64)
    asked = {"tracker": name, "frames": list(map(str, sequence.frames)), "box": given.tolist()}
    try:
        done = subprocess.run(
            [str(python), str(WORKER)], input=json.dumps(asked), capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise HiptrackError(f"{python} cannot be started: {error}") from error
    if done.returncode < 0:
        raise DataError(f"{sequence.name}: OpenCV's {name} crashed (signal {-done.returncode})")
    if done.returncode > 0:
        said = excerpt(" ".join(done.stderr.split())[-300:], 300)
        raise HiptrackError(f"OpenCV's {name} cannot be run by {python} (exit code {done.returncode}): {said}")
    answer = json.loads(done.stdout.splitlines()[-1])  # what a library says stands before it
    if "error" in answer:
        raise DataError(f"{sequence.name}: OpenCV's {name} failed: {answer['error']}")
    boxes = np.array(answer["boxes"], np.float64)
    return SequenceResult(
        sequence.name,
        boxes,
        np.array(answer["seconds"]),
        answer["end_to_end_seconds"],
        np.ones(len(boxes)),
        None,
        tuple(answer["image_size"]),
    )
