"""The moments of a tracked sequence that are worth a look: where the target was lost, and the worst overlap."""

from hiptrack.evaluation.metrics import box_ious

MOST = 8  # losses of a sequence


class Moments:
    """Watches a tracker on one Sequence; `kept`: {frame from 1: (score map [S, S], search region xywh [4])}.

    Kept are the first frames without overlap after one with it, of the longest such losses, and the frame of the lowest
    IoU; none where the true boxes are not known.
    """

    def __init__(self, sequence):
        self.sequence = sequence
        self._losses, self._present = {}, None  # {first frame: (frames without overlap, seen)}, the one that goes on
        self._lowest, self._frame, self._seen = 1.0, None, None

    @property
    def kept(self):
        found = {frame: seen for frame, (_, seen) in self._losses.items()}
        if self._seen is not None:
            found[self._frame] = self._seen
        return dict(sorted(found.items()))

    def look(self, index, box_xywh, tracker):
        """Look at the tracker after its update on frame `index` (from 0), whose box is given."""
        truth = self.sequence.boxes_xywh
        if index >= len(truth) or self.sequence.cover[index] == 0 or getattr(tracker, "search_xywh", None) is None:
            return
        overlap, frame = box_ious(truth[index], box_xywh), index + 1
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

    def state(self):
        """{name: number or array} of all that was seen, for `restore`."""
        lengths, seen = zip(*self._losses.values()) if self._losses else ((), ())
        state = {"lowest": self._lowest, "frames": list(self._losses), "lengths": lengths}
        state |= {"maps": [score_map for score_map, _ in seen], "regions": [region for _, region in seen]}
        if self._present is not None:
            state["present"] = self._present
        if self._seen is not None:
            state |= {"lowest_frame": self._frame, "lowest_map": self._seen[0], "lowest_region": self._seen[1]}
        return state

    def restore(self, state):
        """Go on from the `state` of another, given as {name: array}."""
        seen = zip(state["maps"], state["regions"])
        losses = zip(state["frames"].tolist(), state["lengths"].tolist(), seen)
        self._losses = {frame: (length, moment) for frame, length, moment in losses}
        self._lowest, self._present = float(state["lowest"]), None
        if "present" in state:
            self._present = int(state["present"])
        if "lowest_frame" in state:
            self._frame, self._seen = int(state["lowest_frame"]), (state["lowest_map"], state["lowest_region"])


def _seen(tracker):
    return tracker.score_map.cpu().numpy(), tracker.search_xywh.copy()
