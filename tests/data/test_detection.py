"""COCO files as tools write them: ids of every kind, pictures in folders, and pictures with an Exif orientation."""

import json
import logging
import struct
import zlib

import cv2
import numpy as np
import pytest
from helpers_data import write_image, write_lines, write_sequence

from hiptrack import crops
from hiptrack.data.clips import ClipData, ClipDataset, Geometry
from hiptrack.data.crop_reading import read_crops
from hiptrack.data.detection import COCODataset
from hiptrack.data.folders import FolderDataset
from hiptrack.data.reading import read_image_rgb
from hiptrack.errors import DataError

PICTURES = [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "1.png"}]  # alike but for the suffix


def coco(root, pictures, objects):
    """A COCODataset of `images` and `annotations`; each object, without a box of its own, lies one pixel further right."""
    objects = [{"bbox": [place, 20, 30, 40], **entry} for place, entry in enumerate(objects)]
    text = json.dumps({"images": pictures, "annotations": objects})
    write_lines(root / "annotations" / "instances_train2017.json", [text])
    (root / "train2017").mkdir(exist_ok=True)
    return COCODataset(str(root))


# Ids and names


IDS = {
    "sound": ([{"id": 5}, {"id": 6}, {"id": 7}, {"id": 8}], ["1-5", "1-6", "1-7", "1-8"]),
    "all the same": ([{"id": 0}] * 4, ["1-0", "1-0.2", "1-0.3", "1-0.4"]),
    "none": ([{}] * 4, ["1-object", "1-object.2", "1-object.3", "1-object.4"]),
    "some": ([{"id": None}, {"id": 1}, {}, {"id": 1}], ["1-object", "1-1", "1-object.2", "1-1.2"]),
    "per picture": ([{"id": 0}, {"id": 1}, {"id": 0}, {"id": 1}], ["1-0", "1-1", "1-0.2", "1-1.2"]),
    "floats": ([{"id": 7.0}, {"id": 7}, {"id": 7.5}, {"id": 9}], ["1-7", "1-7.2", "1-7.5", "1-9"]),
    "texts": ([{"id": "a"}, {"id": "a.2"}, {"id": "a"}, {"id": "a"}], ["1-a", "1-a.2", "1-a.3", "1-a.4"]),
}


