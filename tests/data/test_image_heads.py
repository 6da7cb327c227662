"""Images by their heads: what is too large, or has too few bytes for its size, is refused before it is decoded."""

import re
import struct
import zlib

import cv2
import numpy as np
import pytest

from hiptrack.data import reading
from hiptrack.data.crop_reading import read_crops
from hiptrack.data.image_heads import UPRIGHT, orientation, read_head
from hiptrack.data.reading import MAX_PIXELS, MAX_SCANS, read_image_rgb
from hiptrack.errors import DataError

KINDS = [".jpg", ".png", ".bmp", ".webp", ".gif", ".tiff", ".pgm"]


def encoded(suffix, width=50, height=30, channels=3, *options):
    image = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    return cv2.imencode(suffix, image if suffix != ".pgm" else image[..., 0], options)[1].tobytes()


def resized_jpeg(data, width, height):
    """A JPEG whose head states another size."""
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def resized_png(data, width, height):
    head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def resized_bmp(data, width, height):
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


@pytest.fixture
def no_decoder(monkeypatch):
    """Decoding fails the test."""
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))


def refusal(path, read=read_image_rgb):
    with pytest.raises(DataError) as error:
        read(str(path))
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


@pytest.mark.parametrize("suffix", KINDS)
def test_the_size_that_a_head_tells_is_that_of_the_decoded_image(suffix):
    data = encoded(suffix)
    head = read_head(data)
    assert (head.width, head.height) == (50, 30)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (30, 50)
    assert head.fewest_bytes < len(data)


@pytest.mark.parametrize("read", [read_image_rgb, lambda path: read_crops(path, [((1.0, 1.0, 8.0, 8.0), 2.0, 8)])])
@pytest.mark.parametrize(
    "name, resized", [("a.jpg", resized_jpeg), ("a.png", resized_png), ("a.bmp", resized_bmp), ("old.bmp", resized_bmp)]
)
def test_more_pixels_than_are_read_are_refused_by_the_head(tmp_path, name, resized, read, no_decoder):
    side = int(MAX_PIXELS**0.5) + 1
    (tmp_path / name).write_bytes(resized(encoded(name[-4:]), side, side))
    text = refusal(tmp_path / name, read)
    assert f"the image has {side}x{side} pixels, the most that is read is {MAX_PIXELS} pixels" in text


def test_a_jpeg_of_more_scans_than_any_encoder_writes_is_refused(tmp_path, no_decoder):
    """A scan of a few bytes may stand for all of a large picture: a megabyte of them takes hours."""
    data = encoded(".jpg", 50, 30, 3, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data[data.rindex(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(data[:-2] + last * MAX_SCANS + data[-2:])
    assert f"is made of {data.count(last[:2]) + MAX_SCANS} scans" in refusal(tmp_path / "a.jpg")
    assert read_head(data).scans == data.count(last[:2]) > 1 and read_head(encoded(".jpg")).scans == 1


@pytest.mark.parametrize("suffix", KINDS)
def test_every_kind_has_the_bound(tmp_path, suffix, monkeypatch, no_decoder):
    monkeypatch.setattr(reading, "MAX_PIXELS", 50 * 30 - 1)
    (tmp_path / "a.jpg").write_bytes(encoded(suffix))
    assert "the image has 50x30 pixels" in refusal(tmp_path / "a.jpg")


def test_the_largest_that_is_read_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_PIXELS", 50 * 30)
    (tmp_path / "a.png").write_bytes(encoded(".png"))
    assert read_image_rgb(str(tmp_path / "a.png")).shape == (30, 50, 3)


def test_a_bmp_stored_from_the_top_has_a_negative_height():
    head = read_head(resized_bmp(encoded(".bmp"), 50, -30))
    assert (head.width, head.height) == (50, 30)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_of_a_large_grey_nothing_is_refused(tmp_path, channels, progressive, no_decoder):
    data = encoded(".jpg", 64, 64, channels, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    place = data.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
    (tmp_path / "a.jpg").write_bytes(data[:place] + struct.pack(">HH", 6000, 6000) + data[place + 4 :])
    assert f"the image is damaged or cut off ({len(data)} bytes)" in refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("sampling", [cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411])
def test_a_jpeg_of_one_colour_has_as_many_bytes_as_it_needs(tmp_path, value, progressive, sampling):
    """The smallest files there are: of a single colour, in the worst quality, with codes of their own."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 1, cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    image = np.full((1000, 1500, 3), value, np.uint8)
    path = tmp_path / "a.jpg"
    assert cv2.imwrite(str(path), image, [*options, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])
    assert abs(read_image_rgb(str(path)).astype(int) - value).max() < 3
    if not progressive:
        assert read_head(path.read_bytes()).fewest_bytes > 0.5 * path.stat().st_size


def test_what_stands_between_the_parts_of_a_jpeg_does_not_hide_its_size(tmp_path, no_decoder):
    data = resized_jpeg(encoded(".jpg"), 30000, 30000)
    for filling in (b"\xff\xff\xff", b"\0rubbish", b"\xff\xd0\xff\x01", b"\xff\x00"):
        (tmp_path / "a.jpg").write_bytes(data[:2] + filling + data[2:])
        assert "30000x30000 pixels" in refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "data",
    [b"\xff\xd8" + b"\xff" * 10**6, b"\xff\xd8" + b"\xff\xd0" * 10**6, b"\xff\xd8\xff\xc0\0\x05\x08\xff\xd9", b"BM", b"MM\0*", b""],
    ids=["filling", "markers", "cut frame", "bmp", "tiff", "empty"],
)  # fmt: skip
def test_a_head_without_an_end_is_damage(tmp_path, data, no_decoder):
    (tmp_path / "a.jpg").write_bytes(data)
    assert re.search("the image is damaged or cut off", refusal(tmp_path / "a.jpg"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow
def test_any_bytes_have_a_head_or_none():
    rng, sources = np.random.default_rng(0), [encoded(suffix) for suffix in KINDS]
    for number in range(400):
        data = bytearray(sources[number % len(sources)])
        for place in rng.integers(0, min(len(data), 200), 4):
            data[place] = rng.integers(256)
        head = read_head(bytes(data[: rng.integers(1, len(data))]))
        assert head is None or isinstance(head.width * head.height, int)


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_orientation_of_jpeg_and_png(turn):
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([turn]) + b"\0\0\0\0\0\0"
    jpeg, png = encoded(".jpg"), encoded(".png")
    chunk = b"eXIf" + exif
    chunk = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    exif = b"Exif\0\0" + exif
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    assert orientation(jpeg) == orientation(png[:33] + chunk + png[33:]) == turn
    assert orientation(encoded(".jpg")) == UPRIGHT
