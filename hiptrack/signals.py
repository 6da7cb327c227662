"""Signals that ask a run to stop: it ends its step, saves a checkpoint and says so.

A scheduler sends SIGTERM or SIGUSR1 before it takes a machine away, a user SIGINT (Ctrl-C).
"""

import ctypes
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

from hiptrack.files import write_atomically
from hiptrack.processes import is_launched

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
MARKER = "PREEMPTED"
PR_SET_PDEATHSIG = 1


class Preempted(BaseException):
    """The run was asked to stop and can go on later; no error, so nothing that handles errors may catch it."""


class Preemption:
    """Notes the signals of a run, from `with` to its end."""

    def __init__(self):
        self.signal = None
        self._at_once = False

    def __enter__(self):
        self._earlier = {number: signal.signal(number, self._note) for number in SIGNALS}
        if is_launched() and sys.platform == "linux":
            # `accelerate launch` of one process dies of a signal without passing it on
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        return self

    def __exit__(self, *_):
        for number, handler in self._earlier.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: one that was not set from Python

    @property
    def requested(self):
        """Whether this process was asked to stop."""
        return self.signal is not None

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

    def _note(self, number, _):
        if self.requested and number == signal.SIGINT:  # Ctrl-C again: now
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if self._at_once:
            raise Preempted


def exit_code():
    """0 under a launcher, which would call every other one a failure; else 75 (EX_TEMPFAIL): start me again."""
    return 0 if is_launched() else os.EX_TEMPFAIL


def leave_marker(folder, text):
    """Write the file PREEMPTED into a run's folder."""
    write_atomically(Path(folder) / MARKER, f"{text}\n".encode())


def remove_marker(folder):
    """Remove it: the run goes on."""
    (Path(folder) / MARKER).unlink(missing_ok=True)


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Notes Ctrl-C and SIGTERM from `with` to its end, so that a frame is finished first. Ctrl-C again ends at once."""

    def __init__(self):
        self.exit_code = 0

    def __enter__(self):
        self._earlier = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._earlier.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: one that was not set from Python

    def _note(self, number, _):
        if self.exit_code and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.exit_code = 128 + number
