"""The crop geometry: there and back, at the borders, and where nothing is to be seen."""

import math

import numpy as np
import pytest

from hiptrack import crops
from hiptrack.errors import DataError

BOXES = [(30.0, 20.0, 24.0, 18.0), (0.3, 0.7, 11.9, 40.2), (-6.0, 50.0, 20.0, 12.0), (100.0, 3.0, 60.5, 7.25)]


@pytest.mark.parametrize("factor, side_out", [(2.0, 48), (5.0, 96), (4.0, 384)])
@pytest.mark.parametrize("around", BOXES)
def test_there_and_back_differ_by_half_a_crop_pixel(around, factor, side_out):
    side = crops.crop_side(around, factor)
    scale = side_out / side
    x, y, w, h = box = (around[0] + 3.5, around[1] - 2.25, around[2] * 1.3, around[3] * 0.8)
    bx, by, bw, bh = crops.box_to_crop(box, around, scale, side_out).astype(float)
    back = crops.box_from_crop((bx + bw / 2, by + bh / 2, bw, bh), around, side)
    half_pixel = 0.5 / scale
    assert back == pytest.approx([x - half_pixel, y - half_pixel, w, h], abs=1e-3)


def test_box_to_crop_is_normalised_float32():
    moved = crops.box_to_crop(BOXES[0], BOXES[0], 2.0, 96)
    assert moved.dtype == np.float32
    w, h = 24 * 2 / 96, 18 * 2 / 96
    assert moved == pytest.approx([47.5 / 96 - w / 2, 47.5 / 96 - h / 2, w, h])


def numpy_crop(image, box, factor):
    """The crop before it is resized, pixel by pixel."""
    x, y, w, h = box
    side = math.ceil(math.sqrt(w * h) * factor)
    left, top = round(x + w / 2 - side / 2), round(y + h / 2 - side / 2)
    height, width = image.shape[:2]
    # the published padding is one pixel too large at the right and at the bottom
    last_column = width - 1 if left + side >= width else width
    last_row = height - 1 if top + side >= height else height
    square = np.zeros((side, side, 3), np.uint8)
    for i in range(side):
        for j in range(side):
            if 0 <= top + i < last_row and 0 <= left + j < last_column:
                square[i, j] = image[top + i, left + j]
    return square


@pytest.mark.parametrize(
    "box",
    [
        (40.0, 30.0, 8.0, 8.0),  # inside
        (1.0, 30.0, 8.0, 8.0),  # past the left edge
        (72.0, 30.0, 8.0, 8.0),  # past the right edge
        (40.0, 0.5, 8.0, 8.0),  # past the top
        (40.0, 52.0, 8.0, 8.0),  # past the bottom
        (64.0, 44.0, 8.0, 8.0),  # ends with the image, right and bottom
        (63.0, 43.0, 8.0, 8.0),  # a pixel before that
        (-3.0, -3.0, 90.0, 70.0),  # all around
        (39.5, 30.5, 8.0, 8.0),  # half a pixel: to even
    ],
)
def test_pixels(box):
    image = np.random.default_rng(0).integers(1, 256, (60, 80, 3), np.uint8)
    expected = numpy_crop(image, box, 3.0)
    assert np.array_equal(crops.crop(image, box, 3.0, len(expected)), expected)


@pytest.mark.parametrize("size, side_out", [((80, 60), 32), ((5, 4), 64), ((2, 2), 16)])
def test_crop_is_square_whatever_the_image(size, side_out):
    image = np.full((size[1], size[0], 3), 200, np.uint8)
    square = crops.crop(image, (0.0, 0.0, float(size[0]), float(size[1])), 2.0, side_out)
    assert square.shape == (side_out, side_out, 3) and square.dtype == np.uint8 and square.any()
    assert not image.any() or (image == 200).all()  # the image is left alone


EMPTY = {
    "no width": (10.0, 10.0, 0.0, 5.0),
    "negative": (10.0, 10.0, -4.0, -4.0),
    "not a number": (10.0, 10.0, math.nan, 5.0),
    "left of the image": (-60.0, 10.0, 8.0, 8.0),
    "right of it": (140.0, 10.0, 8.0, 8.0),
    "above it": (10.0, -60.0, 8.0, 8.0),
    "below it": (10.0, 140.0, 8.0, 8.0),
    "beyond float in area": (10.0, 10.0, 1e200, 1e200),
    "beyond float in place": (1.7e308, 10.0, 1.7e308, 1e-307),
    "infinite": (10.0, 10.0, math.inf, 5.0),
    "on the last column alone": (80.5, 20.0, 1.0, 1.0),  # that column is black
}


@pytest.mark.parametrize("box", EMPTY.values(), ids=EMPTY)
def test_nothing_to_see(box):
    image = np.full((60, 80, 3), 200, np.uint8)
    assert crops.is_empty(box, 3.0, (80, 60))
    with pytest.raises(DataError, match="shows nothing of the 80x60 image"):
        crops.crop(image, box, 3.0, 32)


@pytest.mark.parametrize("box", [(-10.0, 10.0, 8.0, 8.0), (70.0, 50.0, 40.0, 40.0), (0.0, 0.0, 0.5, 0.5)])
def test_a_glimpse_is_not_nothing(box):
    assert not crops.is_empty(box, 3.0, (80, 60))
    crops.crop(np.full((60, 80, 3), 200, np.uint8), box, 3.0, 32)


def test_emptiness_is_exactly_a_black_crop():
    image = np.full((20, 24, 3), 255, np.uint8)
    rng = np.random.default_rng(3)
    for _ in range(400):
        box = np.concatenate((rng.uniform(-15, 35, 2), rng.uniform(0.2, 8, 2)))
        black = not numpy_crop(image, box, 2.0).any()
        assert crops.is_empty(box, 2.0, (24, 20)) == black


@pytest.mark.parametrize("size", [(120, 90), (25, 300), (12, 11), (10, 10)])
def test_clipped_boxes_stay_inside_by_the_margin(size):
    rng = np.random.default_rng(0)
    width, height = size
    for _ in range(300):
        box = np.concatenate((rng.uniform(-2, 3, 2) * size, rng.exponential(1, 2) * size))
        x, y, w, h = crops.clip_box(box, size, margin=10)
        assert w >= 10 and h >= 10
        assert 0 <= x <= width - 10 and 0 <= y <= height - 10
        assert x + w <= width + 1e-9 and y + h <= height + 1e-9


def test_clipping_leaves_a_box_inside_alone():
    assert crops.clip_box((20.5, 30.25, 40.0, 21.5), (120, 90)).tolist() == [20.5, 30.25, 40.0, 21.5]
    assert crops.clip_box((-5.0, 80.0, 30.0, 30.0), (120, 90)).tolist() == [0.0, 80.0, 25.0, 10.0]
    assert crops.clip_box((-5.0, 80.0, 30.0, 30.0), (120, 90), margin=4).tolist() == [0.0, 80.0, 25.0, 10.0]


@pytest.mark.parametrize("size", [(8, 8), (4, 200), (1, 1)])
def test_an_image_smaller_than_the_margin_still_gives_a_box_over_it(size):
    width, height = size
    x, y, w, h = box = crops.clip_box((1.0, 1.0, 3.0, 3.0), size, margin=10)
    assert np.isfinite(box).all() and w >= 10 and h >= 10
    assert min(x + w, width) > max(x, 0) and min(y + h, height) > max(y, 0)
