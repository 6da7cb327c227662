"""How often the jitter of the search crops loses the target, from the boxes alone: no image is read."""

import copy
import math

import numpy as np

from hiptrack import crops
from hiptrack.data.clips import box_in

FRAMES = 20_000  # search frames that are drawn: the share is within a point of that in other draws
FEW = 2_000  # enough where the target is never lost
DRAWS = 6_000  # of clips at most: some give none
SCENES = 8  # of endless data. Making one takes long, and jitter is in units of the target, whatever it is
UNBOUNDED = (math.inf, math.inf)  # images begin at 0; where they end the boxes do not say

# A crop shows search_factor sizes of the target, and jitter moves it by up to centre_jitter / 2 sizes. So the share is 0 up
# to centre_jitter = search_factor, as in every gin/model, and grows fast above: 5 % at 1.03 times that, 21 % at 1.13 times.
MOST_LOST = 0.05


def share_lost(clips):
    """The share of the search frames of a ClipDataset's clips whose crop does not show the centre of the target's box.

    Sequences, frames and jitter are drawn as the clips are, by a generator of its own with a fixed seed.
    """
    clips, rng = _with_few_scenes(clips), np.random.default_rng(0)
    lost = total = 0
    for _ in range(DRAWS):
        found = _draw(clips, rng)
        lost, total = lost + sum(found), total + len(found)
        if total >= (FRAMES if lost else FEW):
            break
    return lost / total if total else 1.0


def jitter_warning(clips, share):
    """What to tell of a share that `share_lost` gave; None where it is small."""
    if share <= MOST_LOST:
        return None
    return (
        f"the jitter moves the target's centre out of the crop in {share:.0%} of the search frames: they teach the head a "
        "place that it cannot give. Lower Augmentation.centre_jitter, or raise "
        f"HIPTrack.search_factor ({clips.geometry.search_factor:g} now): a centre_jitter up to the search_factor loses none."
    )


def _with_few_scenes(clips):
    few, rng = copy.copy(clips), np.random.default_rng(0)
    few.sequences = [
        [own[rng.integers(len(own))] for _ in range(SCENES)] if dataset.is_endless else own
        for dataset, own in zip(clips.data.datasets, clips.sequences)
    ]
    return few


def _draw(clips, rng):
    """For each search frame of a clip whether its crop has lost the target; [] for a draw that gives no clip."""
    _, sequence = clips.draw_sequence(rng)
    if not sequence.visible.any():
        return []
    template, search = clips.data.sampler(sequence.visible, rng)
    true = [sequence.boxes_xywh[frame] for frame in (template, *search)]
    wanted = clips.draw_crops(true, rng)
    if any(crops.is_empty(around, factor, UNBOUNDED) for around, factor, _ in wanted):
        return []
    return [_is_lost(box_in(crop, box)) for crop, box in zip(wanted[1:], true[1:])]


def _is_lost(box_xywh):
    x, y, w, h = box_xywh.tolist()
    return not (0 <= x + 0.5 * w < 1 and 0 <= y + 0.5 * h < 1)
