"""Several sequences tracked side by side: as one by one, each failing alone, frames decoded ahead."""

import re
import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from toy import moving_target, randomise, toy_branch, toy_model

from hiptrack.data.sequence import Sequence
from hiptrack.errors import ConfigError, DataError, HiptrackError
from hiptrack.evaluation import run_sequences as running
from hiptrack.evaluation.baselines import StillBox
from hiptrack.evaluation.run_sequences import core_for_decoding, run_sequences
from hiptrack.evaluation.score import evaluate_sequences
from hiptrack.tracking.adaptation import Adaptation, Rule
from hiptrack.tracking.memory import MemoryPolicy
from hiptrack.tracking.tracker import Tracker

LENGTHS = (9, 14, 1, 6, 11)


@pytest.fixture
def sequences(tmp_path):
    """Five films of unequal length and size; the third is its first frame alone."""
    made = []
    for number, length in enumerate(LENGTHS):
        pictures, box = moving_target(length, size=(120 + 8 * number, 90), seed=number)
        frames = [str(tmp_path / f"{number}-{frame:02d}.png") for frame in range(length)]
        for path, picture in zip(frames, pictures, strict=True):
            cv2.imwrite(path, picture[..., ::-1])
        boxes = np.tile(box, (length, 1))
        made.append(Sequence(f"film{number}", tuple(frames), boxes, np.ones(length, bool), np.full(length, 8)))
    return made


def tracker_of(branch="on", **options):
    model = toy_model(
        challenge=toy_branch, seed=1
    )  # random weights of which no two places are so near that rounding decides
    randomise(model.challenge, seed=5)
    memory = MemoryPolicy(template_frames=2, early=(1, 2), interval=2, capacity=3)
    return Tracker(model, branch=branch, memory=memory, device="cpu", **options)


def tracked(tracker, sequences, batch):
    """{index: outcome}."""
    return dict(run_sequences(tracker, sequences, batch))


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_a_batch_finds_what_one_by_one_finds(sequences, batch):
    adaptation = Adaptation([Rule(score_below=0.5, search_scale=1.3, write_memory=False)])
    for tracker in (tracker_of(), tracker_of("off"), tracker_of(smoothing=0.4, adaptation=adaptation)):
        alone, together = tracked(tracker, sequences, 1), tracked(tracker, sequences, batch)
        assert sorted(together) == [0, 1, 2, 3, 4]
        for index, length in enumerate(LENGTHS):
            assert together[index].name == f"film{index}" and together[index].boxes_xywh.shape == (length, 4)
            np.testing.assert_allclose(together[index].boxes_xywh, alone[index].boxes_xywh, atol=1e-3)
            np.testing.assert_allclose(together[index].scores, alone[index].scores, atol=1e-4)
            if tracker.branch == "on" and length > 1:
                np.testing.assert_allclose(together[index].challenges[1:], alone[index].challenges[1:], atol=1e-4)
            assert together[index].image_size == alone[index].image_size


def test_the_report_of_a_batch_is_that_of_one_by_one(sequences, tmp_path):
    alone = evaluate_sequences(tracker_of(), sequences)
    together = evaluate_sequences(tracker_of(), sequences, tmp_path / "results", "key", batch=3)
    assert together.overall == pytest.approx(alone.overall, abs=1e-3)
    assert [score.result.name for score in together.scores] == [s.name for s in sequences]
    again = evaluate_sequences(tracker_of(), sequences, tmp_path / "results", "key", batch=3)
    assert all(score.resumed for score in again.scores) and again.overall == together.overall


def test_what_fails_fails_alone_and_by_name(sequences):
    """Of four at once: an image that is gone, one of another size, and a model whose output for one film is not finite."""
    expected = tracked(tracker_of(), sequences, 1)
    open(sequences[0].frames[4], "w").close()
    cv2.imwrite(sequences[1].frames[7], np.zeros((50, 60, 3), np.uint8))
    tracker = tracker_of()
    start, step, started, running = tracker.start, tracker.step, [], []

    def starts(frame, box):
        started.append(start(frame, box))
        return started[-1]

    def steps(targets, frames):
        running[:] = targets
        return step(targets, frames)

    def spoils(module, inputs, maps):
        maps.score_logits[[target is started[3] for target in running]] = float("nan")
        return maps

    tracker.start, tracker.step = starts, steps
    tracker.model.box_head.register_forward_hook(spoils)
    outcomes = tracked(tracker, sequences, 4)
    assert isinstance(outcomes[0], DataError) and sequences[0].frames[4] in str(outcomes[0])
    assert isinstance(outcomes[1], DataError) and "60x50" in str(outcomes[1]) and "128x90" in str(outcomes[1])
    assert isinstance(outcomes[3], HiptrackError) and "not finite" in str(outcomes[3])
    for index in (2, 4):
        np.testing.assert_allclose(outcomes[index].boxes_xywh, expected[index].boxes_xywh, atol=1e-3)


