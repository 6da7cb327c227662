"""An evaluation that is killed within a sequence goes on from the last minute, with bitwise the same results."""

import logging
import os
import shutil
from contextlib import nullcontext
from dataclasses import fields, replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from toy import moving_target, policy, randomise, toy_branch, toy_model

from hiptrack.data.sequence import Sequence
from hiptrack.evaluation import unfinished as keeping
from hiptrack.evaluation.moments import Moments
from hiptrack.evaluation.run_sequences import run_sequences
from hiptrack.evaluation.score import evaluate_sequences
from hiptrack.evaluation.unfinished import Unfinished
from hiptrack.tracking.adaptation import Adaptation, Rule
from hiptrack.tracking.memory import MemoryPolicy
from hiptrack.tracking.tracker import Tracker

LENGTHS = (40, 30, 18)


class Killed(BaseException):
    """In the place of a signal that nothing can catch."""


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    """Three films of unequal length and size."""
    folder, made = tmp_path_factory.mktemp("films"), []
    for number, length in enumerate(LENGTHS):
        pictures, box = moving_target(length, size=(120 + 8 * number, 90), seed=number)
        frames = [str(folder / f"{number}-{frame:02d}.png") for frame in range(length)]
        for path, picture in zip(frames, pictures, strict=True):
            cv2.imwrite(path, picture[..., ::-1])
        boxes = np.tile(box, (length, 1)) + np.arange(length)[:, None] * [2, 0, 0, 0]  # lost sooner or later
        made.append(Sequence(f"film{number}", tuple(frames), boxes, np.ones(length, bool), np.full(length, 8)))
    return made


@pytest.fixture(scope="module", params=["off", "on"])
def tracker(request):
    """What it searches, remembers and names depends on the frames before, in every way there is."""
    model = toy_model(challenge=toy_branch, seed=1)
    randomise(model.challenge, seed=5)
    if request.param == "on":
        rules = [Rule(score_below=0.47, search_scale=1.3), Rule(score_below=0.5, size_rate=0.2)]
        return Tracker(model, "on", policy(), smoothing=0.4, adaptation=Adaptation(rules), device="cpu")
    late = MemoryPolicy(template_frames=4, early=(4,), interval=7, capacity=3)  # what it reads while nothing may enter
    return Tracker(
        model, memory=late, adaptation=Adaptation([Rule(score_below=0.48, write_memory=False)]), device="cpu"
    )


class KeptAt(Unfinished):
    """Keeps after some steps of a tracker, rather than when a minute is over."""

    def __init__(self, folder, key, tracker, steps):
        super().__init__(folder, key)
        self.tracker, self.steps = tracker, steps

    def keep_when_due(self, runs):
        if self.tracker.step.taken in self.steps:
            super().keep_when_due(runs)


class Steps:
    """The steps of a tracker, which are counted; the last is not taken, but kills."""

    def __init__(self, step, last):
        self.step, self.taken, self.last = step, 0, last

    def __call__(self, targets, frames):
        self.taken += 1
        if self.taken == self.last:
            raise Killed
        return self.step(targets, frames)


@pytest.fixture
def run(tracker, sequences, tmp_path, monkeypatch):
    """run(batch, keep_at, kill_at): ({index: result}, steps) of a run that keeps after some steps and dies in another."""
    monkeypatch.setattr(keeping, "INTERVAL", 0)
    step = tracker.step

    def run(batch=1, keep_at=(), kill_at=None):
        results = {}
        monkeypatch.setattr(tracker, "step", Steps(step, kill_at))
        with pytest.raises(Killed) if kill_at else nullcontext():
            kept = KeptAt(tmp_path, "key", tracker, keep_at)
            results.update(run_sequences(tracker, sequences, batch, kept))
        return results, tracker.step.taken

    return run


def require_same(found, expected):
    """Bit by bit, the times aside."""
    assert found.keys() == expected.keys()
    for index, result in expected.items():
        for field in fields(result):
            if "seconds" not in field.name:
                np.testing.assert_equal(getattr(found[index], field.name), getattr(result, field.name))
        assert len(found[index].seconds) == len(result.boxes_xywh) and (found[index].seconds > 0).all()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kept", [1, 5, 9, 27])
def test_what_is_killed_goes_on_bitwise_from_where_it_was_kept(run, batch, kept):
    expected, steps = run(batch)
    assert all(result.moments for result in expected.values())
    run(batch, keep_at={kept}, kill_at=kept + 3)
    found, left = run(batch)
    assert left == steps - kept
    require_same(found, expected)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_second_kill_goes_on_from_the_first(run, batch):
    expected, steps = run(batch)
    run(batch, keep_at={3, 9}, kill_at=10)
    run(batch, keep_at={11}, kill_at=15)
    found, left = run(batch)
    assert left == steps - 20
    require_same(found, expected)


@pytest.fixture
def evaluated(tracker, sequences, tmp_path, monkeypatch):
    """evaluated(kill_at): (the Report, steps) of an evaluation into tmp_path that keeps after every step."""
    monkeypatch.setattr(keeping, "INTERVAL", 0)
    step = tracker.step

    def evaluated(kill_at=None, folder=tmp_path, key="key", sequences=sequences, **options):
        monkeypatch.setattr(tracker, "step", Steps(step, kill_at))
        report = None
        with pytest.raises(Killed) if kill_at else nullcontext():
            report = evaluate_sequences(tracker, sequences, folder, key, **options)
        return report, tracker.step.taken

    return evaluated


