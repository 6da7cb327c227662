"""The tracker as programs use it: init, update, its state, its modes, and input it cannot use."""

import re
from functools import partial

import gin
import numpy as np
import pytest
import torch
from toy import FRAMES, moving_target, policy, randomise, save_toy, toy_branch, toy_model, track

from hiptrack.errors import CheckpointError, ConfigError, DataError, HiptrackError
from hiptrack.tracking.tracker import Tracker, hann_window


@pytest.fixture(autouse=True)
def cleared():
    gin.clear_config()
    yield
    gin.clear_config()


def tracker_of(model, branch="off"):
    return Tracker(model, branch=branch, memory=policy(), device="cpu")


def trained_toy():
    model = toy_model(challenge=toy_branch, seed=3)
    randomise(model.challenge, seed=5)
    return model


def test_init_forgets_the_target_before():
    used, fresh = tracker_of(toy_model()), tracker_of(toy_model())
    first = track(used, seed=1)
    assert used.target.memory.bank.frames == 3
    second = track(used, seed=2)
    assert np.array_equal(second, track(fresh, seed=2))
    assert not np.array_equal(first, second)
    assert np.array_equal(track(used, seed=1), first)


def test_two_trackers_of_one_model_do_not_meet():
    model = toy_model()
    alone = [track(tracker_of(model), seed=seed) for seed in (1, 2)]
    trackers = [tracker_of(model), tracker_of(model)]
    films = [moving_target(FRAMES, seed=seed) for seed in (1, 2)]
    for tracker, (pictures, box) in zip(trackers, films, strict=True):
        tracker.init(pictures[0], box)
    for number in range(1, FRAMES):
        for tracker, (pictures, _), expected in zip(trackers, films, alone, strict=True):
            assert tracker.update(pictures[number]).box.tolist() == expected[number - 1, :4].tolist()


def test_results_are_boxes_in_the_frame_and_scores():
    for seed in range(4):
        results = track(tracker_of(toy_model(seed=seed)), seed=seed)
        x, y, w, h, score = results.T
        assert ((score >= 0) & (score <= 1)).all()
        assert (w >= 10).all() and (h >= 10).all()
        assert (x >= 0).all() and (y >= 0).all() and (x <= 110).all() and (y <= 80).all()
        assert (x + w <= 120 + 1e-9).all() and (y + h <= 90 + 1e-9).all()


def test_a_result_is_the_callers_own():
    tracker = tracker_of(toy_model())
    pictures, box = moving_target(3)
    given = box.copy()
    tracker.init(pictures[0], given)
    given += 50  # the caller goes on with its array
    result = tracker.update(pictures[1])
    assert result.box.dtype == np.float64 and result.box.shape == (4,)
    result.box += 50
    expected = tracker_of(toy_model())
    expected.init(pictures[0], box)
    expected.update(pictures[1])
    assert np.array_equal(tracker.update(pictures[2]).box, expected.update(pictures[2]).box)


def one_peak(tracker, row, column):
    """Make the tracker's head see a lone peak at a grid place, size 0.25 and no offset."""

    def see(module, inputs, maps):
        maps.score_logits.fill_(-9.0)
        maps.score_logits[:, row, column] = 6.0
        maps.offset.zero_()
        maps.size.fill_(0.25)
        return maps

    tracker.model.box_head.register_forward_hook(see)


def test_a_peak_moves_the_box_to_its_place():
    """Search crop: 64 px of a 4 x 20 = 80 px square around (60, 45); a grid cell is 10 image px."""
    tracker = tracker_of(toy_model())
    one_peak(tracker, row=3, column=5)
    tracker.init(np.zeros((90, 120, 3), np.uint8), [50.0, 35.0, 20.0, 20.0])
    result = tracker.update(np.zeros((90, 120, 3), np.uint8))
    assert result.box == pytest.approx([60 + 10 - 10, 45 - 10 - 10, 20, 20])
    assert result.score == pytest.approx(1 / (1 + np.exp(-6)), abs=1e-4)


def test_hann_window_prefers_the_middle_but_does_not_dim_the_score():
    tracker = tracker_of(toy_model())

    def two_peaks(module, inputs, maps):
        maps.score_logits.fill_(-9.0)
        maps.score_logits[:, 0, 0] = 3.0  # higher, at the rim
        maps.score_logits[:, 4, 4] = 1.0
        maps.offset.zero_()
        maps.size.fill_(0.25)
        return maps

    tracker.model.box_head.register_forward_hook(two_peaks)
    tracker.init(np.zeros((90, 120, 3), np.uint8), [50.0, 35.0, 20.0, 20.0])
    result = tracker.update(np.zeros((90, 120, 3), np.uint8))
    assert result.box == pytest.approx([50, 35, 20, 20])
    assert result.score == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-4)
    k = np.arange(1, 9)
    window = 0.5 * (1 - np.cos(2 * np.pi * k / 9))
    assert np.allclose(hann_window(8), np.outer(window, window), atol=1e-6)


