"""Scenes of the world as files: GOT-10k's layout, boxes and labels that fit, and folders that are there already."""

import json
import os
import zlib

import cv2
import numpy as np
import pytest

from hiptrack.data.folders import FolderDataset
from hiptrack.errors import DataError
from hiptrack.extras.world.files import write_world
from hiptrack.taxonomy import CLASSES, CV, VLM

SIZE = (160, 120)
FRAMES = 12
SEQUENCES = 6


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
    root = tmp_path_factory.mktemp("written")
    write_world(str(root), "train", SEQUENCES, FRAMES, SIZE, 3, sea=0.5)
    return root


@pytest.fixture(scope="module")
def sequences(written):
    return FolderDataset(str(written), "train", annotations=str(written / "annotations")).sequences


def test_same_seed_same_bytes_whatever_the_number_of_sequences(written, tmp_path):
    write_world(str(tmp_path), "train", 2, FRAMES, SIZE, 3, sea=0.5)
    again, whole = files_of(tmp_path), files_of(written)
    own = {"train/list.txt", "train/synthetic.json"}
    assert len(again) == 2 * (FRAMES + 6) + 2
    assert {path: whole[path] for path in again if path not in own} == {
        path: value for path, value in again.items() if path not in own
    }


@pytest.mark.parametrize("change", [{"seed": 4}, {"split": "val"}, {"sea": 0.0}], ids=str)
def test_seed_split_and_sea_change_the_pictures(tmp_path, change):
    asked = {"split": "train", "sequences": 1, "frames": 2, "size": SIZE, "seed": 3, "sea": 1.0}
    write_world(str(tmp_path / "a"), **asked)
    write_world(str(tmp_path / "b"), **asked | change)
    first, second = (cv2.imread(str(next((tmp_path / name).rglob("00000001.jpg")))) for name in "ab")
    assert np.abs(first.astype(int) - second).mean() > 5


def test_layout(written):
    names = (written / "train" / "list.txt").read_text().split()
    assert names == [f"world_train_{i:04d}" for i in range(1, SEQUENCES + 1)]
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
            assert (record["sequence_name"], record["frame_id"]) == (name, number)
            assert record["frame_file"] == f"{number:08d}.jpg"
            assert set(record["cv_response"]) == set(CV) and set(record["vlm_response"]) == set(VLM)
            assert record["ground_truth_bbox"] == pytest.approx((x, y, x + w, y + h), abs=2e-4)


def test_boxes_lie_inside_the_image_and_labels_fit_them(written, sequences):
    for sequence in sequences:
        folder = written / "train" / sequence.name
        absent, cut = (np.loadtxt(folder / f"{kind}.label", dtype=int) for kind in ("absence", "cut_by_image"))
        x, y, w, h = sequence.boxes_xywh.T
        assert (x >= 0).all() and (y >= 0).all() and (x + w <= SIZE[0] + 1e-3).all() and (y + h <= SIZE[1] + 1e-3).all()
        assert sequence.visible[0] and sequence.cover[0] >= 5
        assert ((sequence.cover >= 0) & (sequence.cover <= 8)).all()
        assert np.array_equal(absent == 1, sequence.cover == 0)
        at_edge = (x < 1e-3) | (y < 1e-3) | (x + w > SIZE[0] - 1e-3) | (y + h > SIZE[1] - 1e-3)
        assert np.array_equal(cut == 1, at_edge)
        assert (cut[sequence.labels.flags[:, CLASSES.index("partial_visibility")]] == 1).all()


def test_written_split_is_left_alone(written):
    before = {path: os.stat(written / path).st_mtime_ns for path in files_of(written)}
    write_world(str(written), "train", SEQUENCES, FRAMES, SIZE, 3, sea=0.5)
    assert before == {path: os.stat(written / path).st_mtime_ns for path in files_of(written)}


def test_other_parameters_and_foreign_folders_are_errors_and_stay_untouched(tmp_path):
    write_world(str(tmp_path), "train", 1, 2, SIZE, 0)
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "mine.txt").write_text("mine")
    before = files_of(tmp_path)
    for change in ({"sequences": 2}, {"sea": 1.0}):
        with pytest.raises(DataError, match="other parameters"):
            write_world(
                str(tmp_path), **{"split": "train", "sequences": 1, "frames": 2, "size": SIZE, "seed": 0} | change
            )
    with pytest.raises(DataError, match="not written by this generator"):
        write_world(str(tmp_path), "val", 1, 2, SIZE, 0)
    assert files_of(tmp_path) == before


def test_interrupted_call_leaves_no_split_and_is_made_up_for(tmp_path, monkeypatch):
    calls = []

    def fail_later(path, picture):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device", path)

    with monkeypatch.context() as patch:
        patch.setattr("hiptrack.extras.world.files._write_jpeg", fail_later)
        with pytest.raises(DataError, match="No space left on device"):
            write_world(str(tmp_path / "a"), "train", 2, 2, SIZE, 0)
    assert not (tmp_path / "a" / "train").exists()
    write_world(str(tmp_path / "a"), "train", 2, 2, SIZE, 0)
    write_world(str(tmp_path / "b"), "train", 2, 2, SIZE, 0)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


@pytest.mark.parametrize(
    "change",
    [
        {"split": "../x"},
        {"split": "annotations"},
        {"sequences": 0},
        {"frames": 1},
        {"size": (320, 20)},
        {"size": (10**6, 10**6)},
        {"frames": 10**12},
        {"sequences": 10**12},
        {"seed": 10**30},
        {"seed": -1},
        {"sea": 1.5},
        {"sea": float("nan")},
    ],
    ids=str,
)
def test_parameters_out_of_range(tmp_path, change):
    asked = {"split": "s", "sequences": 1, "frames": 2, "size": SIZE, "seed": 0}
    with pytest.raises(DataError, match="synthetic"):
        write_world(str(tmp_path), **asked | change)
    assert not os.listdir(tmp_path)
