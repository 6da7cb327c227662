"""One sequence tracked by itself."""

from hiptrack.errors import HiptrackError
from hiptrack.evaluation.run_sequences import run_sequences


def run_sequence(tracker, sequence):
    """The SequenceResult; raises the HiptrackError by which the sequence failed."""
    ((_, outcome),) = run_sequences(tracker, [sequence])
    if isinstance(outcome, HiptrackError):
        raise outcome
    return outcome
