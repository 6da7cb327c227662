"""OpenCV's KCF and CSRT beside our own trackers, run by an interpreter that has opencv-contrib (contrib_worker.py)."""

import json
import subprocess
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hiptrack.errors import HiptrackError, NotFoundError
from hiptrack.tracking import results
from hiptrack.tracking.read_back import read_back
from hiptrack.tracking.results import SequenceResult

WORKER = Path(__file__).with_name("contrib_worker.py")


def evaluate_contrib(name, python, dataset, folder):
    """The evaluate.Report of an OpenCV tracker on a data set.

    name: "MIL", "KCF" or "CSRT": cv2.Tracker<name>. python: an interpreter with NumPy and opencv-contrib-python 4. folder: where its
    result files go, in GOT-10k's form; sequences that it holds already are not tracked again.
    Raises NotFoundError without such an interpreter, and HiptrackError naming the sequence where it fails.
    """
    if not Path(python).is_file():
        raise NotFoundError(
            f"not found: {python} (an interpreter with opencv-contrib-python; `make compare-opencv` makes one)",
            str(python),
        )
    results.claim_folder(folder, f"OpenCV {name}", [sequence.name for sequence in dataset.sequences])
    worker = subprocess.Popen([str(python), str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with worker:
        for sequence in tqdm(dataset.sequences, desc=name, unit="sequence", leave=False):
            if not results.is_finished(folder, sequence.name):
                results.write_result(folder, _track(worker, name, sequence))
    return read_back(folder, dataset)


def _track(worker, name, sequence):
    given = np.array(sequence.boxes_xywh[0], np.float64)
    asked = {"tracker": name, "frames": list(map(str, sequence.frames)), "box": given.tolist()}
    try:
        print(json.dumps(asked), file=worker.stdin, flush=True)
        answer = worker.stdout.readline()
    except BrokenPipeError:
        answer = ""
    if not answer:
        raise HiptrackError(
            f"{sequence.name}: the process of OpenCV's {name} ended (exit code {worker.wait()}); its message stands above."
        )
    answer = json.loads(answer)
    if "error" in answer:
        raise HiptrackError(f"{sequence.name}: OpenCV's {name} failed: {answer['error']}")
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
