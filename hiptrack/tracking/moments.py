"""Score maps of the frames in which a tracker loses its target, kept while they pass by, for the report's pictures."""

import numpy as np

MOST = 8  # of a sequence


class Moments:
    """Watches a tracker on one Sequence; `kept`: {frame from 1: (score map [S, S], search region xywh [4])}.

    Kept are the first frames without overlap after one with it; none where the true boxes are not known.
    """

    def __init__(self, sequence):
        self.sequence, self.kept, self._lost = sequence, {}, False

    def look(self, index, box_xywh, tracker):
        """Look at the tracker after its update on frame `index` (from 0), whose box is given."""
        truth = self.sequence.boxes_xywh
        if index >= len(truth) or self.sequence.cover[index] == 0 or len(self.kept) == MOST:
            return
        lost = not overlap(truth[index], box_xywh)
        if lost and not self._lost and getattr(tracker, "search_xywh", None) is not None:
            self.kept[index + 1] = (tracker.score_map.cpu().numpy(), tracker.search_xywh.copy())
        self._lost = lost


def overlap(a_xywh, b_xywh):
    """Whether two boxes share an area."""
    near = np.maximum(a_xywh[:2], b_xywh[:2])
    far = np.minimum(np.add(a_xywh[:2], a_xywh[2:]), np.add(b_xywh[:2], b_xywh[2:]))
    return bool((far > near).all())
