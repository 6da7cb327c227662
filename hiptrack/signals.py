"""Signals that ask a program to stop: it ends its step or frame, leaves what it has in order, and says so.

A scheduler sends SIGTERM or SIGUSR1 before it takes a machine away, a user SIGINT (Ctrl-C), a terminal that is closed SIGHUP.
"""

import ctypes
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

from hiptrack.files import encoded, write_atomically
from hiptrack.processes import is_launched

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MARKER = "PREEMPTED"
PR_SET_PDEATHSIG = 1


class Preempted(BaseException):
    """The run was asked to stop and can go on later; no error, so nothing that handles errors may catch it."""


class StopSignals:
    """Notes the signals that ask to stop, from `with` to its end, in `signal`. Ctrl-C again ends at once."""

    numbers = STOP_SIGNALS

    def __init__(self):
        self.signal = None

    def __enter__(self):
        numbers = set(self.numbers)
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            numbers.discard(signal.SIGHUP)  # nohup: the closed terminal is not to end it
        self._earlier = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self._earlier.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: one that was not set from Python

    @property
    def requested(self):
        return self.signal is not None

    def _note(self, number, _):
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


class Preemption(StopSignals):
    """Those of a run that saves and can go on later: a scheduler's and a launcher's, too."""

    numbers = (*STOP_SIGNALS, signal.SIGUSR1)

    def __init__(self):
        super().__init__()
        self._at_once = False

    def __enter__(self):
        if is_launched() and sys.platform == "linux":
            # `accelerate launch` of one process dies of a signal without passing it on
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        return super().__enter__()

    @contextmanager
    def at_once(self):
        """A part that loses nothing when it is left: a signal raises Preempted there, until `hold`."""
        if self.requested:
            raise Preempted
        self._at_once = True
        try:
            yield
        finally:
            self.hold()

    def hold(self):
        """From here on a signal is noted only: what follows concerns all processes."""
        self._at_once = False

    def _note(self, number, frame):
        super()._note(number, frame)
        if self._at_once:
            raise Preempted


def exit_code():
    """0 under a launcher, which would call every other one a failure; else 75 (EX_TEMPFAIL): start me again."""
    return 0 if is_launched() else os.EX_TEMPFAIL


def leave_marker(folder, text):
    """Write the file PREEMPTED into a run's folder."""
    write_atomically(Path(folder) / MARKER, encoded(f"{text}\n"))


def remove_marker(folder):
    (Path(folder) / MARKER).unlink(missing_ok=True)
