"""Training clips: frames, crops, augmentation, and their division over processes and workers."""

import numpy as np
import pytest
import torch

from hiptrack import crops
from hiptrack.data.augment import Augmentation
from hiptrack.data.clips import ClipData, ClipDataset, Geometry
from hiptrack.data.loader import ShardedBatches, make_loader, shut_down
from hiptrack.data.sampler import CausalSampler
from hiptrack.data.sequences import FolderDataset, read_image_rgb
from hiptrack.errors import ConfigError, DataError

GEOMETRY = Geometry(32, 64, 2.0, 5.0)
PLAIN = Augmentation(grey=0, flip=0, brightness=0, scale_jitter=0, centre_jitter=0)


@pytest.fixture
def annotated(synthetic):
    return FolderDataset(str(synthetic), "train", str(synthetic / "annotations"))


def clips(dataset, augmentation=None, **sampler):
    return ClipDataset(ClipData([dataset], None, CausalSampler(**sampler), augmentation), GEOMETRY, 0, 0)


@pytest.mark.parametrize("length, gap", [(300, 70), (300, 5), (12, 70), (6, 70), (3, 70), (2, 70)])
def test_causal_sampler_takes_visible_frames_in_order_within_the_gap(length, gap):
    backwards = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        visible = rng.random(length) < 0.7
        visible[:2] = True
        template, search = CausalSampler(5, gap)(visible, rng)
        chain = np.array([template, *search])
        assert len(search) == 5 and visible[chain].all()
        steps = np.diff(chain)
        assert (steps >= 0).all() or (steps <= 0).all()
        backwards += bool((steps < 0).any())
        if length == 300 and gap == 70:
            assert (np.abs(steps) <= 59).all() and (steps != 0).all()  # the gap shrinks to a fifth of 299 frames
    if length > 6:
        assert 60 < backwards < 140


def test_plain_clip_is_the_crop_of_the_frames_it_names(annotated):
    sample = clips(annotated, PLAIN, search_frames=2)[(0, 3)]
    name, frames = sample["source"].split(" frames ")
    frames = [int(number) - 1 for number in frames.strip("[]").split(",")]
    sequence = next(s for s in annotated.sequences if s.name == name)
    image = read_image_rgb(sequence.frames[frames[1]])
    box = sequence.boxes_xywh[frames[1]]
    assert np.array_equal(sample["search"][0].permute(1, 2, 0).numpy(), crops.crop(image, box, 5.0, 64))
    # a box on the crop's centre: (side - 1) / 2 in the published convention
    centre = sample["boxes_xywh"][0, :2] + sample["boxes_xywh"][0, 2:] / 2
    assert torch.allclose(centre, torch.tensor(31.5 / 64), atol=1e-6)
    assert sample["template"].shape == (3, 32, 32) and sample["template"].dtype == torch.uint8
    labels = [sequence.labels.flags[frame] for frame in frames[1:]]
    for label, flags in zip(sample["labels"].tolist(), labels, strict=True):
        assert (label == 9 and not flags.any()) or flags[label]


def test_flip_mirrors_image_and_box_alike():
    image = np.zeros((64, 64, 3), np.uint8)
    image[10:20, 5:25] = 255  # pixels 5..24, rows 10..19
    box = np.array([[(5 - 0.5) / 64, 9.5 / 64, 20 / 64, 10 / 64]], np.float32)  # centre at pixel 14.5 - 0.5, 14.5 - 0.5
    flip = Augmentation(grey=0, flip=1, brightness=0)
    (flipped,), moved = flip([image], box, np.random.default_rng(0))
    assert np.array_equal(flipped, image[:, ::-1])
    again = flip([flipped], moved, np.random.default_rng(0))[1]
    assert np.allclose(again, box, atol=1e-7)
    columns = np.flatnonzero(flipped[15, :, 0])
    centre = (moved[0, 0] + moved[0, 2] / 2) * 64
    assert abs(centre - columns.mean()) <= 0.51


