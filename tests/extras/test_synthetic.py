"""Synthetic sequences: files, labels, pictures, and what happens to folders that are there already."""

import copy
import json
import os
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest

from hiptrack.data.folders import FolderDataset
from hiptrack.data.labels import CLASSES, CV_FLAGS, VLM_FLAGS, draw_fixed
from hiptrack.errors import DataError
from hiptrack.extras.world import sea_motion as plan
from hiptrack.extras.world.sea_files import dataset_scene, write_dataset
from hiptrack.extras.world.sea_scene import flags, render

SIZE = (160, 120)
FRAMES = 20


def files_of(root):
    """Relative path -> checksum of every file below a folder."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, root)] = zlib.crc32(file.read())
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A data set of 18 sequences: about four spans of each challenge."""
    root = tmp_path_factory.mktemp("synthetic")
    write_dataset(str(root), "train", 18, FRAMES, SIZE, seed=3)
    return root


@pytest.fixture(scope="module")
def sequences(written):
    return FolderDataset(str(written), "train", annotations=str(written / "annotations")).sequences


def test_same_seed_same_bytes_whatever_the_number_of_sequences(written, tmp_path):
    write_dataset(str(tmp_path), "train", 2, FRAMES, SIZE, seed=3)
    again, whole = files_of(tmp_path), files_of(written)
    own = {"train/list.txt", "train/synthetic.json"}
    assert len(again) == 2 * (FRAMES + 6) + 2
    assert {path: whole[path] for path in again if path not in own} == {
        path: value for path, value in again.items() if path not in own
    }


def test_seed_and_split_change_the_pictures():
    pictures = [
        render(dataset_scene(split, index, FRAMES, SIZE, seed), 0)[0]
        for split, index, seed in (("train", 0, 3), ("train", 0, 4), ("val", 0, 3), ("train", 1, 3))
    ]
    for i, first in enumerate(pictures):
        for second in pictures[:i]:
            assert np.abs(first.astype(int) - second).mean() > 5


def test_layout(written):
    names = (written / "train" / "list.txt").read_text().split()
    assert names == [f"synth_train_{i:04d}" for i in range(1, 19)]
    assert sorted(os.listdir(written)) == ["annotations", "train"]
    assert sorted(os.listdir(written / "annotations")) == names
    for name in names:
        folder = written / "train" / name
        images = [f"{i:08d}.jpg" for i in range(1, FRAMES + 1)]
        texts = ["absence.label", "cover.label", "cut_by_image.label", "groundtruth.txt", "meta_info.ini"]
        assert sorted(os.listdir(folder)) == images + texts
        for text in texts[:4]:
            assert len((folder / text).read_text().splitlines()) == FRAMES
        assert (folder / "meta_info.ini").read_text().startswith("[METAINFO]\nurl: ")
        assert cv2.imread(str(folder / images[-1])).shape == (SIZE[1], SIZE[0], 3)


def test_annotations_have_every_field_and_the_box_of_the_ground_truth(written):
    for name in (written / "train" / "list.txt").read_text().split():
        truth = np.loadtxt(written / "train" / name / "groundtruth.txt", delimiter=",")
        lines = (written / "annotations" / name / f"{name}.jsonl").read_text().splitlines()
        assert len(lines) == FRAMES
        for number, (line, (x, y, w, h)) in enumerate(zip(lines, truth, strict=True), 1):
            record = json.loads(line)
            assert list(record) == [
                "sequence_name", "frame_id", "frame_file", "cv_response", "vlm_response", "ground_truth_bbox"
            ]  # fmt: skip
            assert record["sequence_name"] == name
            assert (record["frame_id"], record["frame_file"]) == (number, f"{number:08d}.jpg")
            assert set(record["cv_response"]) == set(CV_FLAGS) and set(record["vlm_response"]) == set(VLM_FLAGS)
            assert record["ground_truth_bbox"] == pytest.approx((x, y, x + w, y + h), abs=2e-4)


