"""The tools as a user runs them: training on real clips, evaluation, and what they say of bad input."""

import json
import shutil

import numpy as np
import pytest
from helpers_data import CLIPS, annotation, write_annotations
from training_runs import TOY_BRANCH, TOY_MODEL, TOY_RUN, launch, run_here, toy_stages

from hiptrack.training.log import read_metrics

pytestmark = pytest.mark.usefixtures("clean_gin")
real_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not beside the checkout")


@pytest.fixture(scope="module")
def weights(synthetic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_here(["tests/support/toy.gin"], toy_stages(synthetic), folder)
    return folder / "model.safetensors"


def evaluate(weights, root, out, *more, processes=1):
    arguments = ["--checkpoint", str(weights), "--root", str(root), "--split", "val", "--out", str(out), *more]
    return launch(arguments, processes, command="eval")


def test_eval_prints_the_numbers_and_writes_got10k_results(weights, synthetic, tmp_path):
    more = ["--annotations", str(synthetic / "annotations"), "Tracker.branch=on"]
    done = evaluate(weights, synthetic, tmp_path / "out", *more)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("AO", "SR0.5", "SR0.75", "all frames", "balanced accuracy"))
    lines = (tmp_path / "out" / "world_val_0001" / "world_val_0001_001.txt").read_text().splitlines()
    truth = (synthetic / "val" / "world_val_0001" / "groundtruth.txt").read_text().splitlines()
    assert len(lines) == len(truth) and len(lines[0].split(",")) == 4
    assert np.allclose([float(v) for v in lines[0].split(",")], [float(v) for v in truth[0].split(",")], atol=1e-3)
    again = evaluate(weights, synthetic, tmp_path / "out", *more)
    assert "2 of 2 sequences were finished before" in again.stdout + again.stderr
    numbers = [json.loads((tmp_path / "out" / "report.json").read_text())["overall"]]
    two = evaluate(weights, synthetic, tmp_path / "two", *more, processes=2)
    assert two.returncode == 0, two.stderr
    numbers.append(json.loads((tmp_path / "two" / "report.json").read_text())["overall"])
    assert numbers[0] == numbers[1]
    other = evaluate(weights, synthetic, tmp_path / "out")  # another configuration: never taken for the same
    assert other.returncode == 1 and "error: " in other.stderr and "Traceback" not in other.stderr


@pytest.mark.parametrize("what", ["root", "checkpoint", "truncated", "foreign", "frame", "list"])
def test_eval_says_what_is_missing_or_damaged(weights, synthetic, tmp_path, what):
    root, checkpoint = tmp_path / "data", tmp_path / "w.safetensors"
    shutil.copytree(synthetic, root)
    shutil.copy(weights, checkpoint)
    frame = root / "val" / "world_val_0001" / "00000005.jpg"
    if what == "root":
        root = named = tmp_path / "nowhere"
    elif what == "checkpoint":
        checkpoint = named = tmp_path / "nothing.safetensors"
    elif what in ("truncated", "foreign"):
        checkpoint.write_bytes(weights.read_bytes()[:5000] if what == "truncated" else b"\x80\x04not safetensors")
        named = checkpoint
    elif what == "frame":
        frame.write_bytes(b"no picture")
        named = frame
    else:
        (root / "val" / "list.txt").write_text("world_val_0001\nworld_val_0009\n")
        named = f"{root / 'val' / 'list.txt'}:2"
    done = evaluate(checkpoint, root, tmp_path / "out")
    assert done.returncode == 1
    assert str(named) in done.stdout + done.stderr and "Traceback" not in done.stderr


@real_clips
def test_real_clips_train_and_log_at_toy_size(tmp_path):
    overrides = [*TOY_MODEL, *TOY_RUN, f"DATA_ROOT={CLIPS}", "FolderDataset.split=val", "WEIGHTS=None"]
    overrides += [
        "tracker/Stage.epochs=1",
        "tracker/StepSchedule.milestones=(0,)",
        "tracker/KeepRatioSchedule.start=0",
        "Stage.batch=2",
        "Stage.clips=4",
    ]
    assert run_here(["experiments/hiptrack_got10k.gin"], overrides, tmp_path / "run") == 0
    assert len(read_metrics(tmp_path / "run")["Loss/total"]) == 2


@real_clips
def test_real_clips_with_annotations_train_in_two_stages_at_toy_size(tmp_path):
    for name, flag in (("davis_boat", "occlusion"), ("tlp_bike", "motion_blur")):
        frames = len(list((CLIPS / "val" / name).glob("*.jpg")))
        rows = [annotation(name, frame, [flag] if frame % 2 else []) for frame in range(1, frames + 1)]
        write_annotations(tmp_path / "labels", name, rows)
    overrides = [*TOY_MODEL, *TOY_BRANCH, *TOY_RUN, f"DATA_ROOT={CLIPS}", "FolderDataset.split=val", "WEIGHTS=None"]
    overrides += ["branch/Stage.epochs=1", "finetune/Stage.epochs=1", f"ANNOTATIONS={tmp_path / 'labels'}"]
    assert run_here(["experiments/two_stage.gin"], [*overrides, "Stage.batch=2"], tmp_path / "run") == 0
    curves = read_metrics(tmp_path / "run")
    assert {"Loss/classification", "Accuracy", "IoU"} <= curves.keys()
    assert 0 <= min(value for _, value in curves["Accuracy"])
