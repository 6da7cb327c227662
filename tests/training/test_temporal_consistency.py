"""Classes that agree over time: the consistency loss of neighbouring frames, and smoothing while tracking."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy import moving_target, randomise, toy_branch, toy_model
from training_runs import run_here, toy_stages

from hiptrack.data.clips import ClipData, ClipDataset, Geometry
from hiptrack.data.folders import FolderDataset
from hiptrack.data.loader import collate
from hiptrack.data.sampling import CausalSampler
from hiptrack.errors import ConfigError
from hiptrack.tracking.tracker import Tracker
from hiptrack.training.log import read_metrics
from hiptrack.training.losses import ConsistencyLoss

pytestmark = pytest.mark.usefixtures("clean_gin")


def test_clips_carry_the_gaps_between_their_search_frames(synthetic):
    dataset = FolderDataset(str(synthetic), "train")
    data = ClipDataset(ClipData([dataset], sampler=CausalSampler(4, 3)), Geometry(32, 64, 2.0, 5.0), 0, 0)
    for index in range(8):  # half of them run backwards
        sample = data[(0, index)]
        search = [int(number) for number in sample["source"].split(" frames ")[1].strip("[]").split(",")][1:]
        gaps = [abs(b - a) for a, b in itertools.pairwise(search)]
        assert sample["gaps"].tolist() == [0, *gaps]
    assert collate([data[(0, 0)], data[(0, 1)]])["gaps"].shape == (2, 4)


GAPS = torch.tensor([[0, 2, 5], [0, 1, 3], [0, 3, 0]])  # the last frame is drawn twice


def predicted(probabilities):
    return SimpleNamespace(challenge=SimpleNamespace(probabilities=probabilities))


def test_loss_is_the_squared_difference_of_near_neighbours():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), (3, 3))
    total, pairs = 0.0, 0
    for clip, gaps in zip(probabilities, GAPS.tolist(), strict=True):
        for frame in (1, 2):
            if 1 <= gaps[frame] <= 3:
                total += sum((clip[frame][c] - clip[frame - 1][c]) ** 2 for c in range(10)) / 10
                pairs += 1
    loss, gaps = ConsistencyLoss(max_gap=3), GAPS.flatten()
    assert pairs == 4 and int(loss.count(gaps)) == pairs
    assert loss(predicted(torch.tensor(probabilities).flatten(0, 1)), gaps).item() == pytest.approx(total)


def test_only_frames_of_a_pair_are_moved_and_towards_each_other():
    logits = torch.randn(9, 10, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss, gaps = ConsistencyLoss(max_gap=3), GAPS.flatten()
    before = loss(predicted(logits.softmax(1)), gaps)
    before.backward()
    assert (logits.grad.abs().sum(1) > 0).tolist() == [True, True, False, True, True, True, True, True, False]
    assert loss(predicted((logits - 0.5 * logits.grad).softmax(1)), gaps) < before
    lone = torch.zeros(9, dtype=torch.long)
    assert loss(predicted(logits.softmax(1)), lone).item() == 0 and int(loss.count(lone)) == 0


CONSISTENT = "Stage.losses=[@GIoULoss(), @L1Loss(), @CenterFocalLoss(), @ChallengeLoss(), @ConsistencyLoss()]"


def test_a_run_logs_the_consistency_and_a_large_weight_makes_it_small(synthetic, tmp_path):
    ends = {}
    for weight in (0.0, 1000.0):
        run = tmp_path / f"run{weight}"
        overrides = [*toy_stages(synthetic, branch=6), CONSISTENT, f"ConsistencyLoss.weight={weight}"]
        run_here(["tests/support/toy.gin"], [*overrides, "branch/Stage.lr=1e-2"], run)
        curves = read_metrics(run)
        assert "Loss/classification" in curves and "Accuracy" in curves
        ends[weight] = np.mean([value for _, value in curves["Loss/consistency"][-6:]])
    assert ends[1000.0] < 0.5 * ends[0.0]


def test_clips_of_one_search_frame_have_nothing_to_tie(synthetic, tmp_path):
    overrides = [*toy_stages(synthetic, branch=1), CONSISTENT, "CausalSampler.search_frames=1"]
    with pytest.raises(ConfigError, match="search_frames is 1: at least 2"):
        run_here(["tests/support/toy.gin"], overrides, tmp_path / "run")


def trained_toy():
    model = toy_model(challenge=toy_branch, seed=3)
    randomise(model.challenge, seed=5)
    return model


def track(tracker, seed=0, frames=9):
    """(boxes [frames - 1, 4], class probabilities [frames - 1, 10])."""
    pictures, box = moving_target(frames, seed=seed)
    tracker.init(pictures[0], box)
    results = [tracker.update(picture) for picture in pictures[1:]]
    return np.stack([result.box for result in results]), np.stack([result.challenge for result in results])


def test_smoothing_is_an_exponential_moving_average_and_moves_no_box():
    boxes, raw = track(Tracker(trained_toy(), branch="on", device="cpu"))
    smoothed_boxes, smoothed = track(Tracker(trained_toy(), branch="on", smoothing=0.7, device="cpu"))
    expected = [raw[0]]
    for row in raw[1:]:
        expected.append([0.7 * before + 0.3 * now for before, now in zip(expected[-1], row, strict=True)])
    assert smoothed == pytest.approx(np.array(expected), abs=1e-6)
    assert np.array_equal(boxes, smoothed_boxes)
    assert np.abs(np.diff(smoothed, axis=0)).mean() < np.abs(np.diff(raw, axis=0)).mean()


def test_a_new_target_begins_without_the_history_of_the_last():
    used, fresh = (Tracker(trained_toy(), branch="on", smoothing=0.9, device="cpu") for _ in range(2))
    track(used, seed=1)
    assert np.array_equal(track(used, seed=2)[1], track(fresh, seed=2)[1])


def test_a_changed_result_does_not_change_what_follows():
    pictures, box = moving_target(4)
    kept, changed = (Tracker(trained_toy(), branch="on", smoothing=0.5, device="cpu") for _ in range(2))
    for tracker in (kept, changed):
        tracker.init(pictures[0], box)
    for picture in pictures[1:]:
        expected, result = kept.update(picture).challenge, changed.update(picture).challenge
        assert np.array_equal(result, expected)
        result[:] = 0


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_range_is_an_error(smoothing):
    with pytest.raises(ConfigError, match="Tracker.smoothing"):
        Tracker(trained_toy(), branch="on", smoothing=smoothing, device="cpu")


@pytest.mark.parametrize("branch", ["off", "folded"])
def test_smoothing_without_class_probabilities_is_an_error(branch):
    with pytest.raises(ConfigError, match=f"Tracker.smoothing = 0.5, but only Tracker.branch = 'on'.*'{branch}'"):
        Tracker(trained_toy(), branch=branch, smoothing=0.5, device="cpu")
