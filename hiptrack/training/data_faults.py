"""Clips that could not be used: drawn again by the loader, counted and listed here, and a limit to them."""

from collections import Counter

from hiptrack.errors import DataError
from hiptrack.training.log import REJECTED

UNREADABLE = "unreadable image"
FEWEST_DRAWS = 100  # below them a share says little
SHOWN = 20


class DataFaults:
    """Counts the rejected draws of a run by reason, and stops it when too many are unreadable. Alike on every process.

    Args:
        limit: largest share of the draws that may be unreadable, of at least FEWEST_DRAWS.
        state: what `state` gave at the checkpoint to go on from, or None.
    """

    def __init__(self, limit, state=None):
        state = state or {"clips": 0, "reasons": {}, "files": {}}
        self.limit, self.clips = limit, state["clips"]
        self.reasons, self.files = Counter(state["reasons"]), Counter(state["files"])

    def add(self, clips, rejected):
        """Take up the clips of one global batch and the draws rejected for them ({reason, sequence, file} each)."""
        self.clips += clips
        self.reasons.update(draw["reason"] for draw in rejected)
        self.files.update(draw["file"] for draw in rejected if draw["reason"] == UNREADABLE)

    def problem(self):
        """A DataError with the files when more than the allowed share of the draws was unreadable, else None."""
        draws = self.clips + self.reasons.total()
        bad = self.reasons[UNREADABLE]
        if bad <= self.limit * max(draws, FEWEST_DRAWS):
            return None
        listed = "".join(f"\n  {file} ({count}x)" for file, count in self.files.most_common(SHOWN))
        more = f"\n  and {len(self.files) - SHOWN} more in the run's {REJECTED}" if len(self.files) > SHOWN else ""
        return DataError(
            f"{bad} of {draws} drawn clips met an unreadable image, more than train.max_unreadable = {self.limit:g} of them "
            f"(at least {FEWEST_DRAWS} draws count). Restore these {len(self.files)} files, leave their sequences out with "
            f"FolderDataset.exclude (and go on with --allow-change), or raise the limit:{listed}{more}"
        )

    def state(self):
        """The counts, JSON-ready."""
        return {"clips": self.clips, "reasons": dict(self.reasons), "files": dict(self.files)}

    def scalars(self):
        """{name: draws rejected so far} for the log; empty while all is well."""
        return {f"Rejected/{reason}": count for reason, count in self.reasons.items()}

    def describe(self):
        """What a finished run says of its data, or None where nothing was rejected."""
        if not self.reasons:
            return None
        counts = ", ".join(f"{count} for {reason}" for reason, count in self.reasons.items())
        return (
            f"{self.reasons.total()} of {self.clips + self.reasons.total()} drawn clips were rejected and drawn again: "
            f"{counts}; {len(self.files)} files were unreadable (all in the run's {REJECTED})"
        )
