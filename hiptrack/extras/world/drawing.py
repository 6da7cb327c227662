"""Putting sprites on a picture. Pictures are float32 [H, W, C] in grey levels; affines are [2, 3], float64.

An affine takes pixel coordinates (the centre of the first pixel is 0, 0) of one picture to those of another.
"""

import math

import cv2
import numpy as np

SMALLEST_LEVEL = 4
UNBLURRED = (0.0, 0.0)


def thrice(mask):
    """A mask [h, w] for each of three channels: NumPy's broadcasting over so few is slow."""
    return cv2.cvtColor(mask, cv2.COLOR_GRAY2RGB)


def compose(colour, alpha):
    """float32 [h, w, 4] of uint8 RGB and opacity: RGB times the opacity, and the opacity times 255."""
    product = cv2.multiply(colour, thrice(alpha), scale=1 / 255, dtype=cv2.CV_32F)
    return cv2.merge((*cv2.split(product), alpha.astype(np.float32)))


def halvings(scale):
    """How often to halve what is drawn at `scale` frame pixels per pixel: as sharp as a camera, hardly any alias."""
    return max(0, int(math.log2(1 / max(scale, 1e-3)) + 0.25))


class Levels:
    """A picture at its size and at its halves, each made when first needed."""

    def __init__(self, picture):
        self._levels = [(picture, np.eye(2, 3))]

    def at(self, scale):
        """(the picture to draw at `scale` pixels per pixel of the whole one, unaliased; affine to the whole one)."""
        wanted, levels = halvings(scale), self._levels
        while len(levels) <= wanted and min(levels[-1][0].shape[:2]) >= 2 * SMALLEST_LEVEL:
            last, whole = levels[-1][0], levels[0][0]
            half = cv2.resize(last, (last.shape[1] // 2, last.shape[0] // 2), interpolation=cv2.INTER_AREA)
            right, down = whole.shape[1] / half.shape[1], whole.shape[0] / half.shape[0]
            levels.append((half, np.array(((right, 0, (right - 1) / 2), (0, down, (down - 1) / 2)))))
        return levels[min(wanted, len(levels) - 1)]


def chain(after, before):
    """The affine that does `before`, then `after`."""
    result = after[:, :2] @ before
    result[:, 2] += after[:, 2]
    return result


def affines(turn, origin, place):
    """[..., 2, 3] that turn around `origin` and put it at `place`, [2] or [..., 2]; turn: (a, b, c, d), the rows of a
    matrix, numbers or [...] each."""
    a, b, c, d = turn
    result = np.empty((*np.shape(a), 2, 3))
    result[..., 0, 0], result[..., 0, 1], result[..., 1, 0], result[..., 1, 1] = a, b, c, d
    result[..., 2] = place - result[..., :2] @ origin
    return result


def scale_of(affine):
    """How many times longer an affine makes things: the root of how it changes areas."""
    (a, b, _), (c, d, _) = affine.tolist()
    return math.sqrt(abs(a * d - b * c))


def draw(picture, levels, affine, scale, blur=UNBLURRED, gain=None):
    """Draws premultiplied RGBA Levels over a picture of 3 or 4 channels.

    affine: from the whole canvas to the picture. scale: frame pixels per canvas pixel. blur: the path (right, down) in
    picture pixels that it runs while the shutter is open. gain: factors of RGB.
    """
    patch, where = placed(picture.shape, levels, affine, scale, blur)
    if patch is None:
        return
    if gain is not None:
        patch = cv2.multiply(patch, (*gain, 1.0), dtype=cv2.CV_32F)
    through = 1 - cv2.extractChannel(patch, 3) * np.float32(1 / 255)
    target = picture[where]
    if picture.shape[2] == 3:
        target *= thrice(through)
        target += cv2.cvtColor(patch, cv2.COLOR_RGBA2RGB)
    else:
        target *= through[..., None]
        target += patch


def placed(shape, levels, affine, scale, blur=UNBLURRED):
    """(what `draw` would lay over a picture of this shape, the window it fills), or (None, None)."""
    source, to_whole = levels.at(scale)
    affine = chain(affine, to_whole)
    height, width = source.shape[:2]
    (a, b, x), (c, d, y) = affine.tolist()
    xs = (x - (a + b), x + a * width - b, x - a + b * height, x + a * width + b * height)
    ys = (y - (c + d), y + c * width - d, y - c + d * height, y + c * width + d * height)
    reach_x, reach_y = abs(blur[0]) / 2, abs(blur[1]) / 2
    left, right = max(int(min(xs) - reach_x), 0), min(int(max(xs) + reach_x) + 2, shape[1])
    top, bottom = max(int(min(ys) - reach_y), 0), min(int(max(ys) + reach_y) + 2, shape[0])
    if left >= right or top >= bottom:
        return None, None
    # blurred with a margin of its own, so that what lies outside the picture reaches into it
    more_x, more_y = int(np.ceil(reach_x)), int(np.ceil(reach_y))
    moved = np.array(((a, b, x - left + more_x), (c, d, y - top + more_y)))
    patch = cv2.warpAffine(
        source, moved, (right - left + 2 * more_x, bottom - top + 2 * more_y), flags=cv2.INTER_LINEAR
    )
    if max(abs(blur[0]), abs(blur[1])) >= 1:
        patch = motion_blurred(patch, blur)
    if patch.ndim == 2:
        patch = patch[..., None]
    return patch[more_y : more_y + bottom - top, more_x : more_x + right - left], np.s_[top:bottom, left:right]


def motion_blurred(picture, path):
    """A picture smeared along a path (right, down) in pixels."""
    radius = int(np.ceil(max(abs(path[0]), abs(path[1])) / 2))
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.uint8)
    ends = [tuple(round((radius + sign * value / 2) * 16) for value in path) for sign in (-1, 1)]
    cv2.line(kernel, *ends, 255, 1, cv2.LINE_AA, 4)
    kernel = kernel.astype(np.float32) / kernel.sum()
    return cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REPLICATE)


def lay(picture, colour, mask, opacity=1.0):
    """Blends a colour, a picture of the same size, into a float32 picture where a uint8 mask [h, w] says so."""
    left, top, width, height = cv2.boundingRect(mask)
    if width:
        where = np.s_[top : top + height, left : left + width]
        blend(picture[where], colour[where], mask[where], opacity)


def blend(target, colour, mask, opacity=1.0):
    """Changes a float32 picture to a colour, of the same shape, where a uint8 mask [h, w] says so."""
    target += thrice(mask * np.float32(opacity / 255)) * (colour - target)
