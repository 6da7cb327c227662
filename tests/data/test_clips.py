"""Training clips: frames, crops, augmentation, and their division over processes and workers."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hiptrack import crops
from hiptrack.data import clips as clips_module
from hiptrack.data.clips import ClipData, ClipDataset, Geometry
from hiptrack.data.crop_reading import read_crops
from hiptrack.data.folders import FolderDataset
from hiptrack.data.loader import ShardedBatches, make_loader, shut_down
from hiptrack.data.reading import read_image_rgb
from hiptrack.data.sampling import Augmentation, CausalSampler, RandomIntervalSampler
from hiptrack.errors import ConfigError, DataError

GEOMETRY = Geometry(32, 64, 2.0, 5.0)
PLAIN = Augmentation(grey=0, flip=0, brightness=0, scale_jitter=0, centre_jitter=0)


@pytest.fixture
def annotated(synthetic):
    return FolderDataset(str(synthetic), "train", str(synthetic / "annotations"))


@pytest.fixture
def breakable(synthetic, tmp_path):
    """The training split, in a folder whose files may be damaged."""
    shutil.copytree(synthetic / "train", tmp_path / "train")
    return FolderDataset(str(tmp_path), "train", str(synthetic / "annotations"))


def damage(dataset, numbers):
    """Damage the frames of these numbers (from 1) in every sequence, each in another way; returns their paths."""
    paths = [Path(s.frames[number - 1]) for s in dataset.sequences for number in numbers]
    for path in paths[::3]:
        path.unlink()
    for path in paths[1::3]:
        path.write_bytes(path.read_bytes()[:700])
    for path in paths[2::3]:
        path.write_bytes(b"")
    return [str(path) for path in paths]


def files_of(sample, dataset):
    """Paths of a sample's frames in the order they are read."""
    name, frames = sample["source"].split(" frames ")
    sequence = next(s for s in dataset.sequences if s.name == name)
    return [sequence.frames[int(number) - 1] for number in frames.strip("[]").split(",")]


def assert_same(sample, other):
    assert sample.keys() == other.keys()
    for key, value in sample.items():
        assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key], key


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


