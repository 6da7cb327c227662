"""OpenCV's KCF and CSRT beside our own trackers, run by an interpreter that has opencv-contrib (contrib_worker.py)."""

import json
import logging
import subprocess
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hiptrack.bounded import excerpt
from hiptrack.errors import DataError, HiptrackError, NotFoundError
from hiptrack.tracking import results
from hiptrack.tracking.evaluate import Report, evaluate_sequences
from hiptrack.tracking.results import SequenceResult

logger = logging.getLogger(__name__)
WORKER = Path(__file__).with_name("contrib_worker.py")


def evaluate_contrib(name, python, dataset, folder):
    """The evaluate.Report of an OpenCV tracker on a data set; a sequence that fails is logged and stands in its failures.

    name: "KCF" or "CSRT": cv2.Tracker<name>. python: an interpreter with NumPy and opencv-contrib-python 4. folder: where its
    result files go, in GOT-10k's form; sequences that it holds already are not tracked again.
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
    """The SequenceResult of one sequence, in a process of its own, as some of OpenCV's errors end it. Raises as above, or DataError."""
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
