"""Trackers to compare with: a box that keeps still, and OpenCV's MIL. They need no weights."""

from dataclasses import dataclass

import cv2
import numpy as np


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
    """OpenCV's multiple instance learning tracker (Babenko et al., CVPR 2009); it keeps the box's size.

    Deterministic: init seeds OpenCV's random numbers. OpenCV takes whole pixels, so the box is rounded and
    brought inside the image for it.
    """

    def init(self, frame_rgb, box_xywh):
        """frame_rgb uint8 [H,W,3]; box_xywh [4] in its pixels."""
        height, width = frame_rgb.shape[:2]
        x, y, w, h = (int(round(float(value))) for value in box_xywh)
        x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
        w, h = min(max(w, 1), width - x), min(max(h, 1), height - y)
        cv2.setRNGSeed(0)
        self.tracker = cv2.TrackerMIL_create()
        self.tracker.init(_bgr(frame_rgb), (x, y, w, h))
        self.box = np.array((x, y, w, h), np.float64)

    def update(self, frame_rgb) -> BaselineResult:
        """frame_rgb uint8 [H,W,3], of the first frame's size. While the target is lost the box stays."""
        found, box = self.tracker.update(_bgr(frame_rgb))
        if found:
            self.box = np.array(box, np.float64)
        return BaselineResult(self.box.copy())


def _bgr(frame_rgb):
    return np.ascontiguousarray(frame_rgb[..., ::-1])