@pytest.mark.parametrize("length, gap", [(300, 200), (300, 20), (12, 200), (6, 3)])
def test_random_interval_sampler_takes_different_visible_frames_near_the_template_in_any_order(length, gap):
    before = in_order = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        visible = rng.random(length) < 0.7
        visible[[0, length // 2]] = True
        template, search = RandomIntervalSampler(3, gap)(visible, rng)
        assert len(search) == 3 and visible[[template, *search]].all() and template not in search
        others = np.setdiff1d(np.flatnonzero(visible), [template])
        distance = np.sort(np.abs(others - template))
        if len(others) >= 3:
            assert len(set(search)) == 3 and np.abs(np.array(search) - template).max() <= max(gap, distance[2])
        before += search[0] < template
        in_order += sorted(search) == search
    assert 60 < before < 140
    if length == 300:
        assert in_order < 60  # one in six


def test_random_interval_sampler_reaches_each_frame_within_the_gap_alike():
    visible = np.zeros(101, bool)
    visible[[0, 40, 50, 60, 100]] = True
    rng = np.random.default_rng(0)
    draws = [RandomIntervalSampler(1, 50)(visible, rng) for _ in range(2000)]
    from_the_middle = [search[0] for template, search in draws if template == 50]
    counts = [from_the_middle.count(frame) / len(from_the_middle) for frame in (0, 40, 60, 100)]
    assert len(from_the_middle) > 300 and all(0.18 < count < 0.32 for count in counts)
    assert {search[0] for template, search in draws if template == 0} == {40, 50}


@pytest.mark.parametrize("where", [[0, 1], [0, 299]])
def test_random_interval_sampler_repeats_a_frame_where_there_is_no_other(where):
    visible = np.zeros(300, bool)
    visible[where] = True
    template, search = RandomIntervalSampler(5, 20)(visible, np.random.default_rng(0))
    assert {template} | set(search) == set(where) and len(set(search)) == 1 and len(search) == 5


def test_plain_clip_is_the_crop_of_the_frames_it_names(annotated):
    dataset = clips(annotated, PLAIN, search_frames=2)
    dataset.data.reduced_decoding = False
    sample = dataset[(0, 3)]
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
    assert 130 <= sum("world_train" in source for source in sources) <= 170
    assert dataset[(0, 0)]["labels"].tolist() == [-1]
    with pytest.raises(ConfigError, match="one ratio"):
        ClipData(parts, [1.0])


def test_a_clip_with_an_unreadable_frame_is_drawn_again_and_all_others_stay_the_same(breakable, monkeypatch):
    dataset = clips(breakable, search_frames=2)
    clean = [dataset[(0, index)] for index in range(60)]
    assert not any(sample["rejected"] for sample in clean)
    bad = damage(breakable, [4, 9])
    failed = []

    def read(path, *wanted):
        if path in bad:
            failed.append(path)
        return read_crops(path, *wanted)

    monkeypatch.setattr(clips_module, "read_crops", read)
    redrawn = 0
    for index, before in enumerate(clean):
        failed.clear()
        sample = dataset[(0, index)]
        first_bad = next((path for path in files_of(before, breakable) if path in bad), None)
        if first_bad is None:
            assert_same(sample, before)
            continue
        redrawn += 1
        assert failed[0] == first_bad and not set(files_of(sample, breakable)) & set(bad)
        for draw, path in zip(sample["rejected"], failed, strict=True):
            assert draw.pop("error").startswith(f"{path}: the image ")
            assert draw == {"reason": "unreadable image", "sequence": Path(path).parent.name, "file": path}
        sample = dataset[(0, index)]
        assert_same(dataset[(0, index)], sample)
    assert 10 < redrawn < 50


def test_a_frame_that_opencv_fails_on_is_drawn_again(annotated, monkeypatch):
    dataset = clips(annotated)
    name, first = dataset[(0, 0)]["source"].split(" frames ")[0], files_of(dataset[(0, 0)], annotated)[0]

    def fail_once(*wanted):
        monkeypatch.setattr(clips_module, "read_crops", read_crops)
        raise cv2.error("no such thing")

    monkeypatch.setattr(clips_module, "read_crops", fail_once)
    draw = {"reason": "unreadable image", "sequence": name, "file": first, "error": "no such thing"}
    assert dataset[(0, 0)]["rejected"] == [draw]


def test_crops_that_show_nothing_are_drawn_again(annotated):
    dataset = clips(annotated, Augmentation(centre_jitter=12), search_frames=1)
    rejected = [draw for index in range(20) for draw in dataset[(0, index)]["rejected"]]
    names = {s.name for s in annotated.sequences}
    assert rejected and all(draw.pop("sequence") in names for draw in rejected)
    assert all(draw == {"reason": "empty crop", "file": None, "error": None} for draw in rejected)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_give_the_same_batches_and_list_the_rejected_draws(breakable, workers):
    dataset = clips(breakable, search_frames=2)
    damage(breakable, [2, 4, 6, 8, 10, 12])
    loader = make_loader(dataset, ShardedBatches(3, 4, 0, 1, 1), workers, 0, timeout=60)
    batches = list(loader)
    shut_down(loader)
    for step, batch in enumerate(batches):
        samples = [dataset[(0, step * 4 + row)] for row in range(4)]
        assert batch["source"] == [sample["source"] for sample in samples]
        assert batch["rejected"] == [draw for sample in samples for draw in sample["rejected"]] != []
    assert len(batches) == 3


def test_draws_are_bounded_and_the_error_counts_them_by_reason(breakable):
    far_away = clips(breakable, Augmentation(centre_jitter=1e6))
    assert isinstance(far_away[(0, 0)], DataError)
    assert re.search(r"could not be used: 50 x empty crop \(for example in world_train_\w+\)\. ", str(far_away[(0, 0)]))
    bad = damage(breakable, [1, 2, 3, 4, 5, 6, 7])
    found = re.search(
        r"could not be used: (?=.*?(\d+) x empty crop \(for example in world_train_\w+\))"
        r"(?=.*?(\d+) x unreadable image \(for example in (\w+), (.+?): the image .+?)",
        str(far_away[(0, 0)]),
    )
    empty, unreadable, name, file = found.groups()
    assert int(empty) > 5 and int(unreadable) > 5 and int(empty) + int(unreadable) == 50
    assert file in bad and Path(file).parent.name == name


def test_a_split_of_first_boxes_cannot_be_trained_on(tmp_path):
    folder = tmp_path / "test" / "one"
    folder.mkdir(parents=True)
    for number in (1, 2, 3):
        cv2.imwrite(str(folder / f"{number:08d}.jpg"), np.zeros((40, 40, 3), np.uint8))
    (folder / "groundtruth.txt").write_text("1,1,10,10\n")
    with pytest.raises(DataError, match="none of its 1 sequences has two visible frames"):
        clips(FolderDataset(str(tmp_path), "test"))
