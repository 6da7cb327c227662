import logging
import os
import re

import cv2
import numpy as np
import pytest
from helpers_data import (
    CLIPS,
    annotation,
    write_annotations,
    write_image,
    write_lines,
    write_sequence,
    write_split,
)

from hiptrack.data.folders import FolderDataset
from hiptrack.data.listing import image_names
from hiptrack.data.reading import read_image_rgb
from hiptrack.errors import DataError

BOXES = [(1, 2, 10, 8), (2, 2, 10, 8), (3, 2, 10.5, 8)]


@pytest.fixture
def root(tmp_path):
    """A data set with the split train of three sequences."""
    write_split(tmp_path / "data" / "train", {"c": BOXES, "a": BOXES, "b10": BOXES})
    return tmp_path / "data"


def load_one(folder, **options):
    return FolderDataset(str(folder), **options).sequences[0]


def failure(root, **options):
    with pytest.raises(DataError) as error:
        _ = FolderDataset(str(root), **options).sequences
    return str(error.value)


# What is read


def test_split_in_the_order_of_its_list(root):
    dataset = FolderDataset(str(root), "train")
    assert [s.name for s in dataset.sequences] == ["c", "a", "b10"]
    assert dataset.name == "data-train"
    sequence = dataset.sequences[0]
    assert len(sequence) == 3
    assert sequence.boxes_xywh.dtype == np.float64
    assert sequence.boxes_xywh.tolist() == [list(box) for box in BOXES]
    assert sequence.visible.tolist() == [True] * 3
    assert sequence.cover.tolist() == [8] * 3
    assert sequence.labels is None
    assert sequence.frames[0] == str(root / "train" / "c" / "00000001.jpg")
    assert dataset.labelled_frames == 0
    assert dataset.describe() == "data-train: 3 sequences, 9 frames, 0 labelled"


def test_without_list_all_folders_in_natural_order_and_it_is_said(tmp_path, caplog):
    write_split(tmp_path, {"seq10": BOXES, "seq9": BOXES, "Seq1": BOXES}, listed=False)
    (tmp_path / ".hidden").mkdir()
    with caplog.at_level(logging.INFO):
        names = [s.name for s in FolderDataset(str(tmp_path)).sequences]
    assert names == ["Seq1", "seq9", "seq10"]
    assert "no list.txt, taking all 3 folders in natural order" in caplog.text


def test_folders_that_the_list_does_not_name_are_left_out(root):
    write_sequence(root / "train" / "unlisted", BOXES)
    assert len(FolderDataset(str(root), "train").sequences) == 3


def test_images_in_natural_order_whatever_their_names(tmp_path):
    names = ["frame1.jpg", "frame2.JPG", "frame9.png", "frame10.jpeg", "frame011.BMP", "frame100.jpg"]
    for name in reversed(names):
        write_image(tmp_path / name)
    write_lines(tmp_path / "groundtruth.txt", ["1,1,2,2"])
    write_lines(tmp_path / "notes.txt", ["not an image"])
    write_lines(tmp_path / "._frame1.jpg", ["not an image"])
    assert image_names(str(tmp_path)) == names


@pytest.mark.parametrize("line", ["1.5,2,10,8", "1.5, 2, 10, 8", "1.5\t2\t10\t8", "  1.5 2  10 8 ", "15e-1,2,1e1,8\r"])
def test_delimiters_of_the_ground_truth(tmp_path, line):
    write_sequence(tmp_path / "a", BOXES)
    (tmp_path / "a" / "groundtruth.txt").write_text(f"{line}\n1,2,3,4\n1,2,3,4\n\n")
    assert load_one(tmp_path).boxes_xywh[0].tolist() == [1.5, 2, 10, 8]


def test_label_files_decide_visibility(tmp_path):
    boxes = [*BOXES, (0, 0, 0, 0), (1, 1, 5, 5)]
    write_sequence(tmp_path / "a", boxes, absence=[0, 0, 0, 1, 0], cover=[8, 0, 3, 0, 8], cut_by_image=[0, 0, 1, 0, 0])
    sequence = load_one(tmp_path)
    assert sequence.visible.tolist() == [True, False, True, False, True]
    assert sequence.cover.tolist() == [8, 0, 3, 0, 8]


def test_without_label_files_a_box_without_area_is_not_visible(tmp_path):
    write_sequence(tmp_path / "a", [*BOXES, (0, 0, 0, 0)])
    assert load_one(tmp_path).visible.tolist() == [True, True, True, False]


