"""Texts and images of data sets: read in bounded size, with errors that name the file and the line."""

import collections.abc
import functools
import os
from pathlib import Path

import cv2
import numpy as np

from hiptrack import crops
from hiptrack.data.annotation_form import MAX_COORDINATE
from hiptrack.data.depth import LevelRange
from hiptrack.data.image_heads import JPEG_END, JPEG_START, MAX_IMAGE_BYTES, ImageHead, JpegHead, peek, read_head
from hiptrack.data.jpeg_holes import ends_early, has_zeros
from hiptrack.data.labels import MAX_LINES
from hiptrack.data.sources import note_source
from hiptrack.errors import DataError, nearest
from hiptrack.files import read_bytes, read_text, signature

MAX_TEXT_BYTES = 2**26
IN_FULL = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH  # three channels, uint8 or whatever else the file holds
MAX_PIXELS = 2**26  # of an image: 8192 x 8192, of which 200 MB are decoded
MAX_SCANS = 100  # of a JPEG, as in libjpeg's cjpeg; each takes time for all of the picture, however few bytes it has

BLANK = " \t"  # what may stand around a number; a line ends with a newline alone, however the file writes it


def read_boxes(path: str, frames: int, first_box_only: bool) -> np.ndarray:
    """A file of boxes, one a frame -> [frames, 4] (or [1, 4]) float64 xywh in pixels.

    Numbers are separated by commas, tabs or spaces. Raises DataError for a missing file, a malformed
    line, a number that is not finite, and a number of lines other than `frames`.
    """
    boxes = parse_boxes(path)
    if len(boxes) != frames and not (first_box_only and len(boxes) == 1):
        hint = " (Only the split 'test' may give the first box alone.)" if len(boxes) == 1 else ""
        raise DataError(
            f"{path}: {len(boxes)} boxes for {frames} images in {os.path.dirname(path)}. Expected one line a "
            f"frame; complete the file or the images.{hint}"
        )
    return boxes


def parse_boxes(path: str, nan_is_absent: bool = False) -> np.ndarray:
    """The boxes [N, 4] float64 of a file's lines; with `nan_is_absent` a line of four NaN is read as 0,0,0,0."""
    form = "four numbers x,y,w,h separated by commas, tabs or spaces"
    boxes = read_rows(path, lambda line: line.split(",") if "," in line else line.split(), form)
    if nan_is_absent:
        boxes[np.isnan(boxes).all(1)] = 0
    return require_finite(path, boxes)


def read_rows(path: str, fields: collections.abc.Callable, form: str) -> np.ndarray:
    """The four numbers of each line, [N, 4] float64: `fields(line)` gives their texts, `form` says what a line holds."""
    if not os.path.lexists(path):
        raise DataError(f"{path}: not found. Expected the target's box in each frame, a line of {form}; add it.")
    rows, lines = [], read_lines(path)
    whole = "".join(lines)
    looks_odd = "_" in whole or not whole.isascii() or not whole.replace("\t", "").isprintable()
    for number, line in enumerate(lines, 1):
        texts = fields(line)
        try:
            row = [float(text) for text in texts]
        except ValueError:
            row = []
        if len(row) != 4 or looks_odd and not (is_plain("".join(texts)) and line.replace("\t", "").isprintable()):
            raise DataError(f"{path}:{number}: {line[:80]!r} is not a box. Expected {form}; correct the line.")
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, 4)


def is_plain(number: str) -> bool:
    """Whether a text that `float` takes is a number to other programs too: 1_0 and digits beyond ASCII are not."""
    return number.isascii() and "_" not in number


def require_finite(path: str, boxes: np.ndarray) -> np.ndarray:
    """The boxes [N, 4], one of each line of a file; DataError for one that is not finite or far beyond any image."""
    odd = ~(np.abs(boxes) <= MAX_COORDINATE).all(1)
    if odd.any():
        index = int(odd.argmax())
        raise DataError(
            f"{path}:{index + 1}: the box {show(boxes[index])} is not finite or beyond {MAX_COORDINATE:g} "
            "pixels. Expected x,y,w,h in pixels; correct the line (an absent target is written 0,0,0,0)."
        )
    return boxes


