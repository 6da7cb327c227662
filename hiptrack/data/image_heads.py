"""What the head of an image file says before anything is decoded: the picture's size and depth, and how a JPEG is coded.

A few bytes can stand for any number of pixels. So the size is read here, and a picture that is too large is refused
(reading.py), before a decoder makes room for it.
"""

import io
import re
import struct
from dataclasses import dataclass

from hiptrack.files import check_file

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"  # the markers SOI and EOI
PNG_START, PNG_HEAD = b"\x89PNG\r\n\x1a\n", b"IHDR"
BMP_START, BMP_OLD_HEAD = b"BM", 12  # bytes of OS/2's head, which has 16-bit sizes

BASELINE, EXTENDED, PROGRESSIVE, PROGRESSIVE_ARITHMETIC = 0xC0, 0xC1, 0xC2, 0xCA
OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # lossless, hierarchical, arithmetic
WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xD8)}  # a stuffed 0xFF, TEM, RST0 to RST7
HUFFMAN_TABLES, SCAN, RESTART_INTERVAL, APP1 = 0xC4, 0xDA, 0xDD, 0xE1
SCAN_START = b"\xff\xda"
OF_COEFFICIENTS, FIRST_SYMBOL = 1, 17  # the class of a table, and where in it the symbols begin
MOST_SEGMENTS = 4096  # before the picture's; a large colour profile has 255
BLOCK = 8  # pixels a side

_NO_FILLING = re.compile(rb"[^\xff]")

MAX_IMAGE_BYTES = 2**29
PEEK_BYTES = 2**16
UPRIGHT, ORIENTATION_TAG = 1, 0x0112
EXIF_MARKS = b"Exif", b"eXIf", b"EXIF"  # of JPEG, PNG, WebP

SPARE_ROWS = 2  # chroma is interpolated between rows, so that the last one decoded depends on the one below
READ_AHEAD = 64  # bytes; libjpeg-turbo fills a buffer of eight


@dataclass(frozen=True)
class ImageHead:
    """width, height: of the picture as it is stored, in pixels. bits: of a channel. fewest_bytes: that the file of such a
    picture has at least."""

    width: int
    height: int
    bits: int = 8
    fewest_bytes: int = 0


@dataclass(frozen=True)
class JpegHead(ImageHead):
    """height_at, scan_at: where in the file the height stands, and the first scan's head. is_plain: grey or three colours of
    8 bits, Huffman-coded, and without Exif data, which may tell the decoder to turn the picture. in_order: its rows lie in
    the file one after another (one scan, not progressive, without restart markers). has_codes_of_zeros: zero bits alone may
    code any number of its blocks (see jpeg_holes.py). scans: how often the decoder goes over the picture."""

    height_at: int = 0
    scan_at: int = 0
    is_plain: bool = False
    in_order: bool = False
    has_codes_of_zeros: bool = True
    scans: int = 1

    def upper_rows(self, data: bytes, rows: int) -> bytes:
        """The file `data` cut to an image whose first `rows` rows are those of the whole; `data` where that fails.

        Its height is set to `rows` and some more, where a decoder stops. The end marker gives way to zeros: looking for
        it behind rows that are not decoded would make libjpeg warn of extraneous data, and it reads some bytes ahead.
        """
        rows += SPARE_ROWS
        if not self.in_order or rows >= self.height:
            return data
        end = data.rindex(JPEG_END)
        return data[: self.height_at] + rows.to_bytes(2, "big") + data[self.height_at + 2 : end] + bytes(READ_AHEAD)


def read_head(data: bytes) -> ImageHead | None:
    """The head of an image file, a JpegHead for a JPEG; None where there is none that can be read."""
    if data.startswith(JPEG_START):
        return _jpeg_head(data)
    if data.startswith(PNG_START):
        return ImageHead(*struct.unpack_from(">IIB", data, 16)) if data[12:16] == PNG_HEAD and len(data) > 24 else None
    if data.startswith(BMP_START) and len(data) >= 26:
        form = "<HH" if int.from_bytes(data[14:18], "little") == BMP_OLD_HEAD else "<ii"
        width, height = struct.unpack_from(form, data, 18)
        return ImageHead(width, abs(height))
    return _other_head(data)


