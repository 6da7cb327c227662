"""Score maps of a tracker's worst moments, kept while they pass by, for the report's pictures."""

import numpy as np

MOST = 8  # losses of a sequence


class Moments:
    """Watches a tracker on one Sequence; `kept`: {frame from 1: (score map [S, S], search region xywh [4])}.

    Kept are the first frames without overlap after one with it, of the longest such losses, and the frame of the lowest IoU;
    none where the true boxes are not known.
    """

    def __init__(self, sequence):
        self.sequence = sequence
        self._losses, self._present = {}, None  # {first frame: (frames without overlap, seen)}, the one that goes on
        self._lowest, self._frame, self._seen = 1.0, None, None

    @property
    def kept(self):
        """The frames in their order."""
        found = {frame: seen for frame, (_, seen) in self._losses.items()}
        if self._seen is not None:
            found[self._frame] = self._seen
        return dict(sorted(found.items()))

    def look(self, index, box_xywh, tracker):
        """Look at the tracker after its update on frame `index` (from 0), whose box is given."""
        truth = self.sequence.boxes_xywh
        if index >= len(truth) or self.sequence.cover[index] == 0 or getattr(tracker, "search_xywh", None) is None:
            return
        overlap, frame = iou(truth[index], box_xywh), index + 1
        if overlap < self._lowest:
            self._lowest, self._frame, self._seen = overlap, frame, _seen(tracker)
        if overlap > 0:
            self._present = None
        elif self._present is None:
            self._present, self._losses[frame] = frame, (1, _seen(tracker))
            if len(self._losses) > MOST:
                ended = [frame for frame in self._losses if frame != self._present]
                del self._losses[min(ended, key=lambda frame: self._losses[frame][0])]
        else:
            length, seen = self._losses[self._present]
            self._losses[self._present] = length + 1, seen


def iou(a_xywh, b_xywh):
    """IoU of two boxes [4] in the same unit; 0 where both are empty."""
    near = np.maximum(a_xywh[:2], b_xywh[:2])
    far = np.minimum(np.add(a_xywh[:2], a_xywh[2:]), np.add(b_xywh[:2], b_xywh[2:]))
    overlap = float(np.maximum(far - near, 0).prod())
    union = float(np.prod(a_xywh[2:]) + np.prod(b_xywh[2:])) - overlap
    return overlap / union if overlap > 0 else 0.0


def _seen(tracker):
    return tracker.score_map.cpu().numpy(), tracker.search_xywh.copy()
