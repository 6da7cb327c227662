"""JPEGs that lack a part of their data though they have an end: a download or a copy with a hole.

libjpeg paints what is missing without an error. Its warnings on stderr name no file and cannot be caught in a process that
does other things (image_report.py does). But two signs can be read off the data and the picture.
"""

import io

import cv2
import numpy as np

from hiptrack.data.image_heads import BLOCK, JPEG_END, JpegHead

ZEROS = bytes(64)  # more than one block of a picture
GREY = 128  # of a block without data
NOISE_A_BLOCK = 64  # bytes; random codes take a quarter of it on average


def has_zeros(data: bytes, head: JpegHead) -> bool:
    """Whether a run of zero bytes, as of a file that was laid out but not filled, stands in the picture's data.

    Zero bits are the first code of a Huffman table. Where that code is one of a coefficient, as in the standard's tables,
    they mean blocks in which all 63 coefficients are negative: there are no such pictures.
    """
    if head.has_codes_of_zeros:
        return False
    place = data.find(ZEROS, head.scan_at)
    return 0 <= place < data.find(JPEG_END, head.scan_at)


def ends_early(data: bytes, head: JpegHead, image_bgr: np.ndarray) -> bool:
    """Whether a picture's data end before the picture. image_bgr: [H, W, 3], decoded down to a row of the picture, at any scale.

    The decoder leaves what comes behind the end grey. Where the last row ends so, something is put behind the data: it
    becomes a part of the picture if that is not complete.
    """
    end = max(BLOCK * image_bgr.shape[1] // head.width, 1)  # a block, at this scale
    if not (head.is_plain and head.in_order) or cv2.countNonZero(image_bgr[-1, -end:].reshape(-1) - GREY):
        return False
    blocks = -(-head.width // BLOCK) * -(-head.height // BLOCK)
    noise = np.random.default_rng(0).integers(1, 255, blocks * NOISE_A_BLOCK, np.uint8).tobytes()
    data = data[: data.find(JPEG_END, head.scan_at)]
    try:
        return not np.array_equal(_last_row(data + JPEG_END), _last_row(data + noise + JPEG_END))
    except (OSError, SyntaxError, ValueError):
        return True


def _last_row(data):
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))[-1]
