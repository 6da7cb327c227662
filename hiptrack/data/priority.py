"""How often each training sequence is drawn, where its difficulty decides."""

import gin
import numpy as np

from hiptrack.errors import ConfigError


@gin.register
class HardExamples:
    """Draws a sequence the more often, the less sure the challenge branch was of its frames.

    Proportional prioritisation (Schaul et al., Prioritized Experience Replay, ICLR 2016, section 3.3), of sequences in the place
    of transitions, with a uniform share in the place of a constant in each priority, and without weights that correct the losses: P(i) = uniform / n + (1 - uniform) d_i^exponent / sum_j d_j^exponent.
    The difficulty d in [0, 1] is 1 - the probability that the branch in training gave to a frame's label, mean over
    the labelled frames drawn in an epoch. A sequence of which nothing is known counts as the mean of the others, not as the hardest as
    there: those without labels stay unknown.

    Args:
        exponent: 0 draws all alike; larger ones insist more on what is hard.
        uniform: share of the draws that ignores the difficulty, in [0, 1], so that no sequence is forgotten.
        inertia: share of the difficulty of earlier epochs in that after a further one, in [0, 1).

    Raises ConfigError for a number out of range.
    """

    def __init__(self, exponent: float = 1.0, uniform: float = 0.2, inertia: float = 0.5):
        if not 0 <= exponent < np.inf or not 0 <= uniform <= 1 or not 0 <= inertia < 1:
            raise ConfigError(
                "HardExamples: an exponent of at least 0, uniform in [0, 1] and inertia in [0, 1) were expected, not "
                f"{exponent}, {uniform} and {inertia}."
            )
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
