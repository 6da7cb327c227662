"""Why a tracker is as good as it is: its scored frames by challenge, size and speed, where it lost the target, and how
well the branch knows what it knows.
"""

from dataclasses import dataclass

import numpy as np

from hiptrack.data.labels import draw_fixed
from hiptrack.data.sequence import GOT10K
from hiptrack.evaluation.metrics import ONE_PASS_NUMBERS, mean_curves, summarise

LOST_AFTER = 10  # scored frames without overlap in a row; the first of them is where the box was lost
SIZES = {"below 16 px": 16, "16 to 32 px": 32, "32 to 96 px": 96, "above 96 px": np.inf}  # sqrt(w h)
SPEEDS = {"below 0.05": 0.05, "0.05 to 0.2": 0.2, "above 0.2": np.inf}  # of the target's size per frame
BINS = 10
ATTRIBUTE_SEQUENCES = {"majority": 0.5, "any": 0.0}  # a sequence has what a greater share of its annotated frames has


@dataclass(frozen=True)
class Frames:
    """The scored frames of all sequences, one row each.

    sequence [M]: number of the sequence; frame [M]: from 1; iou [M]; score [M]; challenge [M]: class index, -1 without
    a label; size [M]: sqrt(w h) of the true box in pixels; speed [M]: distance of its centre from the frame before, in
    such sizes, NaN where the target was out of sight then; probabilities [M, C], NaN without class outputs.
    """

    sequence: np.ndarray
    frame: np.ndarray
    iou: np.ndarray
    score: np.ndarray
    challenge: np.ndarray
    size: np.ndarray
    speed: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class LostTarget:
    """Where a tracker lost its target: frame (from 1), scored frames without overlap from there, and its challenge."""

    sequence: str
    frame: int
    length: int
    challenge: str | None


def scored_frames(scores, sequences, classes):
    """The Frames of SequenceScores and their Sequences, for so many classes; those without ground truth have none."""
    parts = [
        _of_sequence(number, score, sequence, classes)
        for number, (score, sequence) in enumerate(zip(scores, sequences, strict=True))
        if score.ious is not None
    ]
    columns = zip(*parts, strict=True) if parts else [()] * 7 + [[np.empty((0, classes))]]
    return Frames(*(np.concatenate(column) if len(column) else np.empty(0) for column in columns))


def _of_sequence(number, score, sequence, classes):
    scored = _scored(sequence)
    boxes = sequence.boxes_xywh
    size = np.sqrt(boxes[:, 2:].prod(1))
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        speed = np.append(np.nan, np.linalg.norm(np.diff(centre, axis=0), axis=1) / size[1:])
    speed[1:][~(sequence.visible[1:] & sequence.visible[:-1])] = np.nan
    challenge = np.full(len(sequence), -1)
    if sequence.labels is not None:
        for frame in np.flatnonzero(sequence.labels.annotated):
            challenge[frame] = draw_fixed(sequence.labels, sequence.name, frame)
    probabilities = score.result.challenges
    if probabilities is None:
        probabilities = np.full((len(sequence), classes), np.nan)
    return (
        np.full(len(scored), number),
        scored + 1,
        score.ious,
        score.result.scores[scored],
        challenge[scored],
        size[scored],
        speed[scored],
        probabilities[scored],
    )


def _scored(sequence):
    """The scored frames (from 0) of a Sequence with ground truth, as metrics.frame_ious has them."""
    return np.flatnonzero(sequence.cover[1:] > 0) + 1


