"""Sharing the cores of a machine without GPU between the model and the decoding of frames."""

import os
from contextlib import contextmanager

import torch

from hiptrack.data.reading import read_image_rgb
from hiptrack.errors import DataError

LARGE = 20e6  # parameters from which on a step takes so long that decoding beside it does not show

SMALL_FRAME = 640 * 480  # pixels, up to which decoding takes less than a thread costs that does it beside the tracker


def decodes_ahead(tracker, sequence):
    """Whether frames like the first of a Sequence are better decoded beside the tracker than in between: on a GPU always."""
    device = getattr(tracker, "device", None)
    if device is not None and device.type != "cpu":
        return True
    try:
        height, width = read_image_rgb(sequence.frames[0]).shape[:2]
    except DataError:  # told when its turn comes
        return True
    return height * width > SMALL_FRAME


@contextmanager
def core_for_decoding(tracker):
    """Within it, a small model on the CPU leaves one core to the thread that decodes.

    The threads of a layer wait for the slowest of them at its end, so that one core fewer costs less than one that is shared. By size rather
    than by a measured time, because the number of threads decides how sums are rounded, and results must repeat.
    """
    threads = torch.get_num_threads()
    model = getattr(tracker, "model", None)
    # an exported model has threads of its own
    is_small = isinstance(model, torch.nn.Module) and sum(part.numel() for part in model.parameters()) < LARGE
    if is_small and tracker.device.type == "cpu" and 1 < threads == usable_cores():
        torch.set_num_threads(threads - 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def usable_cores():
    """The cores that this process may use: of a container or under `taskset` fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