def test_challenge_is_none_unless_on():
    pictures, box = moving_target(3)
    for branch in ("off", "on"):
        tracker = tracker_of(trained_toy(), branch)
        tracker.init(pictures[0], box)
        challenge = tracker.update(pictures[1]).challenge
        if branch == "off":
            assert challenge is None
        else:
            assert challenge.shape == (10,) and (challenge >= 0).all()
            assert challenge.sum() == pytest.approx(1, abs=1e-5)
            assert challenge.max() > 0.11  # no constant answer
    tracker = tracker_of(trained_toy(), "folded")
    tracker.init(pictures[0], box)
    assert tracker.update(pictures[1]).challenge is None


def test_modes_from_a_checkpoint(tmp_path):
    path = tmp_path / "model.safetensors"
    save_toy(path, challenge="ChallengeBranch", seed=4)
    runs = {
        branch: track(Tracker.from_checkpoint(path, "cpu", branch=branch, memory=policy()), seed=1)
        for branch in ("off", "on", "folded")
    }
    assert not np.array_equal(runs["on"], runs["off"])
    assert not np.array_equal(runs["folded"], runs["off"])
    assert not np.array_equal(runs["folded"], runs["on"])
    assert np.array_equal(track(Tracker.from_checkpoint(str(path), memory=policy()), seed=1), runs["off"])


def test_off_runs_no_part_of_the_branch():
    model = trained_toy()
    off = track(tracker_of(model))
    with torch.no_grad():
        for parameter in model.challenge.parameters():
            parameter.fill_(float("nan"))
    assert np.array_equal(track(tracker_of(model)), off)


def test_untrained_branch_tracks_bitwise_like_none():
    plain, model = toy_model(seed=3), toy_model(challenge=toy_branch, seed=3)
    assert np.array_equal(track(tracker_of(plain)), track(tracker_of(model, "on")))


@pytest.mark.parametrize("branch", ["on", "folded"])
def test_a_mode_without_branch_is_an_error(branch, tmp_path):
    path = tmp_path / "model.safetensors"
    save_toy(path)
    with pytest.raises(ConfigError, match="branch"):
        Tracker.from_checkpoint(path, "cpu", branch=branch)


def test_a_setting_that_does_not_exist_names_the_nearest(tmp_path):
    for opened in (partial(Tracker.from_checkpoint, tmp_path / "never_read"), Tracker.nano):
        with pytest.raises(TypeError, match="Tracker has no setting 'brnch'. Did you mean 'branch'"):
            opened(brnch="on")


def test_a_mode_that_does_not_exist_is_an_error():
    with pytest.raises(ConfigError, match="fold"):
        Tracker(trained_toy(), branch="fold", device="cpu")


def test_dropout_and_batch_norm_rest_while_tracking():
    model = trained_toy()
    expected = track(tracker_of(model, "on"))
    model.train()
    tracker = tracker_of(model, "on")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert np.array_equal(track(tracker), expected)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "view", [lambda f: f[:, :, ::-1], np.asfortranarray, lambda f: f[::-1, ::-1]], ids=["bgr", "fortran", "turned"]
)
def test_a_view_tracks_like_its_copy(view):
    pictures, box = moving_target(4)
    runs = []
    for make in (view, lambda picture: np.ascontiguousarray(view(picture))):
        tracker = tracker_of(toy_model())
        tracker.init(make(pictures[0]), box)
        runs.append([tracker.update(make(picture)).box.tolist() for picture in pictures[1:]])
    assert runs[0] == runs[1]


GOOD = np.zeros((90, 120, 3), np.uint8)
BAD_FRAMES = {
    "float": GOOD.astype(np.float32),
    "grey": GOOD[:, :, 0],
    "with alpha": np.zeros((90, 120, 4), np.uint8),
    "channels first": np.zeros((3, 90, 120), np.uint8),
    "nothing": None,
    "a list": GOOD.tolist(),
    "a tensor": torch.zeros(90, 120, 3, dtype=torch.uint8),
    "no pixel": np.zeros((0, 0, 3), np.uint8),
    "sixteen bit": GOOD.astype(np.uint16),
}


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_a_frame_that_is_none_is_refused(frame):
    tracker = tracker_of(toy_model())
    with pytest.raises(DataError) as raised:
        tracker.init(frame, [10, 10, 20, 20])
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300
    tracker.init(GOOD, [10, 10, 20, 20])
    with pytest.raises(DataError):
        tracker.update(frame)
    tracker.update(GOOD)  # a bad frame does not end the target