def test_brightness_and_grey_change_pixels_as_named():
    image = np.full((8, 8, 3), (100, 50, 200), np.uint8)
    bright = Augmentation(grey=0, flip=0, brightness=0.2)
    values = {int(bright([image], np.zeros((1, 4)), np.random.default_rng(seed))[0][0][0, 0, 0]) for seed in range(60)}
    assert min(values) >= 80 and max(values) <= 120 and max(values) - min(values) > 25
    (grey,), _ = Augmentation(grey=1, flip=0, brightness=0)([image], np.zeros((1, 4)), np.random.default_rng(0))
    assert (grey == grey[..., :1]).all()


def test_jitter_stays_within_its_reach():
    augmentation, rng = Augmentation(scale_jitter=0, centre_jitter=4.5), np.random.default_rng(0)
    boxes = np.array([augmentation.jitter((100, 100, 40, 10), rng) for _ in range(500)])
    shift = np.abs(boxes[:, :2] + boxes[:, 2:] / 2 - (120, 105))
    assert np.allclose(boxes[:, 2:], (40, 10)) and shift.max() <= 2.25 * 20 and shift.max() > 0.9 * 2.25 * 20


def test_a_clip_depends_on_epoch_and_index_alone(annotated):
    dataset = clips(annotated, search_frames=2)
    first, other = dataset[(1, 5)], dataset[(1, 6)]
    dataset[(0, 0)]
    again = dataset[(1, 5)]
    assert torch.equal(first["search"], again["search"]) and first["source"] == again["source"]
    assert not torch.equal(first["search"], other["search"])
    assert not torch.equal(first["search"], dataset[(2, 5)]["search"])


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_give_the_same_batches(annotated, workers):
    dataset = clips(annotated, search_frames=2)
    loader = make_loader(dataset, ShardedBatches(3, 4, 0, 1, 1), workers, 0)
    found = [batch["source"] for batch in loader]
    shut_down(loader)
    assert found == [[dataset[(0, step * 4 + row)]["source"] for row in range(4)] for step in range(3)]


@pytest.mark.parametrize("processes, passes", [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2)])
def test_a_global_batch_holds_the_same_clips_however_divided(processes, passes):
    shards = [ShardedBatches(5, 8, rank, processes, passes) for rank in range(processes)]
    for shard in shards:
        shard.start_at(3, 2)
    keys = [list(shard) for shard in shards]
    for step in range(3):
        rows = {key for own in keys for part in own[step * passes : (step + 1) * passes] for key in part}
        assert rows == {(3, index) for index in range((step + 2) * 8, (step + 3) * 8)}


def test_data_sets_are_mixed_by_ratio(synthetic):
    parts = [FolderDataset(str(synthetic), split) for split in ("train", "val")]
    data = ClipData(parts, [3.0, 1.0], CausalSampler(1), PLAIN)
    dataset = ClipDataset(data, GEOMETRY, 0, 0)
    sources = [dataset[(0, index)]["source"] for index in range(200)]
    assert 130 <= sum("synth_train" in source for source in sources) <= 170
    assert dataset[(0, 0)]["labels"].tolist() == [-1]
    with pytest.raises(ConfigError, match="one ratio"):
        ClipData(parts, [1.0])


def test_clips_that_show_nothing_are_redrawn_a_bounded_number_of_times(annotated):
    far_away = Augmentation(centre_jitter=1e6)
    assert isinstance(clips(annotated, far_away)[(0, 0)], DataError)
    assert "could not be used: the crop shows nothing" in str(clips(annotated, far_away)[(0, 0)])


def test_a_split_of_first_boxes_cannot_be_trained_on(tmp_path):
    folder = tmp_path / "test" / "one"
    folder.mkdir(parents=True)
    import cv2

    for number in (1, 2, 3):
        cv2.imwrite(str(folder / f"{number:08d}.jpg"), np.zeros((40, 40, 3), np.uint8))
    (folder / "groundtruth.txt").write_text("1,1,10,10\n")
    with pytest.raises(DataError, match="none of its 1 sequences has two visible frames"):
        clips(FolderDataset(str(tmp_path), "test"))
