"""Crops of image files that decode no more than they show.

Decoding is most of what a clip costs. A JPEG is made of blocks of 8x8 frequencies; where a crop shrinks the picture by 2, 4 or
8 anyway, the decoder leaves out the frequencies that would be lost (libjpeg's scaled decoding), and in any case it stops
below the crop's last row.
"""

import cv2
import numpy as np

from hiptrack import crops
from hiptrack.data.jpeg import read_head
from hiptrack.data.reading import decode_bgr, read_image_bytes

REDUCTIONS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}


def read_crops(path, wanted, reduce=True):
    """Crops of one image file, which is decoded once: a list of [size, size, 3] uint8 RGB.

    wanted: (box_xywh in pixels, factor, size) of each crop, as for crops.crop, whose geometry they have. With `reduce` a JPEG
    is decoded at the scale 1/2, 1/4 or 1/8 where each of its crops shrinks it that much; otherwise the crops are those
    of the whole image to the bit. Raises EmptyCrop, and DataError for a file that is missing or damaged.
    """
    data = read_image_bytes(path)
    head = read_head(data)
    if head is None:
        image = decode_bgr(path, data)
        return [_rgb(crops.crop(image, *crop)) for crop in wanted]
    size = head.width, head.height
    lowest = max(crops.shown(box, factor, size)[3] for box, factor, _ in wanted)
    reduction = _reduction(wanted) if reduce else 1
    rows = (lowest // reduction + 2) * reduction  # whole cells, and one more to interpolate to
    image = decode_bgr(path, head.upper_rows(data, rows), REDUCTIONS[reduction])
    if reduction == 1:
        return [_rgb(crops.crop(image, *crop, height=head.height)) for crop in wanted]
    return [_rgb(_crop_reduced(image, reduction, size, *crop)) for crop in wanted]


def _reduction(wanted):
    """The largest of REDUCTIONS by which each of the crops shrinks the image at least."""
    shrinks = min(crops.crop_side(box, factor) / size for box, factor, size in wanted)
    return next(reduction for reduction in REDUCTIONS if reduction <= max(shrinks, 1))


def _crop_reduced(image, reduction, size, box_xywh, factor, side_out):
    """crops.crop of an image of (width, height) `size`, of which `image` has one cell for reduction x reduction pixels."""
    left, top, right, bottom = crops.shown(box_xywh, factor, size)
    side = crops.crop_side(box_xywh, factor)
    x1, y1 = (max(start // reduction - 1, 0) for start in (left, top))
    x2, y2 = (-(-end // reduction) + 1 for end in (right, bottom))
    # The centres of the crop's pixels from the image's corner, in pixels; the first cell's centre lies 0.5 cells from it.
    xs, ys = (start + side / side_out * (np.arange(side_out) + 0.5) for start in (left, top))
    scale, shift = side / side_out / reduction, np.array([xs[0], ys[0]]) / reduction - 0.5 - (x1, y1)
    matrix, flags = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(
        image[y1:y2, x1:x2], matrix, (side_out, side_out), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    _blacken(crop, _share_shown(ys, top, bottom, side))
    _blacken(crop.swapaxes(0, 1), _share_shown(xs, left, right, side))
    return crop


def _share_shown(centres, start, end, side):
    """The share that the picture has, 0..1, in the pixels at `centres` of a crop from `start` that shows it up to `end`.

    Where the crop reaches past the picture, pixel and black are interpolated as in the whole image.
    """
    first = 0 if start < 0 else -np.inf
    last = end if start + side > end else np.inf
    return np.clip(np.minimum(centres - first, last - centres) + 0.5, 0, 1)


def _blacken(lines, shares):
    """Darken each of a crop's lines to its share, in place."""
    lines[shares == 0] = 0
    for line in np.flatnonzero((shares > 0) & (shares < 1)):
        lines[line] = lines[line] * shares[line] + 0.5


def _rgb(crop):
    return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)