def test_test_split_may_hold_the_first_box_alone(tmp_path):
    write_split(tmp_path / "test", {"a": BOXES, "b": BOXES})
    write_lines(tmp_path / "test" / "a" / "groundtruth.txt", ["1,2,10,8"])
    first, second = FolderDataset(str(tmp_path), "test").sequences
    assert first.boxes_xywh.tolist() == [[1, 2, 10, 8]]
    assert first.visible.tolist() == [True, False, False]
    assert len(first) == len(first.cover) == 3
    assert second.boxes_xywh.shape == (3, 4)


def test_include_and_exclude_by_name(root):
    def names(**options):
        return [s.name for s in FolderDataset(str(root), "train", **options).sequences]

    assert names(include=["b10", "c"]) == ["c", "b10"]
    assert names(exclude=["a"]) == ["c", "b10"]
    assert names(include=["a", "c"], exclude=["a"]) == ["c"]


def test_excluded_sequences_are_not_even_read(root):
    os.remove(root / "train" / "a" / "groundtruth.txt")
    assert len(FolderDataset(str(root), "train", exclude=["a"]).sequences) == 2


def test_sequences_without_a_pair_of_visible_frames_are_counted(tmp_path):
    write_split(tmp_path, {"a": BOXES, "b": [BOXES[0]], "c": [BOXES[0], (0, 0, 0, 0)]})
    text = FolderDataset(str(tmp_path), name="mini").describe()
    assert text == "mini: 3 sequences, 6 frames, 0 labelled, 2 sequences with fewer than two visible frames"


def test_nothing_is_read_before_it_is_needed_and_then_once(root, monkeypatch):
    dataset = FolderDataset(str(root), "train")
    write_sequence(root / "train" / "c", BOXES)
    first = dataset.sequences
    monkeypatch.setattr("os.scandir", None)
    assert dataset.sequences is first


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not here")
def test_real_clips():
    dataset = FolderDataset(str(CLIPS), "val")
    assert dataset.missing_paths() == []
    assert len(dataset.sequences) == 8
    assert sum(len(s) for s in dataset.sequences) == 892
    assert dataset.labelled_frames == 0
    assert all(s.visible.all() and s.labels is None for s in dataset.sequences)
    image = read_image_rgb(dataset.sequences[0].frames[0])
    assert image.shape == (480, 854, 3)


# Annotations


def test_annotations_are_matched_and_sequences_without_a_file_are_unlabelled(root, tmp_path, caplog):
    write_annotations(tmp_path / "labels", "a", [annotation("a", 2, ["occlusion"]), annotation("a", 3)])
    dataset = FolderDataset(str(root), "train", annotations=str(tmp_path / "labels"))
    with caplog.at_level(logging.INFO):
        c, a, _ = dataset.sequences
    assert a.labels.annotated.tolist() == [False, True, True]
    assert a.labels.flags[1].tolist() == [True] + [False] * 8
    assert not c.labels.annotated.any()
    assert dataset.labelled_frames == 2
    assert "9 frames, 2 labelled" in dataset.describe()
    assert [r.levelname for r in caplog.records] == ["INFO"]
    assert "2 of 3 sequences have no annotation file" in caplog.text


def test_annotations_for_none_of_the_sequences_are_a_warning(root, tmp_path, caplog):
    write_annotations(tmp_path / "labels", "other", [annotation("other", 1)])
    assert FolderDataset(str(root), "train", annotations=str(tmp_path / "labels")).labelled_frames == 0
    assert [r.levelname for r in caplog.records] == ["WARNING"]


def test_malformed_annotation_stops_the_reading(root, tmp_path):
    path = write_annotations(tmp_path / "labels", "a", [annotation("a", 1), "no json"])
    assert failure(root, split="train", annotations=str(tmp_path / "labels")).startswith(f"{path}:2: not JSON")


def test_missing_annotation_folder(root, tmp_path):
    text = failure(root, split="train", annotations=str(tmp_path / "none"))
    assert text.startswith(f"{tmp_path / 'none'}: the annotation folder does not exist")


# What is missing or malformed


def test_missing_paths(root, tmp_path):
    none = str(tmp_path / "none")
    assert FolderDataset(str(root), "train").missing_paths() == []
    assert FolderDataset(none, "train").missing_paths() == [none]
    assert FolderDataset(str(root), "val").missing_paths() == [str(root / "val")]
    assert FolderDataset(none, annotations=none + "2").missing_paths() == [none, none + "2"]


