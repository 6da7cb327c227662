"""Weights in half precision: half the file, the same tracker but for rounding."""

import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from toy import moving_target, save_toy

from hiptrack.errors import CheckpointError, NotFoundError
from hiptrack.models.strip import halve
from hiptrack.models.weights import load_model, read_metadata, read_tensors, save_weights
from hiptrack.tracking.tracker import Tracker

pytestmark = pytest.mark.usefixtures("clean_gin")


@pytest.fixture
def full(tmp_path):
    path = tmp_path / "full.safetensors"
    save_toy(path, challenge="ChallengeBranch", feature="mean_max", seed=4)
    return path


def track(path):
    tracker = Tracker.from_checkpoint(path, "cpu", branch="on")
    pictures, box = moving_target(8, seed=1)
    tracker.init(pictures[0], box)
    return np.array([tracker.update(picture).box for picture in pictures[1:]])


def test_half_the_bytes_track_as_before_and_say_the_same_of_themselves(full, tmp_path):
    output = tmp_path / "new" / "half.safetensors"
    halve(full, output)
    before, after = read_tensors(full), read_tensors(output)
    assert before.keys() == after.keys()
    assert {t.dtype for t in after.values() if t.is_floating_point()} == {torch.float16}
    assert all(t.dtype == torch.float32 for t in load_model(output).state_dict().values() if t.is_floating_point())
    assert sum(t.nbytes for t in after.values()) < 0.51 * sum(t.nbytes for t in before.values())
    assert read_metadata(output) == read_metadata(full)
    assert np.abs(track(output) - track(full)).max() < 0.5  # pixels


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_a_value_beyond_half_precision_is_named(full, tmp_path, value):
    model, output = load_model(full), tmp_path / "half.safetensors"
    with torch.no_grad():
        model.box_head.score.out.bias.fill_(value)
    save_weights(full, model, read_metadata(full)["model"])
    with pytest.raises(CheckpointError, match="box_head.score.out.bias has values that float16 cannot hold"):
        halve(full, output)
    assert not output.exists()


def test_the_command_writes_the_file_and_says_what_is_wrong(full, tmp_path):
    command = [sys.executable, "-m", "hiptrack", "halve", "--output", tmp_path / "half.safetensors", "--input"]
    done = subprocess.run([*command, full], check=False, capture_output=True, text=True)
    assert done.returncode == 0 and "wrote" in done.stdout and (tmp_path / "half.safetensors").exists()
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.ones(2)}, foreign)
    done = subprocess.run([*command, foreign], check=False, capture_output=True, text=True)
    assert done.returncode == 1 and "does not say how to build its model" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_be_read_or_written_is_refused(full, tmp_path):
    with pytest.raises(CheckpointError, match="is what is read"):
        halve(full, full)
    with pytest.raises(CheckpointError, match="ends in .safetensors"):
        halve(full, tmp_path / "half.pth")
    with pytest.raises(NotFoundError):
        halve(tmp_path / "none.safetensors", tmp_path / "half.safetensors")
