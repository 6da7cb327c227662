"""Images that turn out unreadable while a run trains: drawn again, counted, and too many of them end the run."""

import json
import re

import numpy as np
import pytest
from training_runs import launch, run_here, same_log, same_tensors, tensorboard_scalars, toy_stages

from hiptrack.data import clips
from hiptrack.errors import DataError
from hiptrack.extras.world.files import write_world
from hiptrack.training.guard import DataFaults
from hiptrack.training.log import read_metrics

FROM_SCRATCH = ["tests/support/toy.gin"]
FRAMES = 300

pytestmark = pytest.mark.usefixtures("clean_gin")


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    write_world(str(root), "train", 10, FRAMES // 10, (160, 120), 0, sea=1.0)
    write_world(str(root), "val", 1, 5, (160, 120), 0, sea=1.0)
    return root


def corrupt(root, share):
    """Cut off a share of all training images; their paths."""
    images = sorted(root.glob("train/*/*.jpg"))
    chosen = np.random.default_rng(2).choice(len(images), round(share * len(images)), replace=False)
    for number in chosen:
        images[number].write_bytes(images[number].read_bytes()[:100])
    return {str(images[number]) for number in chosen}


def test_one_percent_of_corrupt_frames_is_survived_and_counted(data, tmp_path, monkeypatch, capsys):
    corrupted = corrupt(data, 0.01)
    assert len(corrupted) == 3
    met = []
    read = clips.read_crops

    def watched(path, *wanted):
        if path in corrupted:
            met.append(path)
        return read(path, *wanted)

    monkeypatch.setattr(clips, "read_crops", watched)
    folder, overrides = tmp_path / "run", [*toy_stages(data, tracker=2), "Stage.clips=60"]
    assert run_here(FROM_SCRATCH, overrides, folder) == 0
    assert met
    told = capsys.readouterr().out
    assert f"{len(met)} of {120 + len(met)} drawn clips were rejected" in told
    assert f"{len(met)} for unreadable image; {len(set(met))} files were unreadable" in told
    listed = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert [draw["file"] for draw in listed] == met
    assert all(draw["sequence"] in draw["file"] for draw in listed)
    assert read_metrics(folder)["Rejected/unreadable image"][-1][1] == len(met)
    assert tensorboard_scalars(folder)["Rejected/unreadable image"][-1][1] == len(met)


def test_twenty_percent_of_corrupt_frames_end_the_run_with_the_list(data, tmp_path):
    corrupted = corrupt(data, 0.2)
    overrides = [*toy_stages(data, tracker=2), "Stage.clips=60", "train.workers=1"]
    done = launch(["--gin", *FROM_SCRATCH, "--run", str(tmp_path / "run"), *overrides])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "met an unreadable image, more than train.max_unreadable = 0.1" in done.stderr
    listed = {line.strip().rpartition(" (")[0] for line in done.stderr.splitlines() if line.startswith("  /")}
    assert len(listed) >= 5 and listed <= corrupted
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_two_processes_count_together_and_go_on_exactly(data, tmp_path, monkeypatch):
    corrupt(data, 0.02)
    overrides = [*toy_stages(data, tracker=2), "Stage.clips=32", "train.workers=1", "train.save_steps=1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    one = tmp_path / "one"
    assert launch(["--gin", *FROM_SCRATCH, "--run", str(whole), *overrides], 2).returncode == 0
    assert run_here(FROM_SCRATCH, overrides, one) == 0
    monkeypatch.setenv("SIGNAL_AT_STEP", "6")
    monkeypatch.setenv("SIGNAL", "SIGKILL")
    launch(["--gin", *FROM_SCRATCH, "--run", str(cut), *overrides], 2, "tests/support/signalled_training.py")
    assert not (cut / "model.safetensors").exists()
    assert launch(["--gin", *FROM_SCRATCH, "--run", str(cut), *overrides], 2).returncode == 0
    assert same_tensors(whole / "model.safetensors", cut / "model.safetensors") and same_log(whole, cut)
    rejected = [(run / "rejected.jsonl").read_text() for run in (whole, cut)]
    assert rejected[0] == rejected[1] and rejected[0]
    draws = [sorted((run / "rejected.jsonl").read_text().splitlines()) for run in (whole, one)]
    assert draws[0] == draws[1]


def draw(file, reason="unreadable image"):
    return {"reason": reason, "sequence": "a", "file": file}


def test_the_share_is_one_of_at_least_a_hundred_draws():
    faults = DataFaults(0.1)
    faults.add(4, [draw("x.jpg")] * 10)
    assert faults.problem() is None  # 10 of 14, but 14 draws say little
    faults.add(4, [draw("y.jpg")])
    assert isinstance(faults.problem(), DataError)
    assert "x.jpg (10x)" in str(faults.problem()) and "y.jpg (1x)" in str(faults.problem())
    patient = DataFaults(0.1, faults.state())
    patient.add(200, [])
    assert patient.problem() is None  # 11 of 219


def test_empty_crops_are_counted_but_are_no_fault():
    faults = DataFaults(0.1)
    faults.add(10, [draw(None, "empty crop")] * 90)
    assert faults.problem() is None
    assert faults.scalars() == {"Rejected/empty crop": 90}
    assert "90 for empty crop; 0 files were unreadable" in faults.describe()
    assert DataFaults(0.1).describe() is None


@pytest.mark.parametrize(
    "fault, words", [("dies", "is killed by signal: Killed"), ("hangs", "timed out after 2 seconds")]
)
def test_a_worker_of_one_process_that_fails_stops_all(synthetic, tmp_path, monkeypatch, fault, words):
    monkeypatch.setenv("WORKER", fault)
    overrides = [*toy_stages(synthetic), "Stage.clips=40", "train.workers=1", "train.loader_timeout=2"]
    done = launch(
        ["--gin", *FROM_SCRATCH, "--run", str(tmp_path / "run"), *overrides], 2, "tests/support/faulty_workers.py"
    )
    assert done.returncode != 0
    assert done.stderr.count("error: DataLoader ") == 1 and words in done.stderr
    assert re.search(r"had been reading \S+/0000\d+\.jpg", done.stderr)
    assert not (tmp_path / "run" / "model.safetensors").exists()