def test_missing_root(tmp_path):
    assert failure(tmp_path / "none").startswith(f"{tmp_path / 'none'}: the data root does not exist")
    assert failure("").startswith("'': the data root does not exist")


def test_missing_split_names_the_nearest(root):
    text = failure(root, split="trian")
    assert text.startswith(f"{root / 'trian'}: there is no such folder")
    assert "'train'" in text


def test_root_of_splits_without_a_split_says_so(root):
    text = failure(root)
    assert text.startswith(f"{root / 'train'}: no images")
    assert "set FolderDataset.split" in text


@pytest.mark.parametrize(
    "lines, message",
    [
        (["c", "a", "", "b1"], ":4: names 'b1', but .*'b10'"),
        (["c", "x" * 100_000], ":2: names 'xxx"),
        (["../train/a"], ":1: names '../train/a'"),
        (["c", "a", "c"], ":3: names 'c' again, as line 1 does"),
    ],
)
def test_list_that_names_what_it_cannot(root, lines, message):
    write_lines(root / "train" / "list.txt", lines)
    text = failure(root, split="train")
    assert re.match(f"{root / 'train' / 'list.txt'}{message}", text) and len(text) < 500


@pytest.mark.parametrize("file", ["list.txt", "a/groundtruth.txt"])
def test_more_lines_than_any_video_has_frames(root, file):
    (root / "train" / file).write_text("0,0,1,1\n" * 10**6 + "0,0,1,1")
    assert f"{file}: it has more than 1000000 lines" in failure(root, split="train")


def test_empty_data_set(tmp_path):
    assert failure(tmp_path).startswith(f"{tmp_path}: the data set is empty")
    write_lines(tmp_path / "list.txt", [])
    assert failure(tmp_path).startswith(f"{tmp_path}: the data set is empty")


def test_nothing_left(root):
    assert "leave none of the 3 sequences" in failure(root, split="train", include=["a"], exclude=["a"])


def test_no_images(tmp_path):
    write_lines(tmp_path / "a" / "groundtruth.txt", ["1,2,3,4"])
    assert failure(tmp_path).startswith(f"{tmp_path / 'a'}: no images")


def test_missing_ground_truth(root):
    truth = root / "train" / "a" / "groundtruth.txt"
    os.remove(truth)
    assert failure(root, split="train").startswith(f"{truth}: not found")


@pytest.mark.parametrize(
    "split, count", [("train", 0), ("train", 1), ("train", 2), ("train", 4), ("test", 0), ("test", 2), ("test", 4)]
)
def test_unequal_counts_of_frames_and_boxes(tmp_path, split, count):
    write_split(tmp_path / split, {"a": BOXES})
    truth = tmp_path / split / "a" / "groundtruth.txt"
    write_lines(truth, ["1,2,3,4"] * count)
    text = failure(tmp_path, split=split)
    assert text.startswith(f"{truth}: {count} boxes for 3 images")
    assert ("'test'" in text) == (count == 1)


@pytest.mark.parametrize(
    "line",
    [
        "1,2,3",
        "1,2,3,4,5",
        "1,,3,4",
        "a,b,c,d",
        "",
        "1;2;3;4",
        "1_0,2,3,4",
        "1,2 3,4",
        "\u0661,2,3,4",
        "\uff11,2,3,4",
        "1\x0b2\x0b3\x0b4",
        "1,2,3,4\x85",
        "1,2,3,4\u2028",
        "1\xa02\xa03\xa04",
        "1,2,3,4\x0c",
    ],
)
def test_malformed_box(root, line):
    truth = root / "train" / "a" / "groundtruth.txt"
    write_lines(truth, ["1,2,3,4", line, "1,2,3,4"])
    assert failure(root, split="train").startswith(f"{truth}:2: {line!r} is not a box")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "1e9"])
def test_box_that_is_not_finite(root, value):
    truth = root / "train" / "a" / "groundtruth.txt"
    write_lines(truth, ["1,2,3,4", "1,2,3,4", f"1,2,{value},4"])
    text = failure(root, split="train")
    assert text.startswith(f"{truth}:3: the box ")
    assert "is not finite" in text


