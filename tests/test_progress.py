"""Signs of life: a bar on a terminal, plain lines elsewhere."""

import io
import logging
import re
import sys

import cv2
import numpy as np
import pytest

from hiptrack import progress as bars
from hiptrack.data.sequence import Sequence
from hiptrack.evaluation.baselines import StillBox
from hiptrack.evaluation.run_sequences import run_sequences
from hiptrack.extras.world.files import write_world
from hiptrack.progress import progress, skip

LENGTHS = (4, 6, 2)


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def states(self):
        return [text.strip() for text in re.split("[\r\n]", self.getvalue()) if text.strip()]


@pytest.fixture
def terminal(monkeypatch):
    """terminal(): from here on stderr is a terminal, which is returned."""

    def put():
        monkeypatch.setattr("sys.stderr", Terminal())  # pytest has one of its own until the test begins
        return sys.stderr

    return put


@pytest.fixture
def sequences(tmp_path):
    made = []
    for number, length in enumerate(LENGTHS):
        frames = tuple(str(tmp_path / f"{number}-{frame}.png") for frame in range(length))
        for frame in frames:
            cv2.imwrite(frame, np.zeros((20, 30, 3), np.uint8))
        boxes = np.tile([1.0, 2, 8, 9], (length, 1))
        made.append(Sequence(f"film{number}", frames, boxes, np.ones(length, bool), np.full(length, 8)))
    return made


def test_a_log_file_gets_plain_lines_and_only_now_and_then(monkeypatch, capsys):
    with progress(3, "frame", "tracking") as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""  # it was over soon
    monkeypatch.setattr(bars, "PAUSE", 0)
    with progress(3, "frame", "tracking") as bar:
        bar.update(2)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"tracking:\s+67% 2/3 \[\d\d:\d\d<\d\d:\d\d, .* frame/s\]", lines[1]), lines
    assert not any("\r" in line for line in lines)


def test_what_was_done_before_counts_but_not_for_the_speed(monkeypatch, capsys):
    monkeypatch.setattr(bars, "PAUSE", 0)
    with progress(2000, "step", done=900) as bar:
        skip(bar, 95)
        bar.update(5)
        state = bar.format_dict
    assert "50% 1000/2000" in capsys.readouterr().err
    assert state["n"] - state["initial"] == 5  # in the time so far


def test_a_logged_line_stands_above_the_bar(terminal):
    terminal = terminal()
    log, handler = logging.getLogger("hiptrack.test"), logging.StreamHandler(terminal)
    logging.getLogger().addHandler(handler)
    try:
        with progress(2, "frame", "tracking") as bar:
            bar.update()
            log.warning("film0 failed")
    finally:
        logging.getLogger().removeHandler(handler)
    assert "film0 failed" in terminal.states() and terminal.states()[-1].startswith("tracking:  50%")


def test_tracking_tells_frames_and_sequences(sequences, terminal):
    """One of them fails at its start, one in its midst; what is left of them will not be tracked."""
    terminal = terminal()
    open(sequences[0].frames[0], "w").close()
    open(sequences[1].frames[3], "w").close()
    for _ in run_sequences(StillBox(), sequences):
        pass
    last = terminal.states()[-1]
    assert last.startswith("tracking: 100%") and "12/12" in last and "3 of 3 sequences" in last and "frame/s" in last


def test_the_other_processes_show_nothing(sequences, terminal):
    terminal = terminal()
    list(run_sequences(StillBox(), sequences, shown=False))
    assert terminal.getvalue() == ""


def test_writing_a_world_tells_frames_and_sequences(tmp_path, terminal):
    terminal = terminal()
    write_world(str(tmp_path), "val", 2, 3, (96, 96), 0)
    last = terminal.states()[-1]
    assert last.startswith("writing val: 100%") and "6/6" in last and "2 of 2 sequences" in last
