"""Where frames come from: a video file, a folder of images, a camera or a stream. One frame is held at a time.

OpenCV decodes to BGR; everything that leaves this file is RGB.
"""

import math
import os
import re
import sys
from collections.abc import Iterator

import cv2
import numpy as np

from hiptrack.data.depth import LevelRange
from hiptrack.data.image_heads import peek
from hiptrack.data.listing import image_names
from hiptrack.data.reading import MAX_PIXELS, read_image_rgb
from hiptrack.errors import DataError
from hiptrack.extras.video.containers import missing_bytes
from hiptrack.extras.video.outputs import as_file, packets

# Containers that count their frames; the others give a length in time, from which OpenCV only estimates a number.
COUNTED_SUFFIXES = (".mp4", ".m4v", ".mov", ".3gp", ".avi")
GREY_16_BITS = int.from_bytes(b"Y1\0\x10", "little")  # FFmpeg's pixel format, of thermal cameras
TOO_FAST = 1000  # frames/s; from there on it is the clock of a container without a frame rate


class Source:
    """Frames in order, to be read once, within a `with`.

    name: what messages call it. fps: frames a second, None where unknown. total: number of frames, or an estimate; None
    where unknown. notes: what is worth telling once it has ended.
    """

    name: str
    fps: float | None = None
    total: int | None = None

    def __init__(self):
        self.notes: list[str] = []

    def frames(self, start: int = 1) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (number from 1, frame uint8 [H,W,3] RGB) from frame number `start` on.

        Raises DataError, with the frame's number, for one that cannot be decoded, and for a source that ends too early.
        """
        raise NotImplementedError

    def reads(self, path: str | os.PathLike) -> bool:
        """Whether writing to this path would change what is read."""
        return False

    def close(self):
        """Let go of the file or device."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def open_source(text: str) -> Source:
    """A Source from what a user writes: a file, a folder, a camera (a number or /dev/videoN), an address with "://".

    Raises DataError where there is no such thing or it cannot be opened.
    """
    if re.fullmatch(r"[0-9]{1,4}", text) or re.fullmatch(r"/dev/video[0-9]+", text):
        return CameraSource(text)
    path = text.removeprefix("file://")
    if "://" in path:
        return StreamSource(path)
    if os.path.isdir(path):
        return FolderSource(path)
    if os.path.isfile(path):
        return VideoSource(path)
    raise DataError(
        f"{text}: there is no such file or folder. Expected a video file, a folder of images, a camera (a number or "
        "/dev/videoN) or a stream (rtsp://..., http://...)."
    )


class FolderSource(Source):
    """The images of a folder in natural order."""

    def __init__(self, folder: str):
        super().__init__()
        self.name = folder
        self._images = image_names(folder)
        self.total = len(self._images)
        if peek(os.path.join(folder, self._images[0]))[0] > 8:
            self.notes.append(
                f"{folder}: more than 8 bits a channel, shown in 8 bits by the range of {self._images[0]}"
            )

    def frames(self, start=1):
        if start > self.total:
            raise _too_short(self.name, start, self.total)
        first = os.path.join(self.name, self._images[0])
        for number, image in enumerate(self._images[start - 1 :], start):
            try:
                frame = read_image_rgb(os.path.join(self.name, image), first)
            except DataError as error:
                raise DataError(f"frame {number} cannot be decoded: {error}") from error
            yield number, frame

    def reads(self, path):
        folder, name = os.path.split(os.path.realpath(path))
        return name in self._images and _is_same(folder, self.name)


