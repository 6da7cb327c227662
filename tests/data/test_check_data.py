"""hiptrack check-data: what it finds in images and boxes, and its exit code."""

import json
import os
import signal
import struct
import zlib

import cv2
import miniatures
import numpy as np
import pytest
from helpers_data import write_image, write_lines, write_sequence

from hiptrack.cli import check_data
from hiptrack.data import image_report
from hiptrack.errors import DataError

BOXES = [(10, 5, 12, 10)] * 4


@pytest.fixture
def check(monkeypatch, capsys):
    """check(root, *options): (exit code, the lines printed)."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)

    def run(root, *options):
        monkeypatch.setattr("sys.argv", ["hiptrack check-data", str(root), *options])
        code = check_data.main()
        return code, capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def root(tmp_path):
    """Two sequences of four frames."""
    for name in ("a", "b"):
        write_sequence(tmp_path / "set" / name, BOXES)
    return tmp_path / "set"


def jpeg(side=160):
    """A JPEG whose picture takes some kB."""
    noise = np.random.default_rng(0).integers(0, 256, (side // 4, side // 4, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(noise, (side, side)))[1].tobytes()


def test_a_sound_data_set(root, check):
    assert check(root) == (0, ["2 sequences, 8 images, 0 problems"])


def hole(data, start, length):
    return data[: int(start * len(data))] + bytes(length) + data[int(start * len(data)) + length :]


HOLES = {
    "the second half, end marker kept": lambda data: hole(data, 0.5, len(data) - len(data) // 2 - 2),
    "a block of a disk": lambda data: hole(data, 0.4, 512),
    "a few bytes": lambda data: hole(data, 0.6, 16),
    "something else": lambda data: data[: len(data) // 3] + bytes(range(1, 250)) * 2 + data[len(data) // 3 + 498 :],
    "the end, end marker kept": lambda data: data[: len(data) // 2] + b"\xff\xd9",
}


@pytest.mark.parametrize("damage", HOLES)
def test_a_jpeg_with_a_hole_is_named(tmp_path, check, damage):
    write_sequence(tmp_path / "a", BOXES, size=(160, 160))
    for name in ("00000002.jpg", "00000003.jpg"):
        (tmp_path / "a" / name).write_bytes(jpeg())
    (tmp_path / "a" / "00000003.jpg").write_bytes(HOLES[damage](jpeg()))
    code, lines = check(tmp_path)
    assert code == 1 and len(lines) == 2 and lines[1].endswith("4 images, 1 problems")
    assert lines[0].startswith(f"{tmp_path}/a/00000003.jpg: ")
    assert ("its decoder says: Corrupt JPEG" in lines[0]) != ("a part of its data is missing" in lines[0])


def test_every_problem_is_listed(root, check):
    (root / "a" / "00000002.jpg").write_bytes(b"no picture")
    os.remove(root / "a" / "00000003.jpg")
    (root / "a" / "00000003.jpg").symlink_to("nowhere")
    write_image(root / "b" / "00000001.jpg", 30000 // 1000, 20)
    write_lines(root / "b" / "groundtruth.txt", ["10,5,12,10", "48,5,12,10", "10,-8,12,8", "40,28,12,10"])
    write_sequence(root / "c", BOXES)
    os.remove(root / "c" / "groundtruth.txt")
    code, lines = check(root)
    assert code == 1
    assert lines[0].startswith(f"{root}/c/groundtruth.txt: not found") and lines[0].endswith("--exclude c.")
    assert lines[1].startswith(f"{root}/a/00000002.jpg: the image is damaged or cut off")
    assert lines[2].startswith(f"{root}/a/00000003.jpg: the image cannot be read (No such file")
    size = "the frame has 48x32 pixels of 8 bits a channel, the first of b has 30x20 pixels"
    assert [line for line in lines if size in line and line.startswith(f"{root}/b/")] == [lines[3], lines[5], lines[7]]
    assert lines[4] == f"{root}/b/00000002.jpg: the box 48,5,12,10 of b lies outside the picture of 48x32 pixels."
    assert "the box 10,-8,12,8 of b" in lines[6]
    assert lines[-2:] == [
        f"a box that reaches beyond the picture: 1 (the first: {root}/b/00000004.jpg)",
        "2 sequences, 8 images, 8 problems",
    ]


def test_sequences_are_chosen(root, check):
    (root / "a" / "00000002.jpg").write_bytes(b"")
    assert check(root, "--exclude", "a") == (0, ["1 sequences, 4 images, 0 problems"])
    assert check(root, "--include", "a")[0] == 1


def test_a_frame_of_16_bits_among_others_is_named(tmp_path, check):
    names = [f"{number}.png" for number in range(1, 5)]
    write_sequence(tmp_path / "deep", BOXES, names)
    write_sequence(tmp_path / "mixed", BOXES, names)
    deep = np.random.default_rng(0).integers(0, 2**16, (32, 48), np.uint16)
    for path in (*(tmp_path / "deep").glob("*.png"), tmp_path / "mixed" / "3.png"):
        assert cv2.imwrite(str(path), deep)
    code, lines = check(tmp_path)
    assert code == 1 and len(lines) == 3
    assert (
        "mixed/3.png: the frame has 48x32 pixels of 16 bits a channel, the first of mixed has 48x32 pixels of 8"
        in lines[0]
    )
    assert lines[1] == f"16 bits a channel: 5 (the first: {tmp_path}/deep/1.png)"


def test_what_is_odd_but_right_is_a_note(tmp_path, check):
    names = [f"{number}.png" for number in range(1, 5)]
    write_sequence(tmp_path / "a", BOXES, names)
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    for name, kind, content in (("2.png", b"gAMA", b"\0"), ("3.png", b"eXIf", exif)):
        data = (tmp_path / "a" / name).read_bytes()
        chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        (tmp_path / "a" / name).write_bytes(data[:33] + chunk + data[33:])
    code, lines = check(tmp_path)
    assert f"Exif orientation 6: 1 (the first: {tmp_path}/a/3.png)" in lines
    assert any(line.startswith("its decoder says: libpng warning: gAMA") for line in lines)
    assert code == 1 and "3.png: the frame has 32x48 pixels" in lines[0]  # a turned frame among others


def test_coco_s_pictures_are_read_once_with_the_boxes_of_all_objects(tmp_path, check, monkeypatch):
    objects = [miniatures.coco_annotation(number, picture) for number, picture in ((1, 7), (2, 8), (3, 7))]
    objects.append(miniatures.coco_annotation(4, 8, (96, 10, 30, 40)))
    path = miniatures.coco(tmp_path, objects)
    for number in (7, 8):
        write_image(tmp_path / "train2017" / f"{number:012d}.jpg", 96, 96)
    code, lines = check(tmp_path, "--dataset", "coco")
    assert code == 1 and lines[1] == "4 sequences, 2 images, 1 problems"
    assert "000000000008.jpg: the box 96,10,30,40 of 000000000008-4 lies outside the picture of 96x96" in lines[0]
    instances = json.loads(path.read_text())
    instances["images"][0]["width"] = 95
    path.write_text(json.dumps(instances))
    code, lines = check(tmp_path, "--dataset", "coco")
    assert "000000000007.jpg: the image has 96x96 pixels; its data set states 95x96" in lines[0]


def test_a_split_without_boxes_but_the_first(tmp_path, check):
    write_sequence(tmp_path / "test" / "a", BOXES)
    write_lines(tmp_path / "test" / "a" / "groundtruth.txt", ["10,5,12,10"])
    assert check(tmp_path, "--split", "test") == (0, ["1 sequences, 4 images, 0 problems"])


def test_a_root_of_splits_says_what_is_to_be_said(root, check):
    code, lines = check(root.parent)
    assert code == 1 and "set: no images" in lines[0] and "set --split" in lines[0]
    with pytest.raises(DataError, match="nowhere: the data root does not exist"):
        check(root / "nowhere")


def test_a_process_that_dies_is_told_with_the_images(root, check, monkeypatch):
    monkeypatch.setattr(image_report, "_look", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DataError, match=r"A process that read images died, at .*/a/00000001.jpg or some hundred"):
        check(root)