def peek(path: str) -> tuple[int, int]:
    """(bits of a channel, Exif orientation) of an image file by its first bytes; (8, UPRIGHT) where they do not tell."""
    try:
        check_file(path, MAX_IMAGE_BYTES)
        with open(path, "rb") as file:
            data = file.read(PEEK_BYTES)
    except OSError:  # told when it is decoded
        return 8, UPRIGHT
    head = read_head(data)
    return 8 if head is None else head.bits, orientation(data)


def orientation(data: bytes) -> int:
    """The Exif orientation of an image file's content: UPRIGHT, or 2 to 8, by which decoders mirror or turn it."""
    from PIL import Image

    if not any(data.find(mark, 0, PEEK_BYTES) >= 0 for mark in EXIF_MARKS):
        return UPRIGHT
    try:
        with Image.open(io.BytesIO(data)) as image:
            return int(image.getexif().get(ORIENTATION_TAG, UPRIGHT))
    except Exception:  # noqa: BLE001  as in _other_head
        return UPRIGHT


def _other_head(data):
    """The head of a file of another kind that stands under an image's name, such as WebP, GIF or TIFF."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return ImageHead(*image.size)
    except Exception:  # noqa: BLE001  the parsers of its many kinds fail in as many ways
        return None


def _jpeg_head(data):
    place, frame, exif, restarts, codes_of_zeros = len(JPEG_START), None, False, False, True
    for _ in range(MOST_SEGMENTS):
        # like libjpeg, passing over what does not belong there, and over filling
        place = data.find(b"\xff", place)
        found = _NO_FILLING.search(data, place) if place >= 0 else None
        if found is None:
            return None
        marker, place, body = data[found.start()], found.end(), found.end() + 2
        if marker in WITHOUT_LENGTH:
            continue
        if marker == SCAN:
            return None if frame is None else _described(data, *frame, exif, restarts, codes_of_zeros, body)
        if marker in OTHER_FRAMES or marker in (BASELINE, EXTENDED, PROGRESSIVE):
            frame = marker, body
        elif marker == APP1:
            exif = exif or data.startswith(b"Exif", body)
        elif marker == RESTART_INTERVAL:
            restarts = True
        place += int.from_bytes(data[place:body], "big")
        if marker == HUFFMAN_TABLES:
            codes_of_zeros = codes_of_zeros and not _first_is_a_coefficient(data[body:place])
    return None


def _first_is_a_coefficient(tables):
    """Whether the first code, of zeros, of any table for coefficients stands for one that is not zero."""
    place = 0
    while place + FIRST_SYMBOL < len(tables):
        if tables[place] >> 4 == OF_COEFFICIENTS and tables[place + FIRST_SYMBOL] & 15:
            return True
        place += FIRST_SYMBOL + sum(tables[place + 1 : place + FIRST_SYMBOL])  # counts of codes by their length
    return False


def _described(data, marker, body, exif, restarts, codes_of_zeros, scan_body):
    """The JpegHead of a file whose frame's and first scan's heads lie in these places."""
    if len(data) < max(body + 6 + 3 * data[body + 5], scan_body + 1) or not data[body + 5]:
        return None
    bits, height, width, components = struct.unpack_from(">BHHB", data, body)
    if not width or not height:
        return None
    huffman = marker in (BASELINE, EXTENDED, PROGRESSIVE)
    is_plain = huffman and bits == 8 and components in (1, 3) and not exif
    in_order = huffman and marker != PROGRESSIVE and data[scan_body] == components and not restarts
    fewest = 0
    if huffman:
        sides = [(byte >> 4, byte & 15) for byte in data[body + 7 : body + 7 + 3 * components : 3]]
        columns, rows = (max(max(own), 1) * BLOCK for own in zip(*sides))
        blocks = sum(-(-width * across // columns) * -(-height * down // rows) for across, down in sides)
        # a code has a bit at least; a block has one of them, or two where all of it is coded at once
        fewest = blocks * (1 if marker == PROGRESSIVE else 2) // 8
    codes_of_zeros = codes_of_zeros or marker not in (BASELINE, EXTENDED)
    # the decoder leaves out what follows a scan of all components that is whole in itself
    in_one = marker not in (PROGRESSIVE, PROGRESSIVE_ARITHMETIC) and data[scan_body] == components
    scans = 1 if in_one else 1 + data.count(SCAN_START, scan_body)
    return JpegHead(width, height, bits, fewest, body + 1, scan_body, is_plain, in_order, codes_of_zeros, scans)
