"""A window on a display: the box chosen by mouse, and the frames as they are tracked."""

import os
import sys

import cv2
import numpy as np

from hiptrack.errors import DataError, HiptrackError

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
