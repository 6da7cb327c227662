"""Repetitions of several measurements in turn, so that what else the machine does meets all of them alike."""

import time
from collections.abc import Callable, Mapping

import numpy as np


class Timing:
    """Seconds of the repetitions of one thing, in the order in which they were taken."""

    def __init__(self, seconds):
        self.seconds = np.asarray(seconds, np.float64)

    @property
    def median(self):
        """Median in seconds."""
        return float(np.median(self.seconds))

    def ms(self, percentile):
        """A percentile in milliseconds."""
        return float(np.percentile(self.seconds, percentile) * 1e3)

    def row(self, name="ms"):
        """The columns of a table: p50, p95, min and max in milliseconds."""
        return {
            f"{name} p50": self.ms(50),
            f"{name} p95": self.ms(95),
            f"{name} min": self.ms(0),
            f"{name} max": self.ms(100),
        }


def interleaved(
    tasks: Mapping[str, Callable[[], object]],
    repetitions: int,
    warm_up: int = 1,
    synchronise: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time every task `repetitions` times: all once, in order, then all again.

    warm_up: untimed rounds ahead. synchronise: called before the clock is read, where work goes on in the background
    (torch.cuda.synchronize).
    """
    seconds = {name: [] for name in tasks}
    for number in range(warm_up + repetitions):
        for name, task in tasks.items():
            synchronise()
            start = time.perf_counter()
            task()
            synchronise()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(values) for name, values in seconds.items()}


def ratio(slow: Timing, fast: Timing) -> float:
    """Median over the repetitions of slow / fast, pair by pair: both of a pair met the same machine."""
    return float(np.median(slow.seconds / fast.seconds))
