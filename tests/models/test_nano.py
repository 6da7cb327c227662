"""hiptrack-nano: the weights in the package are those of its recipe, and track with no download."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers_data import CLIPS
from small_videos import lines_of, write_video

from hiptrack import Tracker, config
from hiptrack.config import REPO_ROOT
from hiptrack.config.portable import component_text
from hiptrack.data.folders import FolderDataset
from hiptrack.data.reading import read_image_rgb
from hiptrack.evaluation.baselines import StillBox
from hiptrack.evaluation.score import evaluate_sequences
from hiptrack.extras.world.files import write_world
from hiptrack.models.initial import TrackerWeights
from hiptrack.models.weights import load_model, read_metadata
from hiptrack.nano import FOLDER, WEIGHTS, checkpoint_name, checkpoint_path, weights_path
from hiptrack.training import train  # noqa: F401  registers everything

pytestmark = pytest.mark.usefixtures("clean_gin")
MIB = 2**20


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six scenes of textures and shapes that nano was not trained on, of a seed that its validation does not use."""
    root = tmp_path_factory.mktemp("world")
    write_world(str(root), "test", 6, 50, (320, 180), 5)
    return root


@pytest.fixture
def scenes(root):
    return FolderDataset(str(root), "test", str(root / "annotations")).sequences


def test_the_weights_are_small_half_precision_and_of_the_recipe():
    tensors = safetensors.torch.load_file(WEIGHTS)
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float16}
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 15 * MIB
    config.load(["experiments/nano.gin"], [], root="train")
    recipe = json.loads(component_text("HIPTrack"))
    assert recipe["parameters"]["challenge"]["parameters"].pop(
        "taxonomy"
    )  # the ten classes, which the file does not name
    assert json.loads(read_metadata(WEIGHTS)["model"]) == recipe


def test_it_tracks_what_it_never_saw(scenes):
    nano, still = (evaluate_sequences(tracker, scenes).overall["AO"] for tracker in (Tracker.nano("cpu"), StillBox()))
    assert nano > 0.5 and nano > still + 0.1, (nano, still)


def test_its_branch_names_challenges_better_than_always_the_same(scenes):
    report = evaluate_sequences(Tracker.nano("cpu", branch="on"), scenes)
    counts = report.classification["counts"]
    assert report.classification["balanced_accuracy"] > 1.5 / np.count_nonzero(counts), report.classification


def test_a_video_is_tracked_without_naming_weights(scenes, tmp_path):
    frames = [read_image_rgb(path) for path in scenes[1].frames[:6]]
    video, lines = write_video(tmp_path / "video.mp4", frames), tmp_path / "boxes.jsonl"
    box = ",".join(map(str, scenes[1].boxes_xywh[0]))
    command = [sys.executable, REPO_ROOT / "tools" / "track.py", video, f"--box={box}", "--jsonl", lines]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(lines_of(lines)) == 6


def test_its_name_stands_for_its_weights():
    assert weights_path("nano") == WEIGHTS and checkpoint_path("nano") == FOLDER and checkpoint_name(FOLDER) == "nano"
    assert weights_path("runs/nano.safetensors") == Path("runs/nano.safetensors")
    model = load_model(WEIGHTS)
    with torch.no_grad():
        model.box_head.score.out.bias.zero_()
    assert TrackerWeights("nano").missing_paths() == []
    TrackerWeights("nano", branch=False)(model)
    assert model.box_head.score.out.bias.item() != 0
    assert weights_path("./nano") == checkpoint_path("./nano") == Path("nano")


def test_the_demo_starts_from_it(tmp_path):
    command = [sys.executable, REPO_ROOT / "tools" / "train.py", "--gin", "experiments/demo.gin", "--dry-run"]
    done = subprocess.run(
        [*command, "--run", tmp_path / "run"], check=False, capture_output=True, text=True, cwd=REPO_ROOT
    )
    assert "initial weights: tracker <- nano, without its branch" in done.stdout, done.stderr
    assert "not found: nano" not in done.stdout


def test_the_kept_log_is_of_these_weights():
    """docs/nano/metrics.jsonl is the run's metrics; its last step is the step that the weights say they are of."""
    last = json.loads((REPO_ROOT / "docs" / "nano" / "metrics.jsonl").read_text().splitlines()[-1])
    assert str(last["step"]) == read_metadata(WEIGHTS)["step"]


def test_an_evaluation_is_called_by_its_name(root, tmp_path):
    command = [
        sys.executable,
        REPO_ROOT / "tools" / "eval.py",
        "--checkpoint",
        "nano",
        "--root",
        root,
        "--split",
        "test",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("results/nano/*/report.json"))) == 1


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not in the project")
def test_it_tracks_real_clips_better_than_a_box_that_keeps_still():
    sequences = FolderDataset(str(CLIPS), "val").sequences
    nano, still = (
        evaluate_sequences(tracker, sequences).overall["AO"] for tracker in (Tracker.nano("cpu"), StillBox())
    )
    assert nano > still + 0.1, (nano, still)
