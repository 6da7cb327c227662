"""How often the jitter loses the target: the share that is told, beside what clips show."""

import math

import numpy as np
import pytest

from hiptrack import crops
from hiptrack.data.clips import ClipData, ClipDataset, Geometry
from hiptrack.data.jitter import jitter_warning, share_lost
from hiptrack.data.sampling import Augmentation, CausalSampler
from hiptrack.data.sequence import Sequence
from hiptrack.extras.world.world import World

B384 = Augmentation(grey=0, scale_jitter=0.5, centre_jitter=4.5)
NANO, MINI, OWN = 4.0, 3.0, 5.0  # search factors


class Black:
    """A frame that makes black crops, where an image of its size would make some."""

    def crop(self, box_xywh, factor, side_out):
        crops.shown(box_xywh, factor, (640, 480))
        return np.zeros((side_out, side_out, 3), np.uint8)


class Videos:
    """Targets that drift through the picture, each of its size; in some frames out of sight."""

    name, is_endless = "videos", False

    def __init__(self):
        rng, self.sequences = np.random.default_rng(1), []
        for number in range(8):
            size = rng.uniform(20, 120, 2)
            centres = np.linspace(rng.uniform(60, 580, 2), rng.uniform(60, 420, 2), 40)
            boxes = np.concatenate((centres - size / 2, np.tile(size, (40, 1))), 1)
            visible = rng.random(40) < 0.9
            self.sequences.append(Sequence(f"{number}", (Black(),) * 40, boxes, visible, np.full(40, 8)))


def clips_of(factor, augmentation=B384, data=None):
    data = ClipData([data or Videos()], sampler=CausalSampler(4), augmentation=augmentation)
    return ClipDataset(data, Geometry(8, 16, 2.0, factor), 3, 0)


def shown(clips, count):
    """The share of the search frames of so many clips in which the target's centre is outside the crop."""
    boxes = np.concatenate([clips[0, index]["boxes_xywh"].numpy() for index in range(count)])
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    return 1 - ((centres >= 0) & (centres < 1)).all(1).mean()


@pytest.mark.parametrize("factor, expected", [(NANO, 0.21), (MINI, 0.56)])
def test_the_share_is_that_of_drawn_clips(factor, expected):
    clips = clips_of(factor)
    share = share_lost(clips)
    assert abs(share - shown(clips, 1500)) < 0.02
    assert abs(share - expected) < 0.03 and abs(1 - (factor / 4.5) ** 2 - expected) < 0.005


def test_a_jitter_that_fits_the_crop_loses_nothing():
    assert share_lost(clips_of(OWN)) == 0.0 == share_lost(clips_of(OWN))
    assert jitter_warning(clips_of(OWN), 0.0) is None


def test_another_augmentation_is_asked_for_its_own_jitter():
    class Aside(Augmentation):
        def jitter(self, box_xywh, rng):
            x, y, w, h = box_xywh
            return np.array([x + 3 * math.sqrt(w * h) * (rng.random() < 0.25), y, w, h])

    assert abs(share_lost(clips_of(OWN, Aside())) - 0.25) < 0.02


def test_clips_that_cannot_be_drawn_are_lost():
    class Away(Augmentation):
        def jitter(self, box_xywh, rng):
            return np.array([-1e6, -1e6, 10.0, 10.0])

    assert share_lost(clips_of(OWN, Away())) == 1.0


def test_the_warning_names_what_to_change():
    clips = clips_of(MINI)
    told = jitter_warning(clips, share_lost(clips))
    assert "in 55% of the search frames" in told or "in 54% of the search frames" in told
    for name in ("Augmentation.centre_jitter", "HIPTrack.search_factor (3 now)"):
        assert name in told
    assert "scale_jitter" not in told


def test_scale_jitter_changes_nothing():
    """The reach of the jitter grows with the box, and so does the crop's side."""
    calm = share_lost(clips_of(NANO, Augmentation(scale_jitter=0.0, centre_jitter=4.5)))
    assert abs(calm - share_lost(clips_of(NANO))) < 0.02


def test_endless_data_are_judged_by_a_few_scenes(monkeypatch):
    made, scene = [], World.scene
    monkeypatch.setattr(
        World, "scene", lambda world, number, size=None: made.append(number) or scene(world, number, size)
    )
    monkeypatch.setattr("hiptrack.extras.world.world.render", None)  # no picture is drawn
    share = share_lost(clips_of(NANO, data=World(frames=8, sea=1.0)))
    assert len(made) == 8 and abs(share - 0.21) < 0.03