def require_pixels(path: str, boxes: np.ndarray) -> None:
    """Raise DataError where the boxes [N, 4] of a target, which the file `path` gives, can only be normalised to 0..1."""
    if crops.are_normalised(boxes):
        raise DataError(
            f"{path}: no box is as large as a pixel, the first is {show(boxes[0])}: are they in pixels? Expected x,y,w,h in "
            "pixels; multiply boxes that are normalised to 0..1 by the image's width and height."
        )


def read_marks(path: str, frames: int, highest: int, parted: bool = False) -> np.ndarray | None:
    """Whole numbers 0..highest, one a frame, each in a line of its own -> [frames] int64; None for no file.

    parted: those of a line are parted by commas. Raises DataError for anything else.
    """
    if not os.path.lexists(path):
        return None
    allowed, marks = {str(value): value for value in range(highest + 1)}, []
    for number, line in enumerate(read_lines(path), 1):
        for mark in line.strip(BLANK).removesuffix(",").split(",") if parted else [line]:
            if mark not in allowed and mark.strip(BLANK) not in allowed:
                raise DataError(
                    f"{path}:{number}: {mark[:80]!r} is not a label. Expected a whole number in 0..{highest} for each frame; "
                    "correct the line."
                )
            marks.append(allowed[mark if mark in allowed else mark.strip(BLANK)])
    if len(marks) != frames:
        raise DataError(
            f"{path}: {len(marks)} labels for {frames} frames. Expected one a frame; complete the file, or remove it."
        )
    return np.array(marks, np.int64)


def read_names(path: str, found: list[str], what: str) -> list[str]:
    """The names of a list, one a line; blank lines do not count.

    Raises DataError for a name that comes again, and for one that is not among those `found` (`what`, in words).
    """
    line_of_name, known = {}, set(found)
    for number, line in enumerate(read_lines(path), 1):
        name = line.strip()
        if name in line_of_name:
            raise DataError(
                f"{path}:{number}: names {name[:80]!r} again, as line {line_of_name[name]} does. Expected each "
                "sequence once; remove the line."
            )
        if name:
            line_of_name[name] = number
    for name, number in line_of_name.items():
        if name not in known:
            raise DataError(
                f"{path}:{number}: names {name[:80]!r}, but there is no such {what}. {nearest_name(name, found)} "
                "Restore the folder or remove the line."
            )
    return list(line_of_name)


