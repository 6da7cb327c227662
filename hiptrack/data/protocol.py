"""Which numbers a benchmark reports, and how it counts frames without a target."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """A benchmark's way of scoring.

    metrics: names of its own numbers, in the order in which it reports them. Of GOT-10k (over frames): AO, SR0.5, SR0.75.
    Of one-pass evaluation (over sequences): AUC of success, OP50, OP75, precision P at 20 pixels, P_norm (normalised
    precision, area over the thresholds 0..0.5) and P_norm0.2 (the same at the threshold 0.2); see tracking/one_pass.py.

    In one-pass evaluation a frame without target is left out, unless `counts_absent`: then it counts as a frame that was
    missed; with `absent_is_near` besides, as one whose centre was met.
    """

    metrics: tuple[str, ...]
    counts_absent: bool = False
    absent_is_near: bool = False

    @property
    def is_one_pass(self) -> bool:
        """Whether it is a one-pass evaluation over sequences rather than GOT-10k's over frames."""
        return "AO" not in self.metrics


GOT10K = Protocol(("AO", "SR0.5", "SR0.75"))