BAD_BOXES = {
    "no area": [10, 10, 0, 20],
    "negative": [10, 10, -5, -5],
    "not a number": [10, np.nan, 20, 20],
    "infinite": [10, 10, np.inf, 20],
    "right of the frame": [120, 10, 20, 20],
    "above the frame": [10, -40, 20, 20],
    "touching from the left": [-20, 10, 20, 20],
    "three numbers": [10, 10, 20],
    "a row of boxes": [[10, 10, 20, 20]],
    "nothing": None,
    "words": ["x", "y", "w", "h"],
    "one text": "10,10,20,20",
    "nested": [10, 10, [20], 20],
    "vanishing": [10, 10, 1e-200, 1e-200],
    "normalised": [0.593, 0.733, 0.047, 0.208],
    "as wide as the frame, normalised": [0, 0.5, 1, 0.2],
    "smaller than a pixel": [60, 40, 0.5, 0.5],
    "far larger than the frame": [0, 0, 1e7, 1e7],
    "larger than numbers": [0, 0, 1e200, 1e200],
}


@pytest.mark.parametrize("box", BAD_BOXES.values(), ids=BAD_BOXES)
def test_a_box_that_cannot_be_tracked_is_refused(box):
    tracker = tracker_of(toy_model())
    with pytest.raises(DataError) as raised:
        tracker.init(GOOD, box)
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match=re.escape("before Tracker.init")):
        tracker.update(GOOD)


def test_a_frame_of_another_size_than_the_first_is_refused_and_changes_nothing():
    pictures, box = moving_target(3)
    tracker, other = Tracker(toy_model(), memory=policy()), Tracker(toy_model(), memory=policy())
    tracker.init(pictures[0], box)
    other.init(pictures[0], box)
    with pytest.raises(DataError, match="The frame has 90x120 pixels, those before it 120x90: one size was expected"):
        tracker.update(np.ascontiguousarray(pictures[1].transpose(1, 0, 2)))
    for picture in pictures[1:]:
        np.testing.assert_array_equal(tracker.update(picture).box, other.update(picture).box)
    (wider, following), box = moving_target(2, size=(160, 90))
    tracker.init(wider, box)  # another video, another size
    tracker.update(following)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "cpu:x"])
def test_a_device_that_there_is_not_is_named(device):
    with pytest.raises(ConfigError, match=f"The device '{device}' cannot be used here: .* Expected auto or one of cpu"):
        Tracker(toy_model(), device=device)


def test_update_before_init_is_an_error():
    with pytest.raises(DataError, match=re.escape("Tracker.update was called before Tracker.init")):
        tracker_of(toy_model()).update(GOOD)


@pytest.mark.parametrize(
    "box", [[-10, -10, 40, 40], [110, 80, 40, 40], [0, 0, 120, 90], [-50, -50, 300, 300], [60, 40, 1, 0.5]]
)
def test_boxes_at_the_limits_are_tracked(box):
    tracker = tracker_of(toy_model())
    pictures, _ = moving_target(4)
    tracker.init(pictures[0], box)
    for picture in pictures[1:]:
        x, y, w, h = tracker.update(picture).box
        assert 0 <= x and 0 <= y and x + w <= 120 + 1e-9 and y + h <= 90 + 1e-9


def test_a_model_that_answers_nan_is_an_error():
    model = toy_model()
    with torch.no_grad():
        model.box_head.score.out.bias.fill_(float("nan"))
    tracker = tracker_of(model)
    pictures, box = moving_target(2)
    tracker.init(pictures[0], box)
    with pytest.raises(HiptrackError, match="(?i)nan|finite"):
        tracker.update(pictures[1])


def test_class_probabilities_that_are_nan_are_the_same_error():
    model = trained_toy()
    with torch.no_grad():
        model.challenge.classifier.bias[3] = float("nan")  # boxes and scores are sound
    pictures, box = moving_target(2)
    tracker = tracker_of(model, branch="on")
    tracker.init(pictures[0], box)
    with pytest.raises(CheckpointError, match="not finite"):
        tracker.update(pictures[1])
    track(tracker_of(model, branch="off"))


@pytest.mark.parametrize("margin", [0, -3, float("nan")])
def test_a_margin_below_a_pixel_is_refused(margin):
    with pytest.raises(ConfigError, match="Tracker.margin = .*at least 1 was expected"):
        Tracker(toy_model(), margin=margin, device="cpu")
