"""Boxes and crops: conversions and overlaps against exact arithmetic, crops against a slow copy of their rule."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from soak.fuzz_core import Tally, check_words, run

from hiptrack import boxes, crops
from hiptrack.errors import DataError

place = st.floats(-1e6, 1e6).map(lambda number: round(number, 3)) | st.integers(-20, 20).map(float)
extent = st.floats(1e-3, 1e6) | st.integers(0, 20).map(float)
box_pairs = st.lists(st.tuples(*[place, place, extent, extent] * 2), min_size=1, max_size=4)

anything = st.floats(allow_nan=False, allow_infinity=False)
shift = st.integers(-30, 60).map(lambda number: number / 2) | st.floats(-15, 40)
near = st.tuples(shift, shift, st.floats(0.1, 24), st.floats(0.1, 24))
far = st.tuples(anything, anything, anything.map(abs), anything.map(abs)) | st.tuples(*[anything] * 4)
crop_cases = st.tuples(
    st.one_of(near, near, near, far),
    st.sampled_from((1.0, 2.0, 4.0, 5.0)),
    st.sampled_from(((40, 30), (31, 17), (24, 24), (3, 50), (1, 1))),
    st.sampled_from((1, 2, 3, 5)),
    st.sampled_from((np.float32, np.float64, None)),
)


def fuzz_boxes(count: int, seed: int) -> Tally:
    """Each case: up to four pairs of boxes, xywh in pixels, side by side."""
    return run("box conversions and IoU", box_pairs, _check_boxes, count, seed)


def fuzz_crops(count: int, seed: int) -> Tally:
    """Each case: a box, a factor, an image's size and how many pixels of the crop become one."""
    return run("crops", crop_cases, lambda case: _check_crop(*case), count, seed)


def _check_boxes(pairs):
    both = torch.tensor(pairs, dtype=torch.float64)
    near_enough = {"rtol": 1e-12, "atol": 1e-9}
    for xywh in (both[:, :4], both[:, 4:].unsqueeze(0)):
        xyxy, centred = boxes.xywh_to_xyxy(xywh), boxes.xywh_to_cxcywh(xywh)
        rows = [[x, y, x + w, y + h] for x, y, w, h in xywh.reshape(-1, 4).tolist()]
        assert xyxy.reshape(-1, 4).tolist() == rows
        torch.testing.assert_close(boxes.xyxy_to_xywh(xyxy), xywh, **near_enough)
        torch.testing.assert_close(boxes.cxcywh_to_xyxy(centred), xyxy, **near_enough)
        assert torch.equal(centred[..., 2:], xywh[..., 2:])
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        a, b = (boxes.xywh_to_xyxy(part).to(dtype) for part in (both[:, :4], both[:, 4:]))
        iou, giou = boxes.iou_and_giou(a, b)
        assert (iou >= 0).all() and (iou <= 1 + tolerance).all(), iou
        assert (giou >= -1 - tolerance).all() and (giou <= iou + tolerance).all(), giou
        for ours, turned in zip((iou, giou), boxes.iou_and_giou(b, a)):
            assert torch.equal(ours, turned)
        exact = torch.tensor([_exact_overlap(*rows) for rows in zip(a.tolist(), b.tolist())], dtype=torch.float64)
        torch.testing.assert_close(torch.stack((iou, giou), -1).double(), exact, rtol=0, atol=tolerance)
    return True


def _exact_overlap(a, b):
    """(IoU, generalised IoU) of two xyxy boxes in fractions; an empty union or hull gives 0."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = ([Fraction(value) for value in box] for box in (a, b))
    width, height = min(ax2, bx2) - max(ax1, bx1), min(ay2, by2) - max(ay1, by1)
    shared = max(width, 0) * max(height, 0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    hull = (max(ax2, bx2) - min(ax1, bx1)) * (max(ay2, by2) - min(ay1, by1))
    iou = shared / union if union else Fraction(0)
    return float(iou), float(iou - (hull - union) / hull) if hull else float(iou)


def _check_crop(box, factor, image_size, step, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's word on an overflow, which is no defect here
        given = box if dtype is None else np.array(box, dtype)
        box = [float(value) for value in given]
        return _check_given(given, box, factor, image_size, step)


def _check_given(given, box, factor, image_size, step):
    width, height = image_size
    clipped = crops.clip_box(box, (width + 10, height + 10))
    assert np.isfinite(clipped).all() and (clipped[2:] >= 10).all() and (clipped[:2] >= 0).all()
    assert (clipped[:2] + clipped[2:] <= np.array([width + 10, height + 10]) + 1e-9).all()

    image = np.random.default_rng(width * 100 + height).integers(1, 256, (height, width, 3), np.uint8)
    before = image.copy()
    if crops.is_empty(given, factor, image_size):
        with pytest.raises(DataError) as raised:
            crops.crop(image, given, factor, 32)
        check_words(raised.value, f"{width}x{height}")
        assert not _is_shown(given, factor, image_size), "taken for empty"
        return False
    side = crops.crop_side(given, factor)
    assert 1 <= side <= crops.LARGEST_SIDE
    if side > 256:
        return True
    square = _slow_square(image, given, factor)
    assert square.any(), "nothing is shown"
    if side % step:
        step = 1
    found = crops.crop(image, given, factor, side // step)
    if step == 2:
        mean = square.reshape(side // 2, 2, side // 2, 2, 3).mean((1, 3))
        assert (abs(found - mean) <= 1).all()
    else:
        assert np.array_equal(found, square[step // 2 :: step, step // 2 :: step])
    assert np.array_equal(image, before), "the image was changed"
    _check_there_and_back(box, side, side // step)
    return True


def _check_there_and_back(around, side, side_out):
    """A box comes back from the crop half a crop pixel to the upper left, as in the published code."""
    x, y, w, h = box = (around[0] + 1.5, around[1] - 0.75, around[2] * 1.5, around[3] * 0.75)
    left, top, bw, bh = crops.box_to_crop(box, around, side_out / side, side_out).astype(float)
    back = crops.box_from_crop((left + bw / 2, top + bh / 2, bw, bh), around, side)
    shift = 0.5 * side / side_out
    assert np.allclose(back, (x - shift, y - shift, w, h), rtol=0, atol=1e-5 * max(side, w, h)), back


def _slow_square(image, box, factor):
    """The crop before it is resized, pixel by pixel; the last column and row are lost where it reaches past them."""
    side = crops.crop_side(box, factor)
    left, top = (round(start) for start in _starts(box, side))
    height, width = image.shape[:2]
    columns, rows = width - (left + side >= width), height - (top + side >= height)
    square = np.zeros((side, side, 3), np.uint8)
    for row in range(max(top, 0), min(top + side, rows)):
        for column in range(max(left, 0), min(left + side, columns)):
            square[row - top, column - left] = image[row, column]
    return square


def _is_shown(box, factor, image_size):
    """Whether the crop is of a side that is allowed and shows a pixel."""
    area = float(box[2] * box[3])
    if not (box[2] > 0 and box[3] > 0 and 0 < area < math.inf):
        return False
    side = math.ceil(math.sqrt(area) * factor)
    if side > crops.LARGEST_SIDE:
        return False
    for start, end in zip(_starts(box, side), image_size):
        if not math.isfinite(start):
            return False
        first = round(start)
        if max(first, 0) >= end - (first + side >= end) or first + side <= 0:
            return False
    return True


def _starts(box, side):
    x, y, w, h = box
    return float(x + w / 2 - side / 2), float(y + h / 2 - side / 2)