def by_challenge(scores, sequences, protocol, classes, attribute_sequences="majority"):
    """{class: {"frames", "sequences", "AO", "SR0.5", "SR0.75"}} of SequenceScores: every class, in class order.

    sequences: the Sequences that may have been scored; protocol: a Protocol; classes: their names; attribute_sequences: a
    key of ATTRIBUTE_SEQUENCES. None where no scored sequence is annotated.

    A scored frame counts for each of its flags, one that is annotated and has none for the last class. AO and SR are over
    these frames, and `frames` is their number. `sequences` is the number of sequences that they are from.

    In one-pass evaluation the numbers of OnePass.numbers are there too: of the mean of the curves of the sequences that
    have the challenge, each over all of its frames and counting alike, as in the attribute tables of OTB (Wu et al.,
    TPAMI 2015) and LaSOT (Fan et al., CVPR 2019). These give a sequence its attributes; here it has those that more than
    half of its annotated frames have ("majority"), or any of them ("any"). `sequences` is their number then.

    A number of nothing is None.
    """
    named = {sequence.name: sequence for sequence in sequences}
    pairs = [(score, named[score.result.name]) for score in scores if score.ious is not None]
    pairs = [(score, of) for score, of in pairs if of.labels is not None and of.labels.annotated.any()]
    if not pairs:
        return None
    flags = [of.labels.multi_hot(_scored(of)) > 0 for _, of in pairs]
    shares = [(of.labels.multi_hot(np.flatnonzero(of.labels.annotated)) > 0).mean(0) for _, of in pairs]
    least, table = ATTRIBUTE_SEQUENCES[attribute_sequences], {}
    for number, name in enumerate(classes):
        ious = [score.ious[mask[:, number]] for (score, _), mask in zip(pairs, flags, strict=True)]
        ious = [values for values in ious if len(values)]
        row = {"frames": sum(map(len, ious)), "sequences": len(ious)}
        row |= summarise(ious) if ious else dict.fromkeys(GOT10K.metrics)
        if protocol.is_one_pass:
            having = [score.one_pass for (score, _), share in zip(pairs, shares, strict=True) if share[number] > least]
            having = [curves for curves in having if curves is not None]
            row["sequences"] = len(having)
            row |= mean_curves(having).numbers() if having else dict.fromkeys(ONE_PASS_NUMBERS)
        table[name] = row
    return table


def by_size(frames):
    """{size: {"frames", "AO", "SR0.5", "SR0.75"}} by the size of the target, sqrt(w h), of the sizes that occur."""
    return _grouped(frames, _ranges(frames.size, SIZES))


def by_speed(frames):
    """The same by the speed of the target, in its own sizes per frame."""
    return _grouped(frames, _ranges(frames.speed, SPEEDS))


def _ranges(values, edges):
    lower, masks = -np.inf, {}
    for name, upper in edges.items():
        masks[name] = (values >= lower) & (values < upper)
        lower = upper
    return masks


def _grouped(frames, masks):
    return {
        name: {"frames": int(mask.sum()), **summarise([frames.iou[mask]])} for name, mask in masks.items() if mask.any()
    }


def find_lost_targets(frames, sequences, names):
    """The LostTargets, in order. Fewer than LOST_AFTER frames count where the sequence ends with them."""
    found = []
    for number, sequence in enumerate(sequences):
        mine = np.flatnonzero(frames.sequence == number)
        for start, length in _runs(frames.iou[mine] <= 0):
            if length >= LOST_AFTER or start + length == len(mine):
                row = mine[start]
                challenge = int(frames.challenge[row])
                name = names[challenge] if challenge >= 0 else None
                found.append(LostTarget(sequence.name, int(frames.frame[row]), length, name))
    return found


def _runs(flags):
    """(start, length) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(int)))
    return [(int(start), int(stop - start)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def calibration(frames):
    """How often the branch is right when so sure (Guo et al., ICML 2017): {"error", "bins": [...]}; None: no labels.

    A bin holds the frames whose highest probability lies in its tenth of [0, 1]: {"from", "frames", "confidence",
    "accuracy"}, the last two means, None where it is empty. The expected calibration error is the mean of their
    distance over frames.
    """
    rows = (frames.challenge >= 0) & ~np.isnan(frames.probabilities).any(1)
    if not rows.any():
        return None
    probabilities = frames.probabilities[rows]
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == frames.challenge[rows]
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for number in range(BINS):
        mine = place == number
        sure, correct = (float(confidence[mine].mean()), float(right[mine].mean())) if mine.any() else (None, None)
        bins.append({"from": number / BINS, "frames": int(mine.sum()), "confidence": sure, "accuracy": correct})
        error += abs(sure - correct) * mine.mean() if mine.any() else 0.0
    return {"error": float(error), "bins": bins}
