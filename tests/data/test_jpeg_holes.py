"""JPEGs that lack a part of their data are refused, where reading alone can tell; whole ones never are."""

import cv2
import numpy as np
import pytest

from hiptrack.data.crop_reading import read_crops
from hiptrack.data.image_heads import read_head
from hiptrack.data.jpeg_holes import has_zeros
from hiptrack.data.reading import read_image_rgb
from hiptrack.errors import DataError

END = b"\xff\xd9"
WIDTH, HEIGHT = 320, 240


def picture(seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def encoded(image, *options):
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90, *options])[1].tobytes()


def hole(data, start, length=None):
    """The data from a share of them on zero, to the end marker or for some bytes."""
    start = int(start * len(data))
    end = len(data) - len(END) if length is None else start + length
    return data[:start] + bytes(end - start) + data[end:]


HOLES = {
    "zeros to the end": lambda data: hole(data, 0.5),
    "a block of zeros": lambda data: hole(data, 0.4, 512),
    "few zeros": lambda data: hole(data, 0.7, 70),
    "cut, with an end": lambda data: data[: len(data) // 2] + END,
    "cut, with an end, and more behind it": lambda data: data[: len(data) // 2] + END + b"camera" + END,
}


@pytest.fixture
def write(tmp_path):
    def write(data):
        (tmp_path / "a.jpg").write_bytes(data)
        return str(tmp_path / "a.jpg")

    return write


@pytest.mark.parametrize("damage", HOLES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_hole_is_refused_by_name(write, damage, channels, capfd):
    data = encoded(picture() if channels == 3 else picture()[..., 0])
    path = write(HOLES[damage](data))
    with pytest.raises(DataError, match="a.jpg: the image is damaged: a part of its data is missing"):
        read_image_rgb(path)


def test_an_optimised_file_with_zeros_is_refused_where_its_codes_tell(write):
    data = encoded(picture(), cv2.IMWRITE_JPEG_OPTIMIZE, 1)
    assert not read_head(data).has_codes_of_zeros
    with pytest.raises(DataError, match="a part of its data is missing"):
        read_image_rgb(write(hole(data, 0.4, 512)))


def test_rows_that_a_head_invents_are_refused_where_the_filling_bits_code_a_block(write):
    data = encoded(np.full((69, 28, 3), (20, 90, 200), np.uint8))
    height_at = read_head(data).height_at
    with pytest.raises(DataError, match="a part of its data is missing"):
        read_image_rgb(write(data[:height_at] + (93).to_bytes(2, "big") + data[height_at + 2 :]))


@pytest.mark.parametrize("damage", ["zeros to the end", "cut, with an end"])
@pytest.mark.parametrize("factor, size", [(2.0, 40), (4.0, 40), (4.0, 20)])
def test_a_crop_is_right_or_refused(write, damage, factor, size):
    """Also where less is decoded than there is, or at a smaller scale."""
    data, refused = encoded(picture()), 0
    for top in range(0, HEIGHT - 40, 20):
        crop = ((150.0, float(top), 40.0, 40.0), factor, size)
        (whole,) = read_crops(write(data), [crop])
        try:
            (found,) = read_crops(write(HOLES[damage](data)), [crop])
        except DataError:
            refused += 1
            continue
        assert np.array_equal(found, whole)
    assert refused > 2


def grey_below(image):
    image = image.copy()
    image[-30:] = 128
    return image


WHOLE = {
    "a picture": encoded(picture()),
    "grey at its bottom": encoded(grey_below(picture())),
    "without colour, grey at its bottom": encoded(grey_below(picture())[..., 0]),
    "nothing but grey": encoded(np.full((HEIGHT, WIDTH, 3), 128, np.uint8)),
    "grey with codes of its own": encoded(np.full((HEIGHT, WIDTH, 3), 128, np.uint8), cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "black": encoded(np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
    "black with codes of its own": encoded(np.zeros((HEIGHT, WIDTH, 3), np.uint8), cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "progressive": encoded(grey_below(picture()), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "with restarts": encoded(grey_below(picture()), cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
    "zeros behind it": encoded(picture()) + bytes(5000),
    "another picture behind it": encoded(picture()) + bytes(100) + encoded(picture(1)),
    "zeros before it": encoded(picture())[:2] + b"\xff\xe2\x10\x00" + bytes(4094) + encoded(picture())[2:],
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_file_is_read(write, kind, capfd):
    path = write(WHOLE[kind])
    expected = cv2.cvtColor(cv2.imdecode(np.frombuffer(WHOLE[kind], np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.array_equal(read_image_rgb(path), expected)
    read_crops(path, [((150.0, 190.0, 40.0, 40.0), 2.0, 20)])
    assert capfd.readouterr().err == ""


def test_pictures_of_all_kinds_have_no_run_of_zeros():
    rng = np.random.default_rng(0)
    for number in range(120):
        image = np.full((64, 64, 3), rng.integers(0, 256, 3), np.uint8)
        if number % 3:
            image[rng.integers(64) :, rng.integers(64) :] = rng.integers(0, 256, 3)
        if number % 2:
            image = cv2.add(image, rng.integers(0, 1 + rng.integers(1, 60), image.shape).astype(np.uint8))
        options = [cv2.IMWRITE_JPEG_OPTIMIZE, number % 2, cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(1, 100))]
        data = cv2.imencode(".jpg", image, options)[1].tobytes()
        assert not has_zeros(data, read_head(data))
