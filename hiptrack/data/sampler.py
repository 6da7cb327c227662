"""Which frames of a sequence make a training clip."""

import gin
import numpy as np


@gin.register
class CausalSampler:
    """A template, then search frames in the order of time, each within `max_gap` frames of the one before it.

    Only visible frames; half of the clips run backwards. In a short sequence the gap shrinks so that the clip fits.

    Args:
        search_frames: number of search frames F of a clip.
        max_gap: largest distance in frames between neighbours.
    """

    def __init__(self, search_frames: int = 5, max_gap: int = 70):
        self.search_frames, self.max_gap = search_frames, max_gap

    def __call__(self, visible, rng):
        """visible: [N] bool, at least two True; rng: numpy Generator. Returns (template frame, F search frames)."""
        frames = np.flatnonzero(visible)
        gap = max(1, min(self.max_gap, (len(visible) - 1) // self.search_frames))
        chain = self._walk(frames, gap, rng)
        if len(chain) <= self.search_frames:  # gaps in visibility: any frames in order will do
            enough = len(frames) > self.search_frames
            chain = np.sort(rng.choice(frames, self.search_frames + 1, replace=not enough))
        if rng.random() < 0.5:
            chain = chain[::-1]
        return int(chain[0]), [int(frame) for frame in chain[1:]]

    def _walk(self, frames, gap, rng):
        """Visible frames from a random start on, as far as one leads to the next within the gap."""
        latest = frames[-1] - self.search_frames
        starts = frames[frames <= latest]
        chain = [rng.choice(starts)] if len(starts) else []
        while chain and len(chain) <= self.search_frames:
            reach = frames[(frames > chain[-1]) & (frames <= chain[-1] + gap)]
            # leave room for the frames still to come
            reach = reach[reach <= latest + len(chain)] if len(chain) < self.search_frames else reach
            if not len(reach):
                break
            chain.append(rng.choice(reach))
        return np.array(chain, dtype=np.int64)
