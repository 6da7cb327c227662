"""The files that tracking writes frame by frame: a video and JSON lines. What was there before is overwritten."""

import contextlib
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np

from hiptrack.errors import ConfigError, DataError, HiptrackError
from hiptrack.files import encodable

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}


def codec_of(path):
    """The four letters of a video file's codec, by its ending. Raises ConfigError for an ending that is not known."""
    suffix = Path(path).suffix.lower()
    if suffix not in CODECS:
        raise ConfigError(f"--out {path}: a video file ending in {', '.join(CODECS)} was expected.")
    return CODECS[suffix]


def as_file(path):
    """A path as FFmpeg must get it: of 12:30.mp4 or cam:1.mp4 it would take what stands before the colon for a protocol.

    Raises ConfigError for a name that is no UTF-8 text, which OpenCV does not take.
    """
    if not encodable(str(path)):
        raise ConfigError(f"{path}: the name of a video needs to be UTF-8 text, and so do its folders. Rename it.")
    return os.path.join(os.curdir, path)


def packets(path):
    """Number of encoded frames in a video file, counted without decoding them; 0 where it cannot be opened."""
    capture = cv2.VideoCapture(as_file(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    return count


class VideoOutput:
    """A video file of frames of one size; after the `with`, however left, `complete` says whether it holds all of them.

    Raises HiptrackError where it cannot be written, and at the end where it lacks frames.
    """

    def __init__(self, path, size, fps):
        """size: (width, height) of the pictures. The codecs want even sides: an odd one gets its last line twice."""
        self.path, self.frames, self.complete = Path(path), 0, False
        self._padding = size[1] % 2, size[0] % 2
        codec, even = codec_of(path), (size[0] + self._padding[1], size[1] + self._padding[0])
        existed = self.path.exists()
        _prepare(self.path, "--out")
        digits = 3 - (fps >= 65) - (fps >= 650)  # MPEG-4 stores the rate as a fraction of 16-bit numbers
        self._writer = cv2.VideoWriter(as_file(path), cv2.VideoWriter_fourcc(*codec), round(fps, digits), even)
        if not self._writer.isOpened():
            if not existed:
                self.path.unlink(missing_ok=True)
            raise HiptrackError(
                f"{path} cannot be written: OpenCV has no encoder for {codec} video of {even[0]}x{even[1]} pixels at "
                f"{fps:g} frames/s. Expected one of {', '.join(CODECS)} that it can write; .avi asks for least."
            )

    def write(self, picture_rgb):
        """Append a uint8 [H,W,3] RGB picture."""
        below, right = self._padding
        self._writer.write(cv2.copyMakeBorder(picture_rgb[..., ::-1], 0, below, 0, right, cv2.BORDER_REPLICATE))
        self.frames += 1

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self._writer.release()
        # OpenCV's writer reports no error, not even a full disk.
        held = packets(self.path)
        self.complete = 0 < self.frames <= held
        if kind is None and not self.complete:
            raise HiptrackError(
                f"{self.path} was not written completely: it holds {held} of {self.frames} frames. Is the disk full?"
            )


class JsonLines:
    """A file of JSON objects, one a line, each written at once. Raises HiptrackError where that fails."""

    def __init__(self, path):
        self.path, self.frames, self.complete = Path(path), 0, False
        _prepare(self.path, "--jsonl")
        self._file = open(self.path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115  whole lines, whenever it ends

    def write(self, record):
        try:
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
        except OSError as error:
            raise _not_written(self.path, error, "--jsonl") from error
        self.frames += 1

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self._file.close()
            self.complete = True
        except OSError as error:
            if kind is None:
                raise _not_written(self.path, error, "--jsonl") from error


def jsonl_record(tracked):
    """A Tracked (extras/video/track.py) as a line of the JSON file."""
    record = {"frame": tracked.number, "box": np.asarray(tracked.box_xywh).tolist(), "score": tracked.score}
    if tracked.challenge is not None:
        record["challenge"] = tracked.challenge
    return {**record, "seconds": round(tracked.seconds, 6)}


def _prepare(path, option):
    """Make the folder, and see with the system's own reason whether the file can be written."""
    try:
        with contextlib.suppress(FileExistsError):  # a file instead of the folder: opening says so
            path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass
    except OSError as error:
        raise _not_written(path, error, option) from error


def _not_written(path, error, option):
    return HiptrackError(f"{path} cannot be written: {error.strerror or error} ({option}: a file)")


_TITLE = "hiptrack"
_QUIT_KEYS = (ord("q"), 27)  # 27: Escape


def has_display():
    """Whether a window can be opened: OpenCV has them built in and, on Linux, a display is named.

    Without the latter, OpenCV's Qt would end the whole process.
    """
    # older versions cannot be asked; they raise cv2.error later
    built_in = not hasattr(cv2, "currentUIFramework") or cv2.currentUIFramework() != ""
    return built_in and (sys.platform != "linux" or bool(os.environ.get("DISPLAY")))


def choose_box(frame_rgb):
    """The box that the user draws on a frame uint8 [H,W,3]: xywh [4] float64. Raises DataError where none was drawn."""
    try:
        box = cv2.selectROI(_TITLE, _bgr(frame_rgb))
        cv2.destroyWindow(_TITLE)
    except cv2.error as error:
        raise _no_window(error) from error
    if box[2] <= 0 or box[3] <= 0:
        raise DataError("No box was drawn. Draw one with the mouse and press Enter, or give --box x,y,w,h.")
    return np.array(box, np.float64)


class Window:
    """Shows pictures while it is open."""

    def __init__(self):
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            raise _no_window(error) from error

    def show(self, picture_rgb) -> bool:
        """Show uint8 [H,W,3] RGB; False when the user has closed the window or pressed q or Escape."""
        cv2.imshow(_TITLE, _bgr(picture_rgb))
        key = cv2.waitKey(1) & 0xFF
        return key not in _QUIT_KEYS and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        cv2.destroyAllWindows()


def _no_window(error):
    return HiptrackError(
        f"OpenCV cannot open a window: {error.err or error}. Give --box x,y,w,h, and leave out --display."
    )


def _bgr(picture_rgb):
    return np.ascontiguousarray(picture_rgb[..., ::-1])
