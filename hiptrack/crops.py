"""The one crop geometry, for training and for tracking (HIPTrack, after OSTrack and STARK).

Images are uint8 RGB [H, W, 3]; boxes xywh in pixels of the image unless said otherwise.
"""

import math

import cv2
import numpy as np

from hiptrack.errors import DataError

LARGEST_SIDE = 2**14  # pixels; a larger crop would not fit in memory


class EmptyCrop(DataError):
    """A crop that shows nothing of its image."""


def are_normalised(boxes_xywh):
    """Whether the boxes [N, 4] of a target can only be normalised to 0..1 rather than in pixels.

    So it is where each has both sides below one pixel, or lies in the one pixel at the image's corner; boxes without area
    say nothing.
    """
    boxes = boxes_xywh[(boxes_xywh[:, 2:] > 0).all(1)]
    return len(boxes) > 0 and bool((boxes[:, 2:] < 1).all() or (boxes <= 1).all())


def crop_side(box_xywh, factor):
    """Side in pixels of the square crop around a box: ceil(sqrt(w*h) * factor)."""
    return math.ceil(math.sqrt(box_xywh[2] * box_xywh[3]) * factor)


def crop_origin(box_xywh, side):
    """Left and top pixel of a crop of `side` centred on the box, rounded half to even."""
    x, y, w, h = box_xywh
    return round(float(x + 0.5 * w - side * 0.5)), round(float(y + 0.5 * h - side * 0.5))


def is_empty(box_xywh, factor, image_size):
    """Whether the crop is under one pixel, absurdly large, or shows no pixel of an image of (width, height)."""
    x, y, w, h = box_xywh
    if not (w > 0 and h > 0 and 0 < math.sqrt(w * h) * factor <= LARGEST_SIDE):
        return True
    if not (math.isfinite(x + w) and math.isfinite(y + h)):
        return True
    side = crop_side(box_xywh, factor)
    left, top = crop_origin(box_xywh, side)
    x2, y2 = _shown_end(left + side, image_size[0]), _shown_end(top + side, image_size[1])
    return max(left, 0) >= x2 or max(top, 0) >= y2


def crop(image, box_xywh, factor, side_out, height=None):
    """The square around a box, [side_out, side_out, 3] uint8; what lies outside the image is black.

    As in the published code, the image's last column and row are black too where the crop reaches past them. `height`:
    that of the image where `image` has only its upper rows, those of `shown` at least. Raises EmptyCrop.
    """
    size = (image.shape[1], height or image.shape[0])
    left, top, x2, y2 = shown(box_xywh, factor, size)
    side = crop_side(box_xywh, factor)
    x1, y1 = max(left, 0), max(top, 0)
    square = image[y1:y2, x1:x2]
    if square.shape[:2] != (side, side):
        seen, square = square, np.zeros((side, side, 3), np.uint8)  # black that is not written costs no memory
        square[y1 - top : y2 - top, x1 - left : x2 - left] = seen
    return cv2.resize(square, (side_out, side_out), interpolation=cv2.INTER_LINEAR)


def shown(box_xywh, factor, image_size):
    """(left, top, x2, y2) of a crop: its origin, and where the part of an image of (width, height) that it shows ends.

    Raises EmptyCrop.
    """
    width, height = image_size
    if is_empty(box_xywh, factor, image_size):
        raise EmptyCrop(
            f"The crop around box {list(map(float, box_xywh))} (xywh) shows nothing of the {width}x{height} image."
        )
    side = crop_side(box_xywh, factor)
    left, top = crop_origin(box_xywh, side)
    return left, top, _shown_end(left + side, width), _shown_end(top + side, height)


def _shown_end(end, image_end):
    return image_end - 1 if end >= image_end else end


def box_to_crop(box_xywh, crop_box_xywh, scale, side_out):
    """A box into the crop made around `crop_box_xywh`: xywh [4] float32 normalised by side_out."""
    box, around = np.asarray(box_xywh, np.float64), np.asarray(crop_box_xywh, np.float64)
    centre = (side_out - 1) / 2 + (box[:2] + 0.5 * box[2:] - around[:2] - 0.5 * around[2:]) * scale
    size = box[2:] * scale
    return (np.concatenate((centre - 0.5 * size, size)) / side_out).astype(np.float32)


def box_from_crop(box_cxcywh, crop_box_xywh, side):
    """A predicted box, cxcywh normalised, in the crop of `side` pixels around `crop_box_xywh` -> xywh in the image."""
    x, y, w, h = (float(v) for v in crop_box_xywh)
    cx, cy, bw, bh = (float(v) * side for v in box_cxcywh)
    cx, cy = cx + x + 0.5 * w - 0.5 * side, cy + y + 0.5 * h - 0.5 * side
    return np.array([cx - 0.5 * bw, cy - 0.5 * bh, bw, bh])


def clip_box(box_xywh, image_size, margin=10):
    """Clip xywh to an image of (width, height), kept `margin` px inside and at least `margin` px wide and high."""
    (x, y, w, h), (width, height) = box_xywh, image_size
    x1, y1 = min(max(0.0, x), width - margin), min(max(0.0, y), height - margin)
    x2, y2 = min(max(margin, x + w), width), min(max(margin, y + h), height)
    return np.array([x1, y1, max(margin, x2 - x1), max(margin, y2 - y1)], dtype=np.float64)
