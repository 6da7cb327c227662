"""Which frames of a sequence make a training clip."""

import gin
import numpy as np

from hiptrack.errors import ConfigError


def require_positive(sampler, search_frames, max_gap):
    """Both numbers; ConfigError where one is below 1."""
    if search_frames < 1 or max_gap < 1:
        raise ConfigError(
            f"{sampler}.search_frames = {search_frames}, max_gap = {max_gap}: at least 1 was expected for both."
        )
    return search_frames, max_gap


@gin.register
class CausalSampler:
    """A template, then search frames in the order of time, each within `max_gap` frames of the one before it.

    Only visible frames; half of the clips run backwards. In a short sequence the gap shrinks so that the clip fits, and with
    fewer visible frames than the clip has, frames repeat.

    Args:
        search_frames: number of search frames F of a clip.
        max_gap: largest distance in frames between neighbours.
    """

    def __init__(self, search_frames: int = 5, max_gap: int = 70):
        self.search_frames, self.max_gap = require_positive(type(self).__name__, search_frames, max_gap)

    def __call__(self, visible, rng):
        """visible: [N] bool, at least one True; rng: numpy Generator. Returns (template frame, F search frames)."""
        frames = np.flatnonzero(visible)
        if len(frames) > self.search_frames:
            chain = self._walk(frames, len(visible), rng)
        else:
            chain = np.sort(rng.choice(frames, self.search_frames + 1))
        if rng.random() < 0.5:
            chain = chain[::-1]
        return int(chain[0]), [int(frame) for frame in chain[1:]]

    def _walk(self, frames, length, rng):
        """F + 1 visible frames in order from a random start; each leaves enough visible frames for those to come.

        Where the target is out of sight for longer than the gap, the next visible frame follows.
        """
        gap = max(1, min(self.max_gap, (length - 1) // self.search_frames))
        spare = len(frames) - self.search_frames
        place = rng.integers(spare)
        chain = [frames[place]]
        for number in range(1, self.search_frames + 1):
            ahead = frames[place + 1 : spare + number]
            choices = max(int((ahead <= chain[-1] + gap).sum()), 1)
            place += 1 + rng.integers(choices)
            chain.append(frames[place])
        return np.array(chain)


@gin.register
class RandomIntervalSampler:
    """A template at random, and search frames at random within `max_gap` frames of it, on both sides, in any order.

    The "interval" sampling of the ATOM and DiMP training code (Danelljan et al., CVPR 2019; Bhat et al., ICCV 2019);
    STARK (ICCV 2021) and OSTrack (ECCV 2022) train with a gap of 200. Only visible frames, none twice; where too few are
    near enough, the nearest ones beyond the gap are drawn from too, and with fewer visible frames than the clip has,
    frames repeat.

    Args:
        search_frames: number of search frames F of a clip.
        max_gap: largest distance in frames between the template and a search frame.
    """

    def __init__(self, search_frames: int = 5, max_gap: int = 200):
        self.search_frames, self.max_gap = require_positive(type(self).__name__, search_frames, max_gap)

    def __call__(self, visible, rng):
        """visible: [N] bool, at least one True; rng: numpy Generator. Returns (template frame, F search frames)."""
        frames = np.flatnonzero(visible)
        template = rng.choice(frames)
        # the one frame of a picture stands for all frames of its clip
        others = frames[frames != template] if len(frames) > 1 else frames
        distance = np.abs(others - template)
        near = max(int((distance <= self.max_gap).sum()), min(self.search_frames, len(others)))
        choices = others[np.argsort(distance, kind="stable")[:near]]
        search = rng.choice(choices, self.search_frames, replace=near < self.search_frames)
        return int(template), [int(frame) for frame in search]