@pytest.mark.parametrize("kind", IDS)
def test_every_object_is_a_sequence_whatever_the_ids(tmp_path, kind):
    ids, expected = IDS[kind]
    found = coco(tmp_path, PICTURES, [{"image_id": 1 + place // 2, **own} for place, own in enumerate(ids)]).sequences
    assert [s.name for s in found] == expected
    assert [s.boxes_xywh[0, 0] for s in found] == [0, 1, 2, 3]
    assert [s.frames[0][-5:] for s in found] == ["1.jpg", "1.jpg", "1.png", "1.png"]


def test_a_name_does_not_depend_on_what_is_left_out(tmp_path):
    objects = [{"image_id": 1, "id": 0, "bbox": [0, 0, 4, 4]}, {"image_id": 1, "id": 0}, {"image_id": 1, "id": 0}]
    assert [s.name for s in coco(tmp_path, PICTURES, objects).sequences] == ["1-0.2", "1-0.3"]


def test_two_pictures_of_one_id_are_an_error(tmp_path):
    twice = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]
    with pytest.raises(
        DataError, match=r"instances_train2017.json: images\[1\] has the id 1, as an image before it has"
    ):
        _ = coco(tmp_path, twice, [{"image_id": 1, "id": 1}]).sequences


def test_pictures_in_folders_are_read_there(tmp_path):
    pictures = [{"id": 1, "file_name": "sub/a.jpg"}, {"id": 2, "file_name": "other/deep/a.jpg"}]
    dataset = coco(tmp_path, pictures, [{"image_id": 1, "id": 1}, {"image_id": 2, "id": 2}])
    for picture in pictures:
        write_image(tmp_path / "train2017" / picture["file_name"])
    assert [s.name for s in dataset.sequences] == ["a-1", "a-2"]
    assert [read_image_rgb(s.frames[0]).shape for s in dataset.sequences] == [(32, 48, 3)] * 2


@pytest.mark.parametrize(
    "file", ["../a.jpg", "sub/../../a.jpg", "/etc/a.jpg", "..", "a\n/../b", "..\\a.jpg", "a\0.jpg", ""]
)
def test_a_picture_elsewhere_is_refused(tmp_path, file):
    with pytest.raises(DataError, match=r"no COCO instances .* at `\$.images\[0\].file_name`"):
        _ = coco(tmp_path, [{"id": 1, "file_name": file}], [{"image_id": 1, "id": 1}]).sequences


# Orientation


def with_exif(path, turn):
    """Give a JPEG or PNG file an Exif orientation."""
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([turn]) + b"\0\0\0\0\0\0"
    data = path.read_bytes()
    if path.suffix == ".jpg":
        exif = b"Exif\0\0" + exif
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    else:
        chunk = b"eXIf" + exif
        data = data[:33] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    path.write_bytes(data)


STORED, TURNED = (96, 64), (64, 96)
WAYS = [  # Exif orientation, stated size, what is done to the stored picture
    (6, STORED, None),
    (6, TURNED, cv2.ROTATE_90_CLOCKWISE),
    (8, STORED, None),
    (8, TURNED, cv2.ROTATE_90_COUNTERCLOCKWISE),
    (6, None, cv2.ROTATE_90_CLOCKWISE),
    (6, (0, 0), cv2.ROTATE_90_CLOCKWISE),
    (3, STORED, cv2.ROTATE_180),
    (1, STORED, None),
]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("turn, size, done", WAYS)
def test_a_picture_is_turned_as_the_stated_size_tells(tmp_path, suffix, turn, size, done):
    path = tmp_path / "train2017" / f"a.{suffix}"
    write_image(path, *STORED)
    whole = read_image_rgb(str(path))
    with_exif(path, turn)
    stated = {} if size is None else {"width": size[0], "height": size[1]}
    (sequence,) = coco(tmp_path, [{"id": 1, "file_name": path.name, **stated}], [{"image_id": 1, "id": 1}]).sequences
    wanted = (sequence.boxes_xywh[0], 2.0, 48)
    (crop,) = read_crops(sequence.frames[0], [wanted], stated_size=sequence.image_size)
    assert np.array_equal(crop, crops.crop(whole if done is None else cv2.rotate(whole, done), *wanted))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(
    "turn, told", [(6, "96x64 pixels, or 64x96 as its Exif orientation turns it;"), (None, "96x64 pixels;")]
)
def test_a_size_that_a_picture_has_neither_way_is_an_error(tmp_path, suffix, turn, told):
    path = tmp_path / f"a.{suffix}"
    write_image(path, *STORED)
    if turn:
        with_exif(path, turn)
    with pytest.raises(DataError, match=rf"a.{suffix}: the image has {told} its data set states 95x64"):
        read_crops(str(path), [((10.0, 10.0, 20.0, 20.0), 2.0, 16)], stated_size=(95, 64))


def test_training_crops_the_stored_picture_where_its_size_is_stated(tmp_path):
    path = tmp_path / "train2017" / "a.png"
    image = np.zeros((64, 96, 3), np.uint8)
    image[20:60, 50:80] = 255
    path.parent.mkdir()
    cv2.imwrite(str(path), image)
    with_exif(path, 6)
    boxes = [{"image_id": 1, "id": 1, "bbox": [50, 20, 30, 40]}]
    dataset = coco(tmp_path, [{"id": 1, "file_name": "a.png", "width": 96, "height": 64}], boxes)
    template = ClipDataset(ClipData([dataset]), Geometry(32, 32, 1.0, 2.0), 0, 0)[0, 0]["template"]
    assert template[:, 8:24, 8:24].min() > 150  # less its brightness, the target


def test_frames_of_a_folder_are_turned_and_the_log_says_so(tmp_path, caplog):
    write_sequence(tmp_path / "a", [(10, 20, 30, 40)] * 2, size=STORED)
    for path in (tmp_path / "a").glob("*.jpg"):
        with_exif(path, 6)
    with caplog.at_level(logging.INFO):
        (sequence,) = FolderDataset(str(tmp_path), name="phone").sequences
    assert "phone: images with an Exif orientation" in caplog.text
    assert read_image_rgb(sequence.frames[0]).shape == (96, 64, 3)
