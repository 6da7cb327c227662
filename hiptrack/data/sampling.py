"""Which frames of a sequence make a training clip."""

from dataclasses import dataclass

import cv2
import gin
import numpy as np

from hiptrack.ranges import Count, NonNegative, Share, ShareBelowOne


@gin.register
class CausalSampler:
    """A template, then search frames in the order of time, each within `max_gap` frames of the one before it.

    Only visible frames; half of the clips run backwards. In a short sequence the gap shrinks so that the clip fits, and
    with fewer visible frames than the clip has, frames repeat.

    Args:
        search_frames: number of search frames F of a clip.
        max_gap: largest distance in frames between neighbours.
    """

    def __init__(self, search_frames: Count = 5, max_gap: Count = 70):
        self.search_frames, self.max_gap = search_frames, max_gap

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
    STARK (ICCV 2021) and OSTrack (ECCV 2022) train with a gap of 200. Only visible frames, none twice; where too few
    are near enough, the nearest ones beyond the gap are drawn from too, and with fewer visible frames than the clip
    has, frames repeat.

    Args:
        search_frames: number of search frames F of a clip.
        max_gap: largest distance in frames between the template and a search frame.
    """

    def __init__(self, search_frames: Count = 5, max_gap: Count = 200):
        self.search_frames, self.max_gap = search_frames, max_gap

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


@gin.register
@dataclass(eq=False)
class Augmentation:
    """Joint grey and horizontal flip, brightness of each image, and jitter of the search box (HIPTrack's recipe).

    Args:
        grey: probability that the whole clip is grey.
        flip: probability that the whole clip is mirrored.
        brightness: each image is multiplied by U(1 - brightness, 1 + brightness).
        scale_jitter: the search box's sides are multiplied by exp(N(0, 1) * scale_jitter).
        centre_jitter: its centre moves by up to half of this, in units of its jittered sqrt(w*h).
    """

    grey: Share = 0.05
    flip: Share = 0.5
    brightness: Share = 0.2
    scale_jitter: NonNegative = 0.5
    centre_jitter: NonNegative = 4.5

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


@gin.register
class HardExamples:
    """Draws a sequence the more often, the less sure the challenge branch was of its frames.

    Proportional prioritisation (Schaul et al., Prioritized Experience Replay, ICLR 2016, section 3.3), of sequences in
    the place of transitions, with a uniform share in the place of a constant in each priority, and without weights that
    correct the losses: P(i) = uniform / n + (1 - uniform) d_i^exponent / sum_j d_j^exponent. The difficulty d in [0, 1]
    is 1 - the probability that the branch in training gave to a frame's label, mean over the labelled frames drawn in
    an epoch. A sequence of which nothing is known counts as the mean of the others, not as the hardest as there: those
    without labels stay unknown.

    Args:
        exponent: 0 draws all alike; larger ones insist more on what is hard.
        uniform: share of the draws that ignores the difficulty, so that no sequence is forgotten.
        inertia: share of the difficulty of earlier epochs in that after a further one.
    """

    def __init__(self, exponent: NonNegative = 1.0, uniform: Share = 0.2, inertia: ShareBelowOne = 0.5):
        self.exponent, self.uniform, self.inertia = exponent, uniform, inertia

    def probabilities(self, difficulty):
        """difficulty: [N] in [0, 1], NaN where it is not known -> [N] chances of being drawn, of sum 1."""
        known = np.isfinite(difficulty)
        mean = difficulty[known].mean() if known.any() else 1.0
        weight = np.where(known, difficulty, mean)
        weight = (weight / weight.max()) ** self.exponent if weight.any() else np.ones(len(weight))
        share = weight / weight.sum()
        return self.uniform / len(weight) + (1 - self.uniform) * share

    def follow(self, before, now):
        """Difficulty after an epoch: `before` it (None: not known), and in it."""
        return now if before is None else self.inertia * before + (1 - self.inertia) * now
