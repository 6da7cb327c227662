"""An evaluation as its result files hold it."""

from pathlib import Path

from hiptrack.errors import HiptrackError, NotFoundError
from hiptrack.tracking.evaluate import evaluate_sequences
from hiptrack.tracking.results import read_key


class _Absent:
    """In the place of a tracker: what has no result files fails."""

    def init(self, frame_rgb, box_xywh):
        raise HiptrackError("it has no result files here; evaluate again, which goes on where it stopped")


def read_back(folder, dataset):
    """The evaluate.Report of a results folder on a data set; sequences without files are its failures.

    Raises NotFoundError or DataError for a folder that holds no results.
    """
    if not Path(folder).is_dir():
        raise NotFoundError(f"not found: {folder} (a folder that tools/eval.py wrote)", str(folder))
    return evaluate_sequences(
        _Absent(), dataset.sequences, results_dir=folder, key=read_key(folder), protocol=dataset.PROTOCOL
    )
