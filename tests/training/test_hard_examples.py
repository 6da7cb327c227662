"""Hard-example sampling: what is drawn more often, what is kept of it, and that it resumes and is shared exactly."""

import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from training_runs import launch, run_here, same_log, same_tensors, toy_stages

from hiptrack.data.clips import ClipData, ClipDataset, Geometry
from hiptrack.data.folders import FolderDataset
from hiptrack.data.loader import ShardedBatches, make_loader
from hiptrack.data.sampling import HardExamples
from hiptrack.errors import ConfigError
from hiptrack.training.checkpoint import Checkpoint, finished_checkpoints
from hiptrack.training.difficulty import Difficulty, flags_difficulty, label_difficulty
from hiptrack.training.log import read_metrics

FROM_SCRATCH = ["tests/support/toy.gin"]
HARD = ["ClipData.priority=@HardExamples()", "HardExamples.uniform=0.1"]

pytestmark = pytest.mark.usefixtures("clean_gin")


def test_chances_are_proportional_to_the_difficulty_with_a_uniform_share():
    difficulty = np.array([0.1, 0.3, np.nan, 0.2])
    expected = 0.2 / 4 + 0.8 * np.array([0.1, 0.3, 0.2, 0.2]) / 0.8  # unknown: the mean of the known
    assert HardExamples(1.0, 0.2).probabilities(difficulty) == pytest.approx(expected)
    squared = np.array([0.01, 0.09, 0.04, 0.04])
    assert HardExamples(2.0, 0.0).probabilities(difficulty) == pytest.approx(squared / squared.sum())


@pytest.mark.parametrize("difficulty", [[0.0, 0.0], [np.nan, np.nan]])
def test_without_any_difference_all_are_alike(difficulty):
    assert HardExamples().probabilities(np.array(difficulty)) == pytest.approx([0.5, 0.5])


def test_a_large_exponent_draws_the_hardest_alone():
    assert HardExamples(60.0, 0.0).probabilities(np.array([1e-7, 1e-6])) == pytest.approx([0, 1])


def test_difficulty_is_the_probability_missing_from_the_truth():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]])
    difficulty, labelled = label_difficulty(probabilities, torch.tensor([0, 1, -1]))
    assert difficulty[:2].tolist() == pytest.approx([0.3, 0.9]) and labelled.tolist() == [True, True, False]
    flags = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [-1.0, -1.0, -1.0]])
    difficulty, labelled = flags_difficulty(probabilities, flags)
    assert difficulty[:2].tolist() == pytest.approx([0.2, 0.4 / 3]) and labelled.tolist() == [True, True, False]


