"""Augmentation of training clips. Images are uint8 RGB [H, W, 3]; every random number comes from the clip's own generator."""

import cv2
import gin
import numpy as np


@gin.register
class Augmentation:
    """Joint grey and horizontal flip, brightness of each image, and jitter of the search box (HIPTrack's recipe).

    Args:
        grey: probability that the whole clip is grey.
        flip: probability that the whole clip is mirrored.
        brightness: each image is multiplied by U(1 - brightness, 1 + brightness).
        scale_jitter: the search box's sides are multiplied by exp(N(0, 1) * scale_jitter).
        centre_jitter: its centre moves by up to half of this, in units of its jittered sqrt(w*h).
    """

    def __init__(
        self,
        grey: float = 0.05,
        flip: float = 0.5,
        brightness: float = 0.2,
        scale_jitter: float = 0.5,
        centre_jitter: float = 4.5,
    ):
        self.grey, self.flip, self.brightness = grey, flip, brightness
        self.scale_jitter, self.centre_jitter = scale_jitter, centre_jitter

    def jitter(self, box_xywh, rng):
        """The box a search crop is made around: xywh [4] in pixels, near the true one."""
        x, y, w, h = box_xywh
        size = np.array([w, h]) * np.exp(rng.standard_normal(2) * self.scale_jitter)
        reach = np.sqrt(size.prod()) * self.centre_jitter
        centre = np.array([x + 0.5 * w, y + 0.5 * h]) + reach * (rng.random(2) - 0.5)
        return np.concatenate((centre - 0.5 * size, size))

    def __call__(self, images, boxes_xywh, rng):
        """Crops of one clip, list of [H, W, 3], and their boxes, [n, 4] xywh normalised, both changed alike.

        Returns (images, boxes).
        """
        boxes = np.array(boxes_xywh, dtype=np.float32)
        if rng.random() < self.grey:
            images = [cv2.cvtColor(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for i in images]
        if rng.random() < self.flip:
            images = [image[:, ::-1] for image in images]
            # the centre of a box on the crop's centre lies at (side - 1) / 2
            sides = np.array([image.shape[1] for image in images], dtype=np.float32)
            boxes[:, 0] = (sides - 1) / sides - boxes[:, 0] - boxes[:, 2]
        factors = 1 + self.brightness * (2 * rng.random(len(images)) - 1)
        return [
            cv2.convertScaleAbs(np.ascontiguousarray(i), alpha=f) for i, f in zip(images, factors, strict=True)
        ], boxes