def test_boxes_lie_inside_the_image_and_labels_fit_them(written, sequences):
    for sequence in sequences:
        folder = written / "train" / sequence.name
        absent, cut = (np.loadtxt(folder / f"{kind}.label", dtype=int) for kind in ("absence", "cut_by_image"))
        x, y, w, h = sequence.boxes_xywh.T
        assert np.isfinite(sequence.boxes_xywh).all() and (w > 2).all() and (h > 2).all()
        assert (x >= 0).all() and (y >= 0).all() and (x + w <= SIZE[0] + 1e-3).all() and (y + h <= SIZE[1] + 1e-3).all()
        assert ((sequence.cover >= 0) & (sequence.cover <= 8)).all()
        assert np.array_equal(absent == 1, sequence.cover == 0)
        at_edge = (x < 1e-3) | (y < 1e-3) | (x + w > SIZE[0] - 1e-3) | (y + h > SIZE[1] - 1e-3)
        assert np.array_equal(cut == 1, at_edge)
        partial = sequence.labels.flags[:, CLASSES.index("partial_visibility")]
        occluded = sequence.labels.flags[:, CLASSES.index("occlusion")]
        assert (cut[partial] == 1).all()
        assert (sequence.cover[~partial & ~occluded] >= 6).all()
        assert (sequence.cover[occluded] <= 7).all()


def test_all_ten_classes_occur_about_equally_often(sequences):
    drawn = [draw_fixed(item.labels, item.name, frame) for item in sequences for frame in range(len(item))]
    shares = np.bincount(drawn, minlength=len(CLASSES)) / len(drawn)
    assert len(shares) == len(CLASSES) and shares.min() > 0.03 and shares.max() < 0.3


def test_first_frame_shows_the_target_unchallenged(sequences):
    for sequence in sequences:
        assert sequence.cover[0] == 8 and not sequence.labels.flags[0].any()


def test_box_is_tight_around_the_target_where_nothing_disturbs_it():
    for index in range(6):
        scene = dataset_scene("train", index, FRAMES, SIZE, 3)
        box = scene.motion.boxes[0]
        x1, y1, x2 = box[:3]
        with_it, inside, visible = render(scene, 0)
        without, *_ = render(scene, 0, with_target=False)
        assert inside == pytest.approx(1) and visible == pytest.approx(1, abs=0.1)
        changed = np.abs(with_it.astype(int) - without).max(2) > 12
        left, top, right, bottom = np.round(box).astype(int)
        assert changed[top:bottom, left:right].mean() > 0.15
        assert not changed[: max(top - 1, 0)].any()  # above: neither wake nor target
        rows, columns = np.nonzero(changed[:bottom])
        assert rows.min() == pytest.approx(y1, abs=2) and columns.min() <= x1 + 2 and columns.max() >= x2 - 3


def without(scene, challenge, frame):
    """The scene with one challenge taken out of one frame's picture."""
    effects, others = copy.deepcopy(scene.effects), scene.motion.others
    if challenge == plan.OCCLUSION:
        effects.occluders[frame] = None
    elif challenge == plan.ILLUMINATION:
        effects.gain[frame], effects.lift[frame], effects.glare[frame] = 1, 0, 0
    elif challenge == plan.SCALE:
        effects.spray[frame] = np.nan
    elif challenge == plan.BLUR:
        effects.blur[frame] = 0
    elif challenge == plan.APPEARANCE:
        effects.dressed[frame] = False
    elif challenge == plan.LOW_RESOLUTION:
        effects.cells[frame] = 0
    elif challenge == plan.CLUTTER:
        others = [actor for actor in others if actor.active.all()]
    elif challenge == plan.LOW_CONTRAST:
        effects.opacity[frame], effects.haze[frame] = 1, 0
    return replace(scene, effects=effects, motion=replace(scene.motion, others=others))


@pytest.mark.parametrize("challenge", [i for i in range(9) if i != plan.PARTIAL], ids=lambda i: CLASSES[i])
def test_challenge_changes_the_picture_around_the_target(challenge):
    changes, flagged = [], []
    for index in range(24):
        scene = dataset_scene("val", index, FRAMES, SIZE, 0)
        for span in scene.spans:
            if span.challenge == challenge:
                frame = (span.start + span.stop) // 2
                picture, inside, visible = render(scene, frame)
                flagged.append(flags(scene, frame, inside, visible)[challenge])
                x1, y1, x2, y2 = scene.motion.boxes[frame]
                near = np.s_[max(int(2 * y1 - y2), 0) : int(2 * y2 - y1), max(int(2 * x1 - x2), 0) : int(2 * x2 - x1)]
                plain = render(without(scene, challenge, frame), frame)[0]
                changes.append(np.abs(picture[near].astype(int) - plain[near]).mean())
    assert len(changes) >= 3 and np.mean(flagged) > 0.9
    assert np.median(changes) > 4


