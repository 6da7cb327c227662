"""Runs of a sweep whose commands are a few lines of Python: they take no time, and fail or wait as they are told."""

import sys
from dataclasses import dataclass
from pathlib import Path

DONE = "open(folder / 'done', 'w')"
# saves and ends at SIGTERM, as a training does
UNTIL_SIGTERM = """
signal.signal(signal.SIGTERM, lambda *_: (open(folder / 'saved', 'w'), sys.exit(75)))
open(folder / 'begun', 'w')
{then}
signal.pause()
"""
PREAMBLE = "import os, pathlib, signal, sys, time; folder = pathlib.Path(sys.argv[1]); folder.mkdir(exist_ok=True)\n"


@dataclass(frozen=True)
class SmallRun:
    """Done when its lines have left the file `done`."""

    folder: Path
    lines: str = DONE

    @property
    def name(self):
        return self.folder.name

    @property
    def log(self):
        return self.folder.with_name(f"{self.name}.log")

    def next_step(self):
        if (self.folder / "done").exists():
            return None
        return "training", [sys.executable, "-c", PREAMBLE + self.lines, str(self.folder)]

    def end_step(self, step):
        pass
