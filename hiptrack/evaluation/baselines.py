"""Trackers to compare with: a box that keeps still, and OpenCV's. They need no weights."""

import ctypes
from dataclasses import dataclass

import cv2
import numpy as np

from hiptrack.errors import REPAIR_OPENCV, DataError, HiptrackError

# OpenCV's MIL never finds a feature in a window of 4x4 px, nor stops searching; and to sample the background
# it needs room to move the window.
_MIN_WINDOW = 8
_MIN_ROOM = 24


@dataclass(frozen=True)
class BaselineResult:
    """box xywh [4] float64 in frame pixels; score, always 1; challenge, always None."""

    box: np.ndarray
    score: float = 1.0
    challenge: None = None


class StillBox:
    """The given box, in every frame."""

    def init(self, frame_rgb, box_xywh):
        """frame_rgb uint8 [H,W,3] is not looked at; box_xywh [4] is the answer from now on."""
        self.box = np.array(box_xywh, np.float64)

    def update(self, frame_rgb) -> BaselineResult:
        return BaselineResult(self.box.copy())


class MIL:
    """OpenCV's multiple instance learning tracker (Babenko et al., CVPR 2009).

    It follows a window of whole pixels inside the image; the given box moves with it and keeps its size.
    Deterministic: init seeds the two sources of its random numbers, OpenCV's and the C library's.
    """

    def init(self, frame_rgb, box_xywh):
        """frame_rgb uint8 [H,W,3]; box_xywh [4] in pixels. Raises DataError for a side below 32 px."""
        size = np.array(frame_rgb.shape[1::-1])
        if (size < _MIN_WINDOW + _MIN_ROOM).any():
            raise DataError(
                f"The frame has {size[0]}x{size[1]} px; the MIL baseline takes none with a side below "
                f"{_MIN_WINDOW + _MIN_ROOM}. Leave the sequence or the baseline out."
            )
        self.given = np.array(box_xywh, np.float64)
        extent = np.clip(np.round(self.given[2:]), _MIN_WINDOW, size - _MIN_ROOM)
        corner = np.clip(np.round(self.given[:2] + (self.given[2:] - extent) / 2), 0, size - extent - 2)
        window = [int(value) for value in (*corner, *extent)]
        cv2.setRNGSeed(0)
        ctypes.CDLL(None).srand(0)  # its Haar features come from rand()
        self.tracker = cv2.TrackerMIL_create()
        self.tracker.init(_bgr(frame_rgb), window)
        self.start = self.corner = corner

    def update(self, frame_rgb) -> BaselineResult:
        """frame_rgb uint8 [H,W,3], of the first frame's size. While the target is lost the box stays."""
        found, window = self.tracker.update(_bgr(frame_rgb))
        if found:
            self.corner = np.array(window[:2], np.float64)
        return BaselineResult(self.given + np.concatenate((self.corner - self.start, (0, 0))))


class OpenCVTracker:
    """One of OpenCV's trackers that need no weights, with the box that it gives: `cv2.Tracker<name>`.

    KCF (Henriques et al., TPAMI 2015) and CSRT (Lukezic et al., CVPR 2017) come with opencv-contrib-python.
    """

    def __init__(self, name):
        """name: "KCF" or "CSRT". Raises HiptrackError where the installed OpenCV lacks it."""
        if not hasattr(cv2, f"Tracker{name}"):
            raise HiptrackError(
                f"OpenCV {cv2.__version__} has no tracker {name}: it comes with opencv-contrib-python, in the place of "
                f"opencv-python. {REPAIR_OPENCV}"
            )
        self.name = name

    def init(self, frame_rgb, box_xywh):
        """frame_rgb uint8 [H,W,3]; box_xywh [4] in pixels. Raises DataError for a box without a pixel in the frame, and
        where OpenCV fails.
        """
        window = pixels_inside(box_xywh, *frame_rgb.shape[1::-1])
        cv2.setRNGSeed(0)
        self.tracker = getattr(cv2, f"Tracker{self.name}").create()
        self._call(self.tracker.init, frame_rgb, window)
        self.box = np.array(box_xywh, np.float64)

    def update(self, frame_rgb) -> BaselineResult:
        """frame_rgb uint8 [H,W,3]. While the target is lost the box stays. Raises DataError where OpenCV fails."""
        found, window = self._call(self.tracker.update, frame_rgb)
        if found:
            self.box = np.array(window, np.float64)
        return BaselineResult(self.box.copy())

    def _call(self, method, frame_rgb, *window):
        try:
            return method(_bgr(frame_rgb), *window)
        except cv2.error as error:
            raise DataError(f"OpenCV's {self.name} failed: {' '.join(str(error).split())}") from error


def pixels_inside(box_xywh, width, height):
    """What of a box lies in the image, in whole pixels xywh. OpenCV's trackers take long for a box far beyond it.

    Raises DataError where no pixel does.
    """
    x, y, w, h = map(float, box_xywh)
    if not np.isfinite((x, y, w, h)).all():
        raise DataError(f"The first box {[x, y, w, h]} (xywh) is not of finite numbers.")
    left, top, right, bottom = max(0, round(x)), max(0, round(y)), min(width, round(x + w)), min(height, round(y + h))
    if left >= right or top >= bottom:
        raise DataError(f"The first box {[x, y, w, h]} (xywh) has no pixel in the {width}x{height} frame.")
    return [left, top, right - left, bottom - top]


def _bgr(frame_rgb):
    return np.ascontiguousarray(frame_rgb[..., ::-1])
