"""Whether a validation may choose weights. It may not on test data: a result there would say nothing about other data."""

import os
import re

import numpy as np

from hiptrack.data.clips import usable_sequences

SELECTION = "selection"  # what the warning is of
WORD = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # LaSOTTest: La, SOT, Test
# test, testing, uavtest, testset; not: testbed, latest, contest
TEST = re.compile(
    "[a-z]*(?<!la)(?<!con)(?<!pro)(?<!fas)(?<!grea)(?<!shor)test(s|ing|sets?|subset|split|part|data|dev)?"
)


def selection_warning(validation, training, may_be_missing=False):
    """Why weights that a Validation chooses would be chosen on test data, with the first sequence; None where not.

    training: the data sets that clips are drawn from. A sequence counts as trained on where a frame of it is the same file
    by its real path (the first frames must lie in one real folder), or where a training sequence has its name, and the
    boxes of one of the two are a run of the other's. Not found: a part that was copied under another name.
    may_be_missing: the validation's data, where they are missing, are judged by their reader alone.

    Raises DataError where data cannot be read.
    """
    data = validation.data
    unread = data.is_endless or (may_be_missing and data.missing_paths())
    held_out = [] if unread else validation.held_out
    reason, first = None if data.is_endless else _test_part(data), held_out[0].name if held_out else None
    if reason is None:
        both = _first_trained_on(held_out, training)
        if both is None:
            return None
        first, reason = both[0].name, f"its sequence {both[0].name} is in the training data {both[1].name}, too"
    named = data.name if first is None else f"{data.name}, from the sequence {first} on"
    if validation.allow_test_selection:
        then = "Validation.allow_test_selection = True: weights are chosen by it all the same. Report no result of theirs on it"
    else:
        then = (
            "No weights are chosen by it: the newest are kept. Validate on sequences that are held out of the training "
            "data, or set Validation.allow_test_selection = True"
        )
    return f"the validation is on test data ({named}): {reason}. {then}."


def may_choose(validation, warnings):
    """Whether a Validation may choose weights where a run warns of {what of: text}."""
    return SELECTION not in warnings or validation.allow_test_selection


def _test_part(data):
    """Why what a reader reads is a test part; None where it is none."""
    if data.SPLITS == ():
        return f"{type(data).__name__} has no split for training"
    folder_as_split = data.split is None and data.SPLITS is None
    split = os.path.basename(os.path.abspath(data.root)) if folder_as_split else data.split or ""
    return f"its {'folder' if folder_as_split else 'split'} is called '{split}'" if _is_called_test(split) else None


def _is_called_test(name):
    """Whether a word of a name is, or ends in, test; its words end where case, digits, `_` or `-` end them."""
    parts = re.findall("[A-Za-z]+", name)
    words = [*parts, *(word for part in parts for word in WORD.findall(part))]
    return any(TEST.fullmatch(word.lower()) for word in words)


def _first_trained_on(held_out, training):
    """(the first of the sequences that is in a training data set, too, that data set); None where none is."""
    trained_on, files = {}, _Files(held_out)
    names = {sequence.name: place for place, sequence in enumerate(held_out)}
    for dataset in training if held_out else ():
        for sequence in [] if dataset.is_endless else usable_sequences(dataset):
            if sequence.is_still:
                continue  # a picture is no sequence that is tracked
            place = files.place_of(sequence)
            if place is None and sequence.name in names and _are_alike(held_out[names[sequence.name]], sequence):
                place = names[sequence.name]
            if place is not None:
                trained_on.setdefault(place, dataset)
    return (held_out[min(trained_on)], trained_on[min(trained_on)]) if trained_on else None


class _Files:
    """Whose frames are files of held-out sequences, by their real paths.

    All frames are looked at only where the first one lies in the real folder of a held-out sequence's first one: to
    follow the links of each file of a large data set takes minutes.
    """

    def __init__(self, held_out):
        self.held_out, self.places, self.firsts, self.frames = held_out, {}, {}, {}
        for place, sequence in enumerate(held_out):
            first = os.path.realpath(sequence.frames[0])
            self.firsts.setdefault(first, place)
            self.places.setdefault(os.path.dirname(first), []).append(place)

    def place_of(self, sequence):
        """The place of a held-out sequence that has a frame of a training sequence; None where none has."""
        first = os.path.realpath(sequence.frames[0])
        folder = os.path.dirname(first)
        if first in self.firsts or folder not in self.places:
            return self.firsts.get(first)
        if folder not in self.frames:
            self.frames[folder] = own = {}
            for place in self.places[folder]:
                for frame in self.held_out[place].frames:
                    own.setdefault(os.path.realpath(frame), place)
        found = self.frames[folder].keys() & map(os.path.realpath, sequence.frames)
        return min((self.frames[folder][frame] for frame in found), default=None)


def _are_alike(held_out, sequence):
    """Whether the boxes of one of two sequences are a run of the other's, as where it was cut at its start or end."""
    ours, theirs = held_out.boxes_xywh, sequence.boxes_xywh  # of a test part there may be the first alone
    return _is_run(ours, theirs, len(held_out)) or _is_run(theirs, ours, len(sequence))


def _is_run(run, boxes, frames):
    """Whether boxes [M, 4] stand one after another among boxes [N, 4], which go on for `frames` from there."""
    starts = np.flatnonzero((boxes[: max(len(boxes) - frames + 1, 0)] == run[0]).all(1))
    return any((boxes[start : start + len(run)] == run).all() for start in starts)