def test_size_changes_fast_in_scale_spans_alone():
    for index in range(12):
        scene = dataset_scene("val", index, FRAMES, SIZE, 0)
        growth = np.abs(np.diff(np.log(scene.motion.sizes)))
        fast = np.zeros(FRAMES, bool)
        for span in scene.spans:
            fast[span.start : span.stop] |= span.challenge == plan.SCALE
        assert (growth[fast[1:]] > 0.02).all() and (growth[~fast[1:]] < 0.01).all()


def test_target_leaves_the_image_in_partial_visibility_spans():
    outside = []
    for index in range(24):
        scene = dataset_scene("val", index, FRAMES, SIZE, 0)
        for span in scene.spans:
            if span.challenge == plan.PARTIAL and span.start > 8:
                outside.append(1 - render(scene, span.stop - 1)[1])
    assert len(outside) >= 2 and 0.2 < np.median(outside) < 0.8


def test_target_moves_and_stays_in_the_search_region():
    steps = []
    for index in range(12):
        boxes = np.clip(dataset_scene("val", index, 60, (320, 240), 0).motion.boxes, 0, (320, 240, 320, 240))
        centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
        reach = 2 * sides[:-1, None]  # half of a search region of four times the target's size
        assert (boxes[1:, :2] >= centres[:-1] - reach).all() and (boxes[1:, 2:] <= centres[:-1] + reach).all()
        steps.extend(np.linalg.norm(np.diff(centres, axis=0), axis=1) / sides[:-1])
    assert 0.05 < np.median(steps) < 0.3 and np.max(steps) < 0.7


def test_written_split_is_left_alone(written):
    before = {path: os.stat(written / path).st_mtime_ns for path in files_of(written)}
    write_dataset(str(written), "train", 18, FRAMES, SIZE, seed=3)
    assert before == {path: os.stat(written / path).st_mtime_ns for path in files_of(written)}


def test_other_parameters_and_foreign_folders_are_errors_and_stay_untouched(tmp_path):
    write_dataset(str(tmp_path), "train", 1, 2, SIZE, seed=0)
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "mine.txt").write_text("mine")
    before = files_of(tmp_path)
    with pytest.raises(DataError, match="other parameters"):
        write_dataset(str(tmp_path), "train", 2, 2, SIZE, seed=0)
    with pytest.raises(DataError, match="not written by this generator"):
        write_dataset(str(tmp_path), "val", 1, 2, SIZE, seed=0)
    assert files_of(tmp_path) == before


def test_interrupted_call_leaves_no_split_and_is_made_up_for(tmp_path, monkeypatch):
    calls = []

    def fail_later(path, picture):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device", path)

    with monkeypatch.context() as patch:
        patch.setattr("hiptrack.extras.world.sea_files._write_jpeg", fail_later)
        with pytest.raises(DataError, match="No space left on device"):
            write_dataset(str(tmp_path / "a"), "train", 2, 2, SIZE, seed=0)
    assert not (tmp_path / "a" / "train").exists()
    write_dataset(str(tmp_path / "a"), "train", 2, 2, SIZE, seed=0)
    write_dataset(str(tmp_path / "b"), "train", 2, 2, SIZE, seed=0)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


@pytest.mark.parametrize(
    "change",
    [
        {"split": "../x"},
        {"split": "annotations"},
        {"sequences": 0},
        {"frames": 1},
        {"size": (320, 20)},
        {"seed": -1},
    ],
    ids=str,
)
def test_parameters_out_of_range(tmp_path, change):
    with pytest.raises(DataError):
        write_dataset(
            **{"out": str(tmp_path), "split": "s", "sequences": 1, "frames": 2, "size": SIZE, "seed": 0} | change
        )
    assert not os.listdir(tmp_path)
