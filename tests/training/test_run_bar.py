"""What a run shows while it trains: one bar to its end, and a line for each epoch."""

import io
import re
import sys

import numpy as np
import pytest
from training_runs import run_here, toy_stages

from hiptrack.training.log import read_metrics

pytestmark = pytest.mark.usefixtures("clean_gin")
TOY = ["tests/support/toy.gin"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def bars(text):
    """[(steps done, of)] of the states of a run's bar."""
    return [(int(done), int(of)) for done, of in re.findall(r"(\d+)/(\d+) \[[^\]]*step/s", text)]


def train(overrides, folder, monkeypatch, capsys, **options):
    """(the lines of the epochs, what a terminal shows)."""
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", Terminal())
        assert run_here(TOY, overrides, folder, **options) == 0
        shown = sys.stderr.getvalue()
    return [line for line in capsys.readouterr().out.splitlines() if " epoch " in line], shown


def test_one_bar_and_a_line_an_epoch_with_the_means_of_its_steps(synthetic, tmp_path, monkeypatch, capsys):
    """Three epochs of three steps; then the last two steps again, from a checkpoint."""
    toy = [line for line in toy_stages(synthetic, tracker=2, branch=1) if not line.startswith("train.validation")]
    overrides = [*toy, "Validation.every=2", "train.save_steps=1", "train.keep_checkpoints=20"]
    lines, shown = train(overrides, tmp_path / "run", monkeypatch, capsys)
    curves = read_metrics(tmp_path / "run")

    def mean(name, steps):
        return np.mean([value for step, value in curves[name] if step in steps])

    starts = [line.split(":")[0] for line in lines]
    assert starts == ["tracker epoch 1/2", "tracker epoch 2/2", "branch epoch 1/1"]
    for line, steps in zip(lines, ((1, 2, 3), (4, 5, 6), (7, 8, 9)), strict=True):
        assert f": loss {mean('Loss/total', steps):.3f}, giou {mean('Loss/giou', steps):.3f}, l1 " in line
        assert f"IoU {mean('IoU', steps):.3f}" in line and re.search(r"; \d\d:\d\d$", line)
    assert "accuracy" not in lines[0] + lines[1] and f", accuracy {mean('Accuracy', (7, 8, 9)):.3f};" in lines[2]
    assert "validation" not in lines[0] and f"; validation AO {dict(curves['Validation/AO'])[6]:.3f}, SR0.5" in lines[1]
    assert bars(shown)[0] == (0, 9) and bars(shown)[-1] == (9, 9) and {of for _, of in bars(shown)} == {9}
    assert "loss=" in shown and "IoU=" in shown and "accuracy=" in shown and "branch 1/1" in shown

    resumed = str(tmp_path / "run" / "checkpoints" / "step-00000007")
    lines, shown = train(overrides, tmp_path / "run", monkeypatch, capsys, resume=resumed)
    (line,) = lines
    assert f"loss {mean('Loss/total', (8, 9)):.3f}, " in line and line.endswith("; resumed, with 2 of its 3 steps left")
    assert bars(shown)[0] == (7, 9) and bars(shown)[-1] == (9, 9)