class _CaptureSource(Source):
    """What OpenCV's VideoCapture reads. `cannot_open`: what to say, after the name, where it does not."""

    def __init__(self, name, target, backend, cannot_open):
        super().__init__()
        self.name = name
        self._capture = cv2.VideoCapture(target, backend)
        if not self._capture.isOpened():
            raise DataError(f"{name}: {cannot_open}")
        sides = [int(self._capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        if math.prod(sides) > MAX_PIXELS:
            raise DataError(
                f"{name}: its frames have {sides[0]}x{sides[1]} pixels, the most that is read is {MAX_PIXELS} pixels. Scale it "
                "down."
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < TOO_FAST else None  # NaN is neither
        self._is_deep = int(self._capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) == GREY_16_BITS
        if self._is_deep:
            self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
            self.notes.append(f"{name}: 16 bits, shown in 8 bits by the range of its first frame")

    def frames(self, start=1):
        number, levels = 0, None
        while self._capture.grab():
            number += 1
            # passed over one by one, since seeking may miss by some frames; the first has the range of all
            if number < start and not (self._is_deep and number == 1):
                continue
            there, frame_bgr = self._capture.retrieve()
            if not there:
                raise DataError(f"{self.name}: frame {number} cannot be decoded.")
            if self._is_deep:
                levels = levels or LevelRange(frame_bgr, self.name)
                frame_bgr = cv2.cvtColor(levels(frame_bgr), cv2.COLOR_GRAY2BGR)
            if number >= start:
                yield number, cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)
        self._check_end(number)
        if number < start:
            raise _too_short(self.name, start, number)

    def _check_end(self, frames):
        """Raise DataError where the source ought not to have ended after so many frames."""

    def close(self):
        self._capture.release()


class VideoSource(_CaptureSource):
    """A video file, turned as its rotation metadata say."""

    def __init__(self, path: str):
        # Named, since other backends take a name with digits for a pattern of images.
        super().__init__(
            path,
            as_file(path),
            cv2.CAP_FFMPEG,
            "cannot be opened as a video. Expected a whole file in a format that OpenCV reads (mp4, avi, mkv, ...); "
            "it may be cut off, damaged or of another kind.",
        )
        total = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.total = int(total) if 0 < total < 1e9 else None

    def reads(self, path):
        return _is_same(path, self.name)

    def _check_end(self, frames):
        missing = missing_bytes(self.name)
        if missing and frames:
            raise DataError(
                f"{self.name}: it ends after frame {frames}, and at least {missing} bytes are missing of what it ought to hold. "
                f"Expected a whole video; this one is cut off there. With at most {frames} frames it can be tracked."
            )
        if self.total is None or frames >= self.total or missing == 0:
            return
        if not self.name.lower().endswith(COUNTED_SUFFIXES):
            self.notes.append(
                f"{self.name}: it ended after frame {frames}; by its length in time it would have about {self.total}. Whether it "
                "was cut off cannot be told from a file of this kind"
            )
            return
        # A file trimmed without encoding it anew counts frames that it does not show, but it holds them.
        if packets(self.name) < self.total:
            raise DataError(
                f"{self.name}: frame {frames + 1} cannot be decoded, and the file ought to have {self.total}. Expected a whole "
                f"video; this one is cut off or damaged there. With at most {frames} frames it can be tracked."
            )
        self.notes.append(
            f"{self.name}: {frames} frames were shown of the {self.total} it holds; it was trimmed, or some are damaged"
        )


class CameraSource(_CaptureSource):
    """A camera, by number or device; it has no end."""

    def __init__(self, text: str):
        target, backend = (text, cv2.CAP_ANY) if text.startswith("/") else (int(text), cv2.CAP_ANY)
        if sys.platform == "linux":
            target, backend = text if text.startswith("/") else f"/dev/video{int(text)}", cv2.CAP_V4L2
            if not os.path.exists(target):
                raise DataError(
                    f"camera {text}: there is no {target}. Expected a camera's number or device.{_cameras()}"
                )
        super().__init__(
            f"camera {text}",
            target,
            backend,
            "cannot be opened. Expected a camera that may be read and that no other program uses.",
        )

    def _check_end(self, frames):
        raise DataError(
            f"{self.name}: no picture came after frame {frames}. Expected one that goes on; was it unplugged?"
        )


class StreamSource(_CaptureSource):
    """A stream by its address. When it ends cannot be told from a broken connection, so its end is no error."""

    def __init__(self, address: str):
        name = re.sub(r"//[^/]*@", "//", address)  # messages are copied around, passwords should not be
        super().__init__(
            name,
            address,
            cv2.CAP_FFMPEG,
            "the stream cannot be opened. Expected the address of a video that can be reached now (rtsp://..., http://...).",
        )

    def _check_end(self, frames):
        if not frames:
            raise DataError(f"{self.name}: the stream gave no frame.")
        self.notes.append(f"{self.name}: the stream ended after frame {frames}")


def _too_short(name, start, frames):
    if not frames:
        return DataError(f"{name}: it holds no frame that can be decoded.")
    return DataError(f"{name}: frame {start} was asked for as the first, but there are only {frames} frames.")


def _cameras():
    found = sorted(entry for entry in os.listdir("/dev") if re.fullmatch("video[0-9]+", entry))
    return f" Here are {', '.join(f'/dev/{entry}' for entry in found)}." if found else " There is no camera here."


def _is_same(path, other):
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)
