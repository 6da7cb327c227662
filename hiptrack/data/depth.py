"""Images of more than 8 bits a channel (thermal cameras write 16-bit PNG), shown in 8 bits by one range a sequence."""

import logging

import numpy as np

from hiptrack.errors import DataError

SHARE = 0.001  # of the values, left out at either end: dead and glowing pixels
LEVELS = 256
CLIPPED = 0.25  # share of a frame's values outside the range, from which on it is told

logger = logging.getLogger(__name__)


class LevelRange:
    """The range of values of one frame, by which all frames of its video are turned into 8 bits alike.

    It goes from the 0.1 % to the 99.9 % quantile of the frame's values, all channels together. It is at least as wide as
    8 bits are, so that no level is stretched over several. What lies outside becomes 0 or 255. A range for each frame
    would change with every target that comes and goes, and the picture with it.

        levels = LevelRange(first)
        tracker.init(levels(first), box)
        tracker.update(levels(frame))
    """

    def __init__(self, first: np.ndarray, name: str = "this video"):
        """first: the video's first frame, uint16 of any shape; name: what messages call it. Raises DataError."""
        _require_16_bits(first, name)
        self.name, self._is_told = name, False
        low, high = (int(value) for value in np.quantile(first, (SHARE, 1 - SHARE)))
        spare = max(LEVELS - (high - low), 0) // 2
        self.low, self.high = low - spare, high + spare

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """A frame uint16 of any shape -> the same in uint8. Raises DataError for another type."""
        _require_16_bits(frame, self.name)
        outside = np.count_nonzero((frame < self.low) | (frame > self.high))
        if outside > CLIPPED * frame.size and not self._is_told:
            self._is_told = True
            logger.warning(
                "%s: %.0f %% of a frame's values lie outside the range of its first frame, %d to %d, and are shown black or "
                "white.",
                self.name, 100 * outside / frame.size, self.low, self.high,
            )  # fmt: skip
        values = (np.arange(2**16) - self.low) * ((LEVELS - 1) / (self.high - self.low))
        return np.clip(np.round(values), 0, LEVELS - 1).astype(np.uint8)[frame]


def _require_16_bits(frame, name):
    if frame.dtype != np.uint16:
        raise DataError(
            f"{name}: a frame has values of the type {frame.dtype}. Expected uint16 in all frames of a video; one of 8 bits a "
            "channel is tracked as it is."
        )