def hard_dataset(root):
    data = ClipData([FolderDataset(str(root), "train", f"{root}/annotations")], priority=HardExamples(uniform=0.0))
    return ClipDataset(data, Geometry(32, 64, 2.0, 3.0), seed=0, stage=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_draws_follow_what_is_known_at_the_start_of_an_epoch(synthetic, workers):
    dataset = hard_dataset(synthetic)
    names = [f"{dataset.data.datasets[0].name}/{s.name}" for s in dataset.sequences[0]]
    batches = ShardedBatches(steps=20, batch=4, rank=0, processes=1, passes=1)
    loader = make_loader(dataset, batches, workers, seed=0)
    counts = []
    for epoch, hard in enumerate((None, names[1], names[3])):
        if hard:
            dataset.prioritise({name: 0.9 if name == hard else 0.1 for name in names})
        batches.start_at(epoch, 0)
        counts.append(Counter(name for batch in loader for name in batch["sequence"]))
    assert max(counts[0].values()) < 30  # of 80; 16 each are expected
    assert counts[1][names[1]] > 40 and counts[2][names[3]] > 40  # 9 of 13 are


def states(run):
    return [Checkpoint.open(path).state["difficulty"] for path in finished_checkpoints(run / "checkpoints")]


def test_a_run_keeps_difficulties_and_resumes_from_anywhere_bitwise(synthetic, tmp_path):
    overrides = [
        *toy_stages(synthetic, branch=3),
        *HARD,
        "train.workers=2",
        "train.save_steps=1",
        "train.keep_checkpoints=99",
    ]
    whole = tmp_path / "whole"
    assert run_here(FROM_SCRATCH, overrides, whole) == 0
    kept = states(whole)
    assert not kept[0]["known"] and kept[0]["sums"]  # in the first epoch
    assert kept[-1]["known"] and not kept[-1]["sums"] and all(0 < d < 1 for d in kept[-1]["known"].values())
    assert len(read_metrics(whole)["Difficulty/mean"]) == 3
    for checkpoint in finished_checkpoints(whole / "checkpoints")[1:-1:2]:
        cut = tmp_path / checkpoint.name
        shutil.copytree(whole, cut, ignore=shutil.ignore_patterns("*.safetensors", "step-*", "tensorboard"))
        shutil.copytree(checkpoint, cut / "checkpoints" / checkpoint.name)
        assert run_here(FROM_SCRATCH, overrides, cut) == 0
        assert same_tensors(whole / "model.safetensors", cut / "model.safetensors"), checkpoint.name
        assert same_log(whole, cut) and states(cut)[-1] == kept[-1]


def test_the_draws_of_a_run_depend_on_the_priority(synthetic, tmp_path):
    runs = {}
    for name, settings in {
        "hard": [*HARD, "HardExamples.exponent=50.0"],
        "alike": [HARD[0], "HardExamples.exponent=0.0"],
    }.items():
        assert run_here(FROM_SCRATCH, [*toy_stages(synthetic, branch=2), *settings], tmp_path / name) == 0
        runs[name] = read_metrics(tmp_path / name)["Loss/total"]
    assert runs["hard"][:3] == runs["alike"][:3] and runs["hard"][3:] != runs["alike"][3:]


def test_processes_share_the_difficulties(synthetic, tmp_path):
    overrides = [*toy_stages(synthetic, branch=2), *HARD, "ChallengeBranch.dropout=0.0", "Backbone.drop_path=0.0"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert run_here(FROM_SCRATCH, overrides, one) == 0
    done = launch(["--gin", *FROM_SCRATCH, "--run", str(two), *overrides], processes=2)
    assert done.returncode == 0, done.stderr
    known, shared = states(one)[-1]["known"], states(two)[-1]["known"]
    assert known.keys() == shared.keys() and known == pytest.approx(shared, abs=1e-4)


def test_sums_of_all_processes_are_saved_once(monkeypatch):
    """Rows of two processes, a checkpoint, and on."""
    first, second = Difficulty(), Difficulty()
    first._add([("a", 5, 1), ("b", 7, 2), ("c", 0, 0)])
    second._add([("a", 3, 2)])
    monkeypatch.setattr("hiptrack.training.difficulty.gather_object", lambda own: [first._sums, second._sums])
    saved = first.state()
    assert saved["sums"] == {"a": (8, 3), "b": (7, 2)}
    main, other = Difficulty(saved, is_main=True), Difficulty(saved, is_main=False)
    assert main._sums == saved["sums"] and not other._sums


def test_two_killed_processes_hand_on_what_each_has_seen(synthetic, tmp_path, monkeypatch):
    """In mid-epoch; resumed by two, bitwise; by one, with the same clips seen by then."""
    still = ["ChallengeBranch.dropout=0.0", "Backbone.drop_path=0.0"]
    overrides = [*toy_stages(synthetic, branch=2), *HARD, *still, "train.save_steps=1", "Stage.clips=16"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert launch(["--gin", *FROM_SCRATCH, "--run", str(whole), *overrides], processes=2).returncode == 0
    monkeypatch.setenv("SIGNAL_AT_STEP", "2")
    monkeypatch.setenv("SIGNAL", "SIGKILL")
    launch(["--gin", *FROM_SCRATCH, "--run", str(cut), *overrides], 2, "tests/support/signalled_training.py")
    kept = states(cut)[-1]
    assert kept["sums"] and not kept["known"]
    shutil.copytree(cut, tmp_path / "alone")
    for processes, folder in ((2, cut), (1, tmp_path / "alone")):
        resumed = launch(["--gin", *FROM_SCRATCH, "--run", str(folder), *overrides], processes)
        assert resumed.returncode == 0, resumed.stderr
        assert states(folder)[-1]["known"] == pytest.approx(states(whole)[-1]["known"], abs=1e-4)
    assert same_tensors(whole / "model.safetensors", cut / "model.safetensors") and same_log(whole, cut)
    assert states(cut)[-1] == states(whole)[-1]


def test_data_sets_of_one_name_are_told_apart(synthetic):
    data = ClipData([FolderDataset(str(synthetic), "train")] * 2, priority=HardExamples())
    with pytest.raises(
        ConfigError, match="world_train_0001 occurs twice: give each data set its own FolderDataset.name"
    ):
        ClipDataset(data, Geometry(32, 64, 2.0, 3.0), seed=0, stage=0)


def test_a_priority_needs_a_branch_and_labels(synthetic, tmp_path):
    plain = ["train.annotations=None", "Stage.losses=[@GIoULoss()]"]
    with pytest.raises(ConfigError, match="ClipData.priority draws by how sure .* its data have none"):
        overrides = [text for text in toy_stages(synthetic, tracker=1) if not text.startswith("ANNOTATIONS")]
        run_here(FROM_SCRATCH, [*overrides, *HARD, *plain], tmp_path / "unlabelled")
    with pytest.raises(ConfigError, match="the model has no branch"):
        overrides = [text for text in toy_stages(synthetic, tracker=1) if not text.startswith("ChallengeBranch")]
        run_here(FROM_SCRATCH, [*overrides, *HARD, "HIPTrack.challenge=None", plain[1]], tmp_path / "plain")
