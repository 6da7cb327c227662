"""What a JPEG file's head says of it (ITU-T T.81, annex B): its size without decoding it, and how to decode its upper rows."""

from dataclasses import dataclass

from hiptrack.data.reading import JPEG_END, JPEG_START

BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # lossless, hierarchical, arithmetic
SCAN, RESTART_INTERVAL, APP1 = 0xDA, 0xDD, 0xE1
SPARE_ROWS = 2  # chroma is interpolated between rows, so that the last one decoded depends on the one below
READ_AHEAD = 64  # bytes; libjpeg-turbo fills a buffer of eight


@dataclass(frozen=True)
class JpegHead:
    """Size of the image in pixels; where in the file its height stands; whether its rows lie in the file one after another
    (one scan, not progressive, without restart markers)."""

    width: int
    height: int
    height_at: int
    in_order: bool

    def upper_rows(self, data: bytes, rows: int) -> bytes:
        """The file `data` cut to an image whose first `rows` rows are those of the whole; `data` where it is not in order.

        Its height is set to `rows` and some more, where a decoder stops. The end marker gives way to zeros: looking for it
        behind rows that are not decoded would make libjpeg warn of extraneous data, and it reads some bytes ahead.
        """
        rows += SPARE_ROWS
        if not self.in_order or rows >= self.height:
            return data
        end = data.rindex(JPEG_END)
        return data[: self.height_at] + rows.to_bytes(2, "big") + data[self.height_at + 2 : end] + bytes(READ_AHEAD)


def read_head(data: bytes) -> JpegHead | None:
    """The head of a JPEG file that is grey or has three colours; None for any other file.

    So too for one with Exif data, which may tell the decoder to turn the image.
    """
    if not data.startswith(JPEG_START):
        return None
    place, frame, restarts = 2, None, False
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        body = place + 4
        if marker in (BASELINE, EXTENDED, PROGRESSIVE):
            frame = marker, body
        elif marker in OTHER_FRAMES or marker == APP1 and data.startswith(b"Exif", body):
            return None
        elif marker == RESTART_INTERVAL:
            restarts = True
        elif marker == SCAN:
            return None if frame is None else _head(data, *frame, restarts, body)
        place += 2 + length
    return None


def _head(data, marker, body, restarts, scan_body):
    height, width = (int.from_bytes(data[body + offset : body + offset + 2], "big") for offset in (1, 3))
    components, in_scan = data[body + 5], data[scan_body]
    if components not in (1, 3) or not height or not width:
        return None
    in_order = marker != PROGRESSIVE and in_scan == components and not restarts
    return JpegHead(width, height, body + 1, in_order)