@pytest.mark.parametrize("box", [(1, 2, 0, 8), (1, 2, 10, 0), (1, 2, -3, 8), (1, 2, -3, -8)])
def test_box_without_area_in_a_frame_marked_visible(tmp_path, box):
    write_sequence(tmp_path / "a", [*BOXES, box], cover=[8, 8, 8, 8])
    assert f"{tmp_path / 'a' / 'groundtruth.txt'}:4: the box 1,2," in failure(tmp_path)
    write_lines(tmp_path / "a" / "absence.label", [0, 0, 0, 1])
    assert load_one(tmp_path).visible.tolist() == [True, True, True, False]


def test_negative_size_is_an_error_without_label_files_too(tmp_path):
    write_sequence(tmp_path / "a", [*BOXES, (5, 5, -2, 4)])
    assert "groundtruth.txt:4: the box 5,5,-2,4 has no area" in failure(tmp_path)


@pytest.mark.parametrize("labels", [{}, {"absence": [1, 0, 0]}])
def test_box_without_area_in_the_first_frame(tmp_path, labels):
    write_sequence(tmp_path / "a", [(1, 1, 0, 0), *BOXES[1:]], **labels)
    assert "groundtruth.txt:1: the box 1,1,0,0 has no area in the first frame" in failure(tmp_path)


@pytest.mark.parametrize(
    "label, bad", [("absence", "2"), ("absence", "0\x0b"), ("cover", "9"), ("cut_by_image", "-1"), ("cover", "x")]
)
def test_label_out_of_range(tmp_path, label, bad):
    write_sequence(tmp_path / "a", BOXES, **{label: ["0", bad, "0"]})
    assert f"{tmp_path / 'a' / label}.label:2: {bad!r} is not a label" in failure(tmp_path)


@pytest.mark.parametrize("label", ["absence", "cover", "cut_by_image"])
@pytest.mark.parametrize("count", [0, 2, 4])
def test_label_file_of_other_length(tmp_path, label, count):
    write_sequence(tmp_path / "a", BOXES, **{label: [0] * count})
    assert f"{label}.label: {count} labels for 3 frames" in failure(tmp_path)


def test_text_file_that_is_no_text(root):
    truth = root / "train" / "a" / "groundtruth.txt"
    truth.write_bytes(b"\xff\xfe\x00")
    assert failure(root, split="train").startswith(f"{truth}: cannot be read")


@pytest.mark.parametrize("boxes", [[(0.5, 0.4, 0.2, 0.1)], [(0.5, 0.4, 0.2, 1.0), (0, 0, 0, 0), (0.1, 0.4, 1, 1)]])
@pytest.mark.parametrize("split", ["train", "test"])
def test_boxes_that_can_only_be_normalised(tmp_path, boxes, split):
    write_sequence(tmp_path / split / "a", boxes)
    text = failure(tmp_path, split=split)
    assert text.startswith(f"{tmp_path / split / 'a' / 'groundtruth.txt'}: no box is as large as a pixel")
    assert "are they in pixels?" in text


@pytest.mark.parametrize(
    "boxes", [[(0.5, 0.4, 0.2, 0.1), (0.5, 0.4, 0.2, 1.5)], [(30, 20, 1, 1)], [(0.5, 0.5, 1.5, 0.2)]]
)
def test_small_boxes_in_pixels_are_read(tmp_path, boxes):
    write_sequence(tmp_path / "a", boxes)
    assert load_one(tmp_path).visible.all()


# Images


def test_image_is_read_as_rgb(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 0] = 200
    cv2.imwrite(str(tmp_path / "red.png"), picture[..., ::-1])
    assert np.array_equal(read_image_rgb(str(tmp_path / "red.png")), picture)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0, 0.1, 0.7])
def test_damaged_image_names_the_file(tmp_path, suffix, share):
    path = tmp_path / f"frame{suffix}"
    write_image(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=f"frame{suffix}: the image is damaged or cut off"):
        read_image_rgb(str(path))


def test_an_image_file_of_any_size_is_not_read(tmp_path, monkeypatch):
    write_image(tmp_path / "frame.png")
    size = os.path.getsize(tmp_path / "frame.png")
    monkeypatch.setattr("hiptrack.data.reading.MAX_IMAGE_BYTES", size - 1)
    with pytest.raises(DataError, match=f"frame.png: the image cannot be read .*{size} bytes"):
        read_image_rgb(str(tmp_path / "frame.png"))
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="pipe.png: the image cannot be read .not a regular file"):
        read_image_rgb(str(tmp_path / "pipe.png"))


def test_missing_image_names_the_file(tmp_path):
    with pytest.raises(DataError, match="none.jpg: the image cannot be read"):
        read_image_rgb(str(tmp_path / "none.jpg"))
