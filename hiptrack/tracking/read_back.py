"""An evaluation as its result files hold it."""

from pathlib import Path

from hiptrack.errors import DataError, HiptrackError, NotFoundError
from hiptrack.tracking.evaluate import evaluate_sequences
from hiptrack.tracking.results import is_finished, read_key


class _Absent:
    """In the place of a tracker: what has no result files fails."""

    def init(self, frame_rgb, box_xywh):
        raise HiptrackError("it has no result files here; evaluate again, which goes on where it stopped")


def read_back(folder, dataset):
    """The evaluate.Report of a results folder on a data set; sequences without files are its failures.

    Raises NotFoundError or DataError for a folder that holds no results of it.
    """
    if not Path(folder).is_dir():
        raise NotFoundError(f"not found: {folder} (a folder that tools/eval.py wrote)", str(folder))
    key, sequences = read_key(folder), dataset.sequences
    if not any(is_finished(folder, sequence.name) for sequence in sequences):
        raise DataError(
            f"{folder} holds no result of the {len(sequences)} sequences of {dataset.name}. Expected the --root and --split that it "
            "was made with."
        )
    return evaluate_sequences(_Absent(), sequences, results_dir=folder, key=key, protocol=dataset.PROTOCOL)
