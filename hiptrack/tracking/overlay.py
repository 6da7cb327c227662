"""What the tracker saw and said, drawn on a frame."""

import cv2
import numpy as np

from hiptrack.tracking.pictures import PREDICTED_COLOUR, draw_box

SEARCH_COLOUR = (90, 170, 255)
_TEXT_COLOUR = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_tracked(frame_rgb, box_xywh, search_xywh=None, text=""):
    """A copy of the frame uint8 [H,W,3] with the search region (blue), a text at the upper left and the box (pink) on top.

    Boxes are xywh in the frame's pixels; search_xywh: None where nothing was searched.
    """
    picture = np.ascontiguousarray(frame_rgb).copy()
    if search_xywh is not None:
        picture = draw_box(picture, search_xywh, SEARCH_COLOUR)
    if text:
        _write(picture, text)
    return draw_box(picture, box_xywh, PREDICTED_COLOUR)


def caption(score, challenge=None):
    """One line: the score, in [0, 1] or None, and the likeliest challenge of {name: probability} or None."""
    words = ["start" if score is None else f"score {score:.2f}"]
    if challenge:
        name = max(challenge, key=challenge.get)
        words.append(f"{name.replace('_', ' ')} {challenge[name]:.2f}")
    return "  ".join(words)


def _write(picture, text):
    """Write in white on a darkened strip, as large as suits the picture, and no wider than it."""
    height, width = picture.shape[:2]
    scale = max(0.4, min(height, width) / 900)
    (length, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
    scale *= min(1, 0.9 * width / length)
    thickness = max(1, round(scale))
    (length, rise), below = cv2.getTextSize(text, _FONT, scale, thickness)
    gap = max(1, round(0.3 * rise))
    picture[: rise + below + 2 * gap, : length + 2 * gap] //= 3
    cv2.putText(picture, text, (gap, gap + rise), _FONT, scale, _TEXT_COLOUR, thickness, cv2.LINE_AA)
