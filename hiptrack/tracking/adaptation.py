"""Tracking that adapts to the predicted challenge and the score, by a table of rules.

The rules one would write are known from others: no update while the target is hidden (MOSSE, Bolme et al., CVPR 2010,
section 3.5), a larger search region for a lost one (DaSiamRPN, Zhu et al., ECCV 2018, section 3.4), a damped size
(SiamFC, Bertinetto et al., ECCV 2016 workshops). Nothing here runs the network: a rule changes what is done with a
frame's prediction, and where the next frame is searched.
"""

from dataclasses import dataclass
from typing import Annotated

import gin
import numpy as np
from annotated_types import Interval

from hiptrack.errors import ConfigError
from hiptrack.ranges import Share, ShareAboveZero, require


@dataclass(frozen=True)
class Action:
    """What is done with a frame; the defaults are the published tracker's.

    write_memory: whether it may be remembered; search_scale: factor of the search region's side in the next frame;
    size_rate: share of the way that the box goes from its last size to the predicted one.
    """

    write_memory: bool = True
    search_scale: float = 1.0
    size_rate: float = 1.0


@gin.register
class Rule:
    """One line of the table: when it applies, and what is done then. An action left None is left to the other rules.

    Args:
        challenge: a class of the tracker's branch; None: whatever the challenge.
        above: the rule applies where the challenge's probability is above this.
        score_below: and where the score is below this; None: whatever the score.
        write_memory: False keeps the frame out of the memory; the next one that may enter makes up for it.
        search_scale: factor of the search region's side in the next frame.
        size_rate: share of the way from the last size to the predicted one, 0 (hold) to 1 (follow at once).

    Raises ConfigError for no condition, or no action.
    """

    def __init__(
        self,
        challenge: str | None = None,
        above: Share = 0.5,
        score_below: ShareAboveZero | None = None,
        write_memory: bool | None = None,
        search_scale: Annotated[float, Interval(gt=0, le=4)] | None = None,
        size_rate: Share | None = None,
    ):
        if challenge is None and score_below is None:
            raise ConfigError("A Rule without condition: set Rule.challenge, Rule.score_below, or both.")
        actions = {"write_memory": write_memory, "search_scale": search_scale, "size_rate": size_rate}
        self.actions = {name: value for name, value in actions.items() if value is not None}
        if not self.actions:
            raise ConfigError("A Rule without action: set Rule.write_memory, Rule.search_scale or Rule.size_rate.")
        self.challenge, self.above, self.score_below = challenge, above, score_below
        self.write_memory, self.search_scale, self.size_rate = write_memory, search_scale, size_rate
        require(self)

    def applies(self, challenge, score):
        """Whether the rule's conditions hold. challenge: {class: probability}, or None for a rule that names none."""
        likely = self.challenge is None or challenge[self.challenge] > self.above
        return bool(likely and (self.score_below is None or score < self.score_below))


@gin.register
class Adaptation:
    """A table of rules. Of each action, the first rule that applies and names it decides.

    Args:
        rules: in the order of their priority.
        size_rate: share of the way from the last size to the predicted one where no rule says otherwise (the damping of
            SiamFC, Bertinetto et al., ECCV 2016 workshops, for width and height); 1 follows at once.
    """

    def __init__(self, rules: list[Rule], size_rate: Share = 1.0):
        self.rules, self.size_rate = tuple(rules), size_rate
        require(self)

    @property
    def challenges(self):
        return [rule.challenge for rule in self.rules if rule.challenge is not None]

    def __call__(self, challenge, score):
        """challenge: {class: probability} or None; score in [0, 1] -> Action."""
        actions = {"size_rate": self.size_rate}
        for rule in reversed(self.rules):
            if rule.applies(challenge, score):
                actions.update(rule.actions)
        return Action(**actions)


def follow_size(box_xywh, last_size, rate):
    """The box at its centre, its size `rate` of the way from the last one [2] to its own; xywh [4]."""
    if rate == 1:
        return box_xywh
    size = last_size + rate * (box_xywh[2:] - last_size)
    return np.concatenate((box_xywh[:2] + 0.5 * (box_xywh[2:] - size), size))