def test_a_tracker_that_breaks_names_all_it_was_tracking(sequences, caplog):
    tracker = tracker_of()
    tracker.step = lambda targets, frames: 1 / 0
    report = evaluate_sequences(tracker, sequences, batch=2)
    assert [name for name, _ in report.failures] == ["film0", "film1", "film3", "film4"]  # film2 is one frame long
    assert all(message == "ZeroDivisionError: division by zero" for _, message in report.failures)
    assert "Traceback" in caplog.text


def test_a_full_gpu_is_told_with_advice(sequences, caplog):
    def full(targets, frames):
        raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB")

    tracker = tracker_of()
    tracker.step = full
    report = evaluate_sequences(tracker, sequences[:2], batch=2)
    for _, message in report.failures:
        assert re.search(r"at most \d.* GB .*evaluate.batch.*20.00 GiB", message)
    assert len(report.failures) == 2


@pytest.mark.parametrize("batch", [1, 3])
def test_a_defect_in_one_sequence_leaves_the_others(sequences, batch, monkeypatch, caplog):
    """No HiptrackError, but what nobody foresaw: in decoding one film, and in what the tracker found in another."""
    expected, read = tracked(tracker_of(), sequences, 1), running.read_image_rgb

    def reads(path, first=None):
        if path == sequences[0].frames[4]:
            raise MemoryError("no room")
        return read(path, first)

    tracker = tracker_of()
    step = tracker.step

    def steps(targets, frames):
        return [None if frame.shape[1] == 128 else found for found, frame in zip(step(targets, frames), frames)]

    monkeypatch.setattr(running, "read_image_rgb", reads)
    tracker.step = steps
    outcomes = tracked(tracker, sequences, batch)
    assert str(outcomes[0]) == "MemoryError: no room" and isinstance(outcomes[0], HiptrackError)
    assert str(outcomes[1]).startswith("AttributeError: ") and "film1 failed" in caplog.text
    for index in (2, 3, 4):
        np.testing.assert_allclose(outcomes[index].boxes_xywh, expected[index].boxes_xywh, atol=1e-3)


def test_batches_need_a_tracker_of_several_targets(sequences):
    with pytest.raises(ConfigError, match="evaluate.batch = 2"):
        tracked(StillBox(), sequences, 2)
    with pytest.raises(ConfigError, match="evaluate.batch = 0"):
        tracked(tracker_of(), sequences, 0)


@pytest.mark.parametrize(("small", "ahead"), [(0, 3), (640 * 480, 0)])
def test_large_frames_are_decoded_ahead_but_not_without_bound(sequences, monkeypatch, small, ahead):
    """While the tracker looks at a large frame, the three after it are decoded, and no other; small ones when asked for."""
    monkeypatch.setattr(running, "SMALL_FRAME", small)
    decoded, more = [], threading.Condition()
    read = running.read_image_rgb

    def reads(path, first=None):
        image = read(path, first)
        with more:
            decoded.append(path)
            more.notify()
        return image

    class Watches(StillBox):
        frame = 1

        def update(self, frame_rgb):
            self.frame += 1
            expected = min(self.frame + ahead, 14)
            with more:
                assert more.wait_for(lambda: len(decoded) >= expected, timeout=30)
                assert len(decoded) == expected
            return super().update(frame_rgb)

    monkeypatch.setattr(running, "read_image_rgb", reads)
    outcome = tracked(Watches(), [sequences[1]], 1)[0]
    assert len(outcome.boxes_xywh) == 14 and decoded == list(sequences[1].frames)


def test_what_is_tracked_beside_a_sequence_does_not_change_its_threads(sequences, monkeypatch):
    """Their number decides how sums are rounded: as the second of five, and as the first of those that are left."""
    monkeypatch.setattr(running, "SMALL_FRAME", 130 * 90)  # the first two are small, the others are not
    monkeypatch.setattr(running, "usable_cores", torch.get_num_threads)
    tracker, before = tracker_of(), torch.get_num_threads()
    step, threads = tracker.step, []

    def steps(targets, frames):
        threads.append((frames[0].shape[1], torch.get_num_threads()))
        return step(targets, frames)

    tracker.step = steps
    try:
        torch.set_num_threads(2)
        for first in range(len(sequences)):
            tracked(tracker, sequences[first:], 1)
    finally:
        torch.set_num_threads(before)
    assert set(threads) == {(120, 2), (128, 2), (144, 1), (152, 1)}  # film2 is one frame long


@pytest.mark.parametrize(("width", "expected"), [(32, 1), (6000, 2)])
def test_a_small_model_leaves_a_core_to_the_decoder(width, expected, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)  # the process may use two of them
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5}, raising=False)
    before = torch.get_num_threads()
    tracker = tracker_of()
    tracker.model.extra = torch.nn.Linear(width, width, device="meta")
    try:
        torch.set_num_threads(2)
        with core_for_decoding(tracker):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), core_for_decoding(tracker):
            raise KeyError
        with core_for_decoding(SimpleNamespace(model=object(), device=torch.device("cpu"))):  # one that was exported
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
