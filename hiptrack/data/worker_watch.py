"""What every loader worker is reading, where the main process can still see it when the worker has died or hangs."""

import ctypes
import os
import signal
import time
from contextlib import contextmanager
from multiprocessing import RawArray

from hiptrack.errors import DataError

LONGEST_PATH = 4096  # bytes, as in Linux
LIKELY_CAUSES = {signal.SIGKILL: "out of memory?", signal.SIGBUS: "out of shared memory?"}

_own_note = None  # this worker's; None in every other process


class _Note(ctypes.Structure):
    # since: time.monotonic(), the same clock in all processes; 0 while nothing is read
    _fields_ = (("since", ctypes.c_double), ("path", ctypes.c_char * LONGEST_PATH))


class WorkerWatch:
    """A note for each worker of a loader, in shared memory; passed to the workers when they start, forked or spawned.

    A worker writes its own without a lock: it may die at any moment, and a lock it held would stop all.
    """

    def __init__(self, workers):
        self._notes = RawArray(_Note, workers)

    def enter(self, worker):
        """Make this process the worker of that number: from here on `reading` notes what it reads."""
        global _own_note
        _own_note = self._notes[worker]

    def reading_longer_than(self, seconds):
        """Numbers of the workers that have been reading one file for longer."""
        now = time.monotonic()
        return [worker for worker, note in enumerate(self._notes) if note.since and now - note.since > seconds]

    def death(self, processes):
        """A DataError about the first of the workers' processes that is dead, or None."""
        for worker, process in enumerate(processes):
            if not process.is_alive():
                note = self._notes[worker]
                place, suspect = "while reading no file", ""
                if note.since:
                    place, suspect = f"while reading {os.fsdecode(note.path)}", " and that file"
                return DataError(
                    f"loader worker {worker} (pid {process.pid}) {_end(process.exitcode)} {place}. Check the "
                    f"machine's memory (fewer train.workers need less of it){suspect}."
                )
        return None

    def hang(self, processes, limit):
        """A DataError about the worker that has been reading one file for longest; limit: the loader's, in seconds."""
        advice = f"Expected a batch within train.loader_timeout = {limit:g} s; raise it where that is too short."
        busy = [(note.since, worker) for worker, note in enumerate(self._notes) if note.since]
        if not busy:
            return DataError(
                f"the {len(processes)} loader workers have given nothing for {limit:g} s, and none is reading a file. "
                + advice
            )
        since, worker = min(busy)
        path = os.fsdecode(self._notes[worker].path)
        return DataError(
            f"loader worker {worker} (pid {processes[worker].pid}) has given nothing for {limit:g} s; it has been "
            f"reading {path} for {time.monotonic() - since:.0f} s. Check that file and its disk. {advice}"
        )


@contextmanager
def reading(path):
    """Note, in a worker, that it is busy with a file."""
    if _own_note is None:
        yield
        return
    _own_note.path = os.fsencode(path)[:LONGEST_PATH]
    _own_note.since = time.monotonic()
    try:
        yield
    finally:
        _own_note.since = 0


def _end(exitcode):
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    return f"was killed by signal {-exitcode} ({LIKELY_CAUSES.get(-exitcode) or signal.strsignal(-exitcode)})"
