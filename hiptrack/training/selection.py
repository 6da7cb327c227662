"""Whether a validation may choose weights. It may not on test data: a result there would say nothing about other data."""

import os
import re

from hiptrack.data.clips import usable_sequences

SELECTION = "selection"  # what the warning is of
TEST = re.compile(r"(?<![A-Za-z])(?i:test)|(?<=[a-z])T(?i:est)")  # test, TNL2K_test_subset, OwnTest; not: latest


def selection_warning(validation, training, may_be_missing=False):
    """Why weights that a Validation chooses would be chosen on test data, with the first sequence; None where not.

    training: the data sets that clips are drawn from. A sequence counts as trained on where its first frame is the same
    file by its real path, or where its name, its number of frames and its boxes are the same.
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
    return f"its {'folder' if folder_as_split else 'split'} is called '{split}'" if TEST.search(split) else None


def _first_trained_on(held_out, training):
    """(the first of the sequences that is in a training data set, too, that data set); None where none is."""
    trained_on = {}
    files = {os.path.realpath(sequence.frames[0]): place for place, sequence in enumerate(held_out)}
    names = {sequence.name: place for place, sequence in enumerate(held_out)}
    for dataset in training if held_out else ():
        for sequence in [] if dataset.is_endless else usable_sequences(dataset):
            if sequence.is_still:
                continue  # a picture is no sequence that is tracked
            place = files.get(os.path.realpath(sequence.frames[0]))
            if place is None and sequence.name in names and _are_alike(held_out[names[sequence.name]], sequence):
                place = names[sequence.name]
            if place is not None:
                trained_on.setdefault(place, dataset)
    return (held_out[min(trained_on)], trained_on[min(trained_on)]) if trained_on else None


def _are_alike(held_out, sequence):
    boxes = len(held_out.boxes_xywh)  # a test part may have the first alone
    return len(held_out) == len(sequence) and (held_out.boxes_xywh == sequence.boxes_xywh[:boxes]).all()