def packaged_list(name: str) -> list[str]:
    """The entries of `lists/NAME.txt`, which comes with this package: its lines but for comments (#)."""
    lines = (Path(__file__).parent / "lists" / f"{name}.txt").read_text("utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def read_lines(path: str) -> list[str]:
    """Lines of a small UTF-8 text file without their ends; blank ones at the end are dropped."""
    note_source(path)
    try:
        text = read_text(path, MAX_TEXT_BYTES).rstrip(f"{BLANK}\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}). Expected a text file; restore it.") from None
    if text.count("\n") >= MAX_LINES:
        raise DataError(
            f"{path}: it has more than {MAX_LINES} lines. Expected a line a frame, or a sequence; restore it."
        )
    return text.split("\n") if text else []


def read_image_rgb(path: str, first: str | None = None) -> np.ndarray:
    """Decodes an image to [H, W, 3] uint8 RGB; DataError names a file that is missing or damaged.

    first: the first frame of the sequence that it is a frame of, by whose range 16 bits become 8 (depth.py); None: it
    is a picture by itself.
    """
    data, head = read_image(path)
    image = decode_bgr(path, data, first=first)
    require_whole(path, data, head, image)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_image(path: str) -> tuple[bytes, ImageHead]:
    """The content of an image file, and its head; DataError names a file that is missing, damaged or too large."""
    try:
        data = read_bytes(path, MAX_IMAGE_BYTES)
    except OSError as error:
        raise DataError(f"{path}: the image cannot be read ({error.strerror or error}). Restore the file.") from None
    head = read_head(data)
    if head is None:
        raise _damaged(path, data)
    if head.width * head.height > MAX_PIXELS:
        raise DataError(
            f"{path}: the image has {head.width}x{head.height} pixels, the most that is read is {MAX_PIXELS} pixels. Expected "
            "a frame of a video; scale it down, and its boxes."
        )
    if isinstance(head, JpegHead) and head.scans > MAX_SCANS:
        raise DataError(
            f"{path}: the JPEG is made of {head.scans} scans, the most that are read are {MAX_SCANS}. Expected a picture that a "
            "decoder goes over some ten times; save it again."
        )
    # OpenCV paints what a cut JPEG lacks grey; only the missing end-of-image marker tells, or too few bytes.
    if len(data) < head.fewest_bytes or data.startswith(JPEG_START) and data.rfind(JPEG_END) < 0:
        raise _damaged(path, data)
    if isinstance(head, JpegHead) and has_zeros(data, head):
        raise _with_a_hole(path)
    return data, head


def require_whole(path: str, data: bytes, head: ImageHead, image_bgr: np.ndarray) -> None:
    """Raise DataError where the data of a JPEG end before its picture; see jpeg_holes.ends_early."""
    if isinstance(head, JpegHead) and ends_early(data, head, image_bgr):
        raise _with_a_hole(path)


def decode_bgr(
    path: str,
    data: bytes,
    flags: int = IN_FULL,
    first: str | None = None,
    stated_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Decodes the content of the image file `path` to [H, W, 3] uint8 BGR; DataError where it is damaged.

    first: as for read_image_rgb. stated_size: the (width, height) that its boxes belong to, which tells whether the
    picture is turned by its Exif orientation; DataError where it has that size neither way. Without it, it is turned.
    """
    image, first = _decode(path, data, flags), first or path
    if stated_size is not None and image.shape[1::-1] != stated_size:
        turned, image = image, _decode(path, data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
        require_size(path, image.shape[1::-1], stated_size, turned.shape[1::-1])
    if image.dtype == np.uint8 and (data.startswith(JPEG_START) or not _is_deep(first) or peek(first)[0] <= 8):
        return image
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path}: the image has values of the type {image.dtype}. Expected 8 or 16 bits a channel; convert it."
        )
    levels = _level_range(first, signature(first)) if image.dtype == np.uint16 else None
    if levels is None:
        raise DataError(
            f"{path}: the image has {8 * image.itemsize} bits a channel, the first frame of its sequence, {first}, another "
            "number. Expected the same in all frames of a sequence; convert it."
        )
    return levels(image)


def require_size(path, size, stated_size, turned_size=None):
    """Raise DataError unless an image's (width, height), as it is stored, are those that its data set states."""
    if size != stated_size:
        turned = ""
        if turned_size not in (None, size):
            turned = f", or {turned_size[0]}x{turned_size[1]} as its Exif orientation turns it"
        raise DataError(
            f"{path}: the image has {size[0]}x{size[1]} pixels{turned}; its data set states {stated_size[0]}x"
            f"{stated_size[1]}. Expected the picture that its boxes belong to; restore it, or correct the stated size."
        )


@functools.lru_cache(2**16)
def _is_deep(first):
    """Whether a sequence's first frame had more than 8 bits a channel, by its head, when it was asked first."""
    return peek(first)[0] > 8


@functools.lru_cache(2**16)
def _level_range(first, status):
    """The LevelRange of a sequence by its first frame, None where that has 8 bits; `status` changes where the file does."""
    image = _decode(first, read_image(first)[0], IN_FULL)
    return LevelRange(image, first) if image.dtype == np.uint16 else None


def _decode(path, data, flags):
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise _damaged(path, data)
    return image


def _damaged(path, data):
    return DataError(
        f"{path}: the image is damaged or cut off ({len(data)} bytes). Expected a complete JPEG, PNG or "
        "BMP file; copy it again from its source."
    )


def _with_a_hole(path):
    return DataError(
        f"{path}: the image is damaged: a part of its data is missing, and of the picture. Copy it again from its source."
    )


def nearest_name(name: str, names) -> str:
    """A sentence that names the most similar of some names, for an error."""
    close = nearest(name, names)
    return f"The nearest name there is {close!r}." if close else "There is no folder there."


def show(box) -> str:
    return ",".join(f"{value:g}" for value in box)
