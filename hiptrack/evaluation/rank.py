"""Which frames are most worth labelling: those whose challenge the branch is least sure of (active learning).

Uncertainty sampling as in Settles, Active Learning Literature Survey (2009), section 3.1.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.evaluation import metrics
from hiptrack.evaluation.run_sequences import run_sequences
from hiptrack.tables import as_csv

MEASURES = ("confidence", "margin", "entropy")
LOST = 0.3  # IoU with the true box, below which the branch looked at something else


@dataclass(frozen=True)
class Candidate:
    """A frame without labels. frame: from 1; uncertainty in [0, 1]; challenge: the likeliest; probability: its own."""

    sequence: str
    frame: int
    file: str
    uncertainty: float
    challenge: str
    probability: float


@dataclass(frozen=True)
class Ranking:
    """candidates: the least certain first; how many frames are none: labelled already, or lost by the tracker; and a
    line for each sequence that failed.
    """

    candidates: list[Candidate]
    labelled: int
    lost: int
    failures: list[str]


def rank_frames(tracker, sequences: Sequence, by: str = "confidence", gap: int = 10) -> Ranking:
    """Track sequences with the branch on and rank their visible frames that have no labels.

    by: one of MEASURES; gap: of frames nearer than this to a less certain one of their sequence, which look much alike,
    none is taken. Where true boxes are known, frames in which the tracker had lost the target are left out, and
    counted. Raises ConfigError for a gap below 1.
    """
    if gap < 1:
        raise ConfigError(f"--gap {gap}: at least 1 was expected.")
    candidates, labelled, lost, failures = [], 0, 0, []
    for index, result in run_sequences(tracker, sequences):
        sequence = sequences[index]
        if isinstance(result, HiptrackError):  # the others are worth as much without it
            failures.append(f"{sequence.name}: {result}")
            continue
        known = np.zeros(len(sequence), bool) if sequence.labels is None else sequence.labels.annotated
        seen, away = _seen(sequence), _lost(result, sequence)
        labelled, lost = labelled + int((seen & known).sum()), lost + int((seen & ~known & away).sum())
        frames = np.flatnonzero(seen & ~known & ~away)
        doubt = uncertainty(result.challenges[frames], by, tracker.multi_label)
        for place in _spaced(frames, doubt, gap):
            frame = int(frames[place])
            best = int(result.challenges[frame].argmax())
            probability = float(result.challenges[frame, best])
            candidates.append(
                Candidate(
                    sequence.name,
                    frame + 1,
                    sequence.frames[frame],
                    float(doubt[place]),
                    tracker.classes[best],
                    probability,
                )
            )
    candidates.sort(key=lambda found: -found.uncertainty)
    return Ranking(candidates, labelled, lost, failures)


def uncertainty(probabilities, by, multi_label):
    """Class probabilities [N, C] -> [N] in [0, 1], 0 where the branch is certain and 1 where all is equally probable.

    confidence: 1 - the highest probability; margin: 1 - the lead of the highest over the second; entropy: the mean
    surprise. multi_label: the classes are independent; each is then taken as present or absent, and the mean is over
    classes.
    """
    if multi_label:
        pairs = np.stack((probabilities, 1 - probabilities), -1)
        return uncertainty(pairs.reshape(-1, 2), by, False).reshape(probabilities.shape).mean(1)
    classes = probabilities.shape[1]
    second, first = np.sort(probabilities, 1)[:, -2:].T
    if by == "confidence":
        return (1 - first) * classes / (classes - 1)
    if by == "margin":
        return 1 - (first - second)
    if by != "entropy":
        raise ValueError(f"unknown measure {by!r}, expected one of {MEASURES}")
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return -(probabilities * logs).sum(1) / np.log(classes)


def candidates_csv(candidates: Sequence[Candidate]) -> str:
    """A line for each candidate, in their order, below a line of names."""
    return as_csv([field.name for field in fields(Candidate)], map(astuple, candidates))


def _seen(sequence):
    """[N] bool: frames after the first in which the target is not known to be out of sight."""
    seen = sequence.visible.copy() if _is_known(sequence) else np.ones(len(sequence), bool)
    seen[0] = False
    return seen


def _is_known(sequence):
    return len(sequence.boxes_xywh) == len(sequence)


def _lost(result, sequence):
    """[N] bool: whether the tracker is known to have lost the target."""
    lost = np.zeros(len(sequence), bool)
    if _is_known(sequence):
        cover = sequence.visible.astype(int)
        overlap = metrics.frame_ious(result.boxes_xywh, sequence.boxes_xywh, result.image_size, cover)
        scored = np.flatnonzero(cover)
        lost[scored[scored > 0]] = overlap < LOST
    return lost


def _spaced(frames, doubt, gap):
    """Places of frames from the least certain on, none within `gap` frames of one taken before."""
    taken = []
    for place in np.argsort(-doubt, kind="stable"):
        if all(abs(frames[place] - frames[other]) >= gap for other in taken):
            taken.append(place)
    return taken