def test_the_longest_losses_are_kept_across_a_kill():
    lengths = [1, 2, 3, 1, 2, 4, 2, 3, 2, 5, 2]  # frames without overlap, each followed by one with it
    lost = [flag for length in lengths for flag in [True] * length + [False]]
    boxes = np.tile([10.0, 10, 20, 20], (len(lost) + 1, 1))
    sequence = Sequence("film", (), boxes, np.ones(len(boxes), bool), np.full(len(boxes), 8))
    whole, cut = Moments(sequence), Moments(sequence)
    for index, away in enumerate(lost, 1):
        seen = SimpleNamespace(search_xywh=np.full(4, index), score_map=torch.full((4, 4), float(index)))
        for moments in (whole, cut):
            moments.look(index, boxes[index] + [100 * away, 0, 0, 0], seen)
        state, cut = cut.state(), Moments(sequence)
        cut.restore({name: np.array(value) for name, value in state.items()})
    np.testing.assert_equal(cut.kept, whole.kept)
    assert len(whole.kept) == 9


def results_of(report):
    return {index: score.result for index, score in enumerate(report.scores)}


def kept_files(folder):
    return sorted(path.name for path in folder.glob("*/*unfinished*"))


@pytest.mark.parametrize("batch", [1, 2])
def test_an_evaluation_that_is_killed_again_and_again_tracks_no_frame_twice(evaluated, tmp_path, batch):
    _, left = evaluated(folder=tmp_path / "whole", batch=batch)
    for kill_at in (14, 21, 2, 5):
        evaluated(kill_at, batch=batch)
        left -= kill_at - 1
        assert len(kept_files(tmp_path)) >= batch
    _, taken = evaluated(batch=batch)
    assert taken == left and kept_files(tmp_path) == []
    found, expected = (results_of(evaluated(folder=folder)[0]) for folder in (tmp_path, tmp_path / "whole"))
    require_same(found, expected)  # as their files hold them


@pytest.mark.parametrize("how", ["cut", "bit", "empty", "key", "frames", "box"])
def test_what_is_damaged_or_of_something_else_is_passed_over_with_a_word(evaluated, sequences, tmp_path, caplog, how):
    evaluated(kill_at=10, sequences=sequences[:1])
    (path,) = tmp_path.glob("*/*unfinished*")
    content, film = path.read_bytes(), sequences[0]
    if how in ("cut", "bit", "empty"):
        middle = len(content) // 2
        bit = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"cut": content[:-9], "bit": bit, "empty": b""}[how])
    elif how == "frames":
        film = replace(film, frames=(*film.frames[:20], *film.frames[:20]))
    elif how == "box":
        film = replace(film, boxes_xywh=film.boxes_xywh + 1e-6)
    folder = tmp_path
    if how == "key":
        folder = tmp_path / "other"
        shutil.copytree(path.parent, folder / "film0")
    with caplog.at_level(logging.WARNING, "hiptrack"):
        report, taken = evaluated(folder=folder, key="other" if how == "key" else "key", sequences=[film])
    assert taken == 39 and "film0_unfinished.safetensors" in caplog.text
    assert "the sequence is tracked from its start" in caplog.text
    whole, _ = evaluated(folder=tmp_path / "whole", sequences=[film])
    require_same(results_of(report), results_of(whole))


def test_a_short_evaluation_keeps_nothing(tracker, sequences, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(keeping, "write_atomically", lambda path, data: kept.append(path))
    evaluate_sequences(tracker, sequences, tmp_path, "key")
    assert not kept


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, [60, 120, 180, 240, 300]), (3.0, [60, 240])])
def test_it_is_kept_once_a_minute_and_rarer_where_that_takes_long(sequences, tmp_path, monkeypatch, seconds, expected):
    """On a disk that takes so many seconds, of five minutes."""
    now, kept = 0.0, []

    def write(path, data):
        nonlocal now
        kept.append(int(now))
        now += seconds

    monkeypatch.setattr(keeping, "write_atomically", write)
    unfinished = Unfinished(tmp_path, "key", clock=lambda: now)
    run = SimpleNamespace(sequence=sequences[0], state=lambda: {"frames": {"boxes": np.zeros((3, 4))}})
    while now < 305:
        unfinished.keep_when_due([run])
        now += 0.25
    assert kept == expected


def test_a_full_disk_ends_no_evaluation(evaluated, monkeypatch, caplog):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping, "write_atomically", full)
    report, _ = evaluated()
    assert not report.failures and "film0 cannot be kept while it is tracked" in caplog.text


def test_what_a_killed_process_left_goes_when_the_result_is_read_back(sequences, tracker, tmp_path):
    """Killed after the result was written, or while the target was kept; what another process writes now stays."""
    evaluate_sequences(tracker, sequences, tmp_path, "key")
    folder = tmp_path / "film0"
    kept, left, young = (
        folder / name
        for name in ("film0_unfinished.safetensors", f".hiptrack-{'0' * 32}.tmp", f".hiptrack-{'1' * 32}.tmp")
    )
    for path in (kept, left, young):
        path.write_bytes(b"x")
    os.utime(left, (0, 0))
    report = evaluate_sequences(tracker, sequences, tmp_path, "key")
    assert report.scores[0].resumed and not kept.exists() and not left.exists() and young.exists()
