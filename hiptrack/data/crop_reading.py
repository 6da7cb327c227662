"""Crops of image files that decode no more than they show.

Decoding is most of what a clip costs. A JPEG is made of blocks of 8x8 frequencies; where a crop shrinks the picture by
2, 4 or 8 anyway, the decoder leaves out the frequencies that would be lost (libjpeg's scaled decoding), and in any case
it stops below the crop's last row.
"""

import cv2
import numpy as np

from hiptrack import crops
from hiptrack.data.image_heads import JpegHead
from hiptrack.data.reading import decode_bgr, read_image, require_size, require_whole

REDUCTIONS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}


def read_crops(path, wanted, reduce=True, first=None, stated_size=None):
    """Crops of one image file, which is decoded once: a list of [size, size, 3] uint8 RGB.

    wanted: (box_xywh in pixels, factor, size) of each crop, as for crops.crop, whose geometry they have. With `reduce`
    a JPEG is decoded at the scale 1/2, 1/4 or 1/8 where each of its crops shrinks it that much; otherwise the crops are
    those of the whole image to the bit. first, stated_size: as for decode_bgr. Raises EmptyCrop, and DataError for a file
    that is missing, damaged, too large or of another size.
    """
    data, head = read_image(path)
    if not (isinstance(head, JpegHead) and head.is_plain):
        image = decode_bgr(path, data, first=first, stated_size=stated_size)
        return [_rgb(crops.crop(image, *crop)) for crop in wanted]
    size = head.width, head.height
    if stated_size is not None:
        require_size(path, size, stated_size)
    lowest = max(crops.shown(box, factor, size)[3] for box, factor, _ in wanted)
    reduction = _reduction(wanted) if reduce else 1
    rows = (lowest // reduction + 2) * reduction  # whole cells, and one more to interpolate to
    image = decode_bgr(path, head.upper_rows(data, rows), REDUCTIONS[reduction])
    require_whole(path, data, head, image)
    if reduction == 1:
        return [_rgb(crops.crop(image, *crop, height=head.height)) for crop in wanted]
    return [_crop_reduced(image, reduction, size, *crop) for crop in wanted]


def _reduction(wanted):
    """The largest of REDUCTIONS by which each of the crops shrinks the image at least."""
    shrinks = min(crops.crop_side(box, factor) / size for box, factor, size in wanted)
    return next(reduction for reduction in REDUCTIONS if reduction <= max(shrinks, 1))


def _crop_reduced(image, reduction, size, box_xywh, factor, side_out):
    """crops.crop in RGB of an image of `size` (w, h), of which `image` has, in BGR, a cell for reduction^2 pixels."""
    left, top, right, bottom = crops.shown(box_xywh, factor, size)
    scale = crops.crop_side(box_xywh, factor) / side_out
    columns, shares_x = _lines(left, right, scale, side_out)
    rows, shares_y = _lines(top, bottom, scale, side_out)
    crop = np.zeros((side_out, side_out, 4), np.uint8)  # OpenCV interpolates four channels in half the time of three
    seen = crop[rows, columns]
    if seen.size:
        cells_x, first_x = _cells(left, right, columns.start, scale, reduction)
        cells_y, first_y = _cells(top, bottom, rows.start, scale, reduction)
        cells = cv2.cvtColor(image[cells_y, cells_x], cv2.COLOR_BGR2BGRA)
        matrix = np.array([[scale, 0, first_x], [0, scale, first_y]]) / [reduction, reduction, 1]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(cells, matrix, seen.shape[1::-1], seen, flags, cv2.BORDER_REPLICATE)
        _darken(seen, shares_y)
        _darken(seen.swapaxes(0, 1), shares_x)
    return cv2.cvtColor(crop, cv2.COLOR_BGRA2RGB)


def _lines(start, end, scale, side_out):
    """Those of a crop's lines (columns or rows) that show the picture, a slice, and the share of each that does.

    The crop starts at pixel `start` and shows the picture up to `end`. Where it reaches past the picture, pixel and
    black are interpolated as in the whole image.
    """
    centres = start + scale * (np.arange(side_out) + 0.5)  # pixels from the image's corner
    first = 0 if start < 0 else -np.inf
    last = end if end < start + scale * side_out else np.inf
    shares = np.minimum(centres - first, last - centres) + 0.5
    seen = np.flatnonzero(shares > 0)
    lines = slice(seen[0], seen[-1] + 1) if seen.size else slice(0, 0)
    return lines, shares[lines]


def _cells(start, end, line, scale, reduction):
    """The cells around the pixels `start` to `end`, a slice, and where the centre of a crop's line lies in them."""
    first = max(start // reduction - 1, 0)
    centre = (start + scale * (line + 0.5)) / reduction  # from the image's corner, 0.5 before the first cell's centre
    return slice(first, -(-end // reduction) + 1), centre - 0.5 - first


def _darken(lines, shares):
    """Darken each of a crop's lines to its share, in place."""
    for line in np.flatnonzero(shares < 1):
        lines[line] = lines[line] * shares[line] + 0.5


def _rgb(crop):
    return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)
