"""A tracker's folder as checkpoint: its settings hold where the configuration binds none."""

import json

import numpy as np
import pytest
from small_videos import lines_of, write_folder
from toy import moving_target, save_toy

from hiptrack import config
from hiptrack.data.folders import FolderDataset
from hiptrack.errors import CheckpointError, ConfigError
from hiptrack.evaluation.evaluate import EvaluationOptions, configured_tracker, evaluate
from hiptrack.extras.video.track import TrackRequest, track
from hiptrack.nano import checkpoint_name
from hiptrack.tracking.adaptation import Adaptation
from hiptrack.tracking.memory import MemoryPolicy
from hiptrack.tracking.tracker import Tracker, parts_of

pytestmark = pytest.mark.usefixtures("clean_gin")
SLOW = {"memory": MemoryPolicy(2, (1, 2), 2, 3), "adaptation": Adaptation([], size_rate=0.1)}


@pytest.fixture
def folder(tmp_path):
    """A tracker whose box hardly changes its size, as save_pretrained writes it."""
    save_toy(tmp_path / "toy.safetensors", challenge="ChallengeBranch", seed=4)
    Tracker.from_checkpoint(tmp_path / "toy.safetensors", "cpu", **SLOW).save_pretrained(tmp_path / "slow")
    return tmp_path / "slow"


@pytest.fixture
def film(tmp_path):
    """A data set of one sequence of ten frames."""
    pictures, box = moving_target(10, seed=1)
    (tmp_path / "films").mkdir()
    sequence = write_folder(tmp_path / "films" / "film", pictures)
    (sequence / "groundtruth.txt").write_text("\n".join([",".join(map(str, box))] * len(pictures)))
    return FolderDataset(str(tmp_path / "films"))


def sizes_found(checkpoint, film, tmp_path, *overrides):
    """Widths and heights [10, 2] that hiptrack track finds."""
    config.load(["gin/eval/tracker.gin"], list(overrides), root="evaluate")
    source, box = str(tmp_path / "films" / "film"), film.sequences[0].boxes_xywh[0]
    track(TrackRequest(source, checkpoint, tuple(box), jsonl=tmp_path / "found.jsonl"), configured_tracker())
    return np.array([line["box"][2:] for line in lines_of(tmp_path / "found.jsonl")])


def test_a_video_is_tracked_with_the_settings_of_the_folder_unless_they_are_bound(folder, film, tmp_path):
    slow = sizes_found(folder, film, tmp_path)
    plain = sizes_found(folder / "model.safetensors", film, tmp_path)
    assert np.abs(slow[1] - slow[0]).max() < 0.2 * np.abs(plain[1] - plain[0]).max()
    bound = ["Tracker.adaptation=None", "Tracker.memory=None"]
    assert np.array_equal(sizes_found(folder, film, tmp_path, *bound), plain)


def test_an_evaluation_says_the_settings_and_is_not_taken_for_that_of_others(folder, film, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for checkpoint in (folder, folder / "model.safetensors"):
        config.load(["gin/eval/tracker.gin"], [], root="evaluate")
        assert not evaluate(EvaluationOptions(checkpoint, film)).report.failures
    (slow,), (plain,) = ((tmp_path / "results").glob(f"{name}/*") for name in ("slow", "model"))
    assert slow.name != plain.name
    settings = [json.loads((path / "report.json").read_text())["made_with"]["settings"] for path in (slow, plain)]
    assert settings[0]["adaptation"] == {"rules": [], "size_rate": 0.1} and settings[1] == {}


def test_other_folders_and_damaged_settings_are_told(folder, film, tmp_path):
    config.load(["gin/eval/tracker.gin"], [], root="evaluate")
    with pytest.raises(ConfigError, match="is a folder: --checkpoint expects a weights file"):
        evaluate(EvaluationOptions(tmp_path / "films", film))
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json is damaged"):
        parts_of(folder)
    assert checkpoint_name(folder) == "slow"
