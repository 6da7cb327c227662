"""Run a tracker over sequences: several side by side as one batch, their frames decoded ahead."""

import logging
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import numpy as np
import torch

from hiptrack.data.reading import read_image_rgb
from hiptrack.errors import ConfigError, DataError, HiptrackError
from hiptrack.evaluation.metrics import box_ious
from hiptrack.evaluation.results import SequenceResult
from hiptrack.models.prepare import kernel_fault

logger = logging.getLogger(__name__)


def run_sequence(tracker, sequence) -> SequenceResult:
    """Track one Sequence from its first box.

    Raises DataError for a first box that is not finite with a positive area or for an unreadable frame, and
    HiptrackError for a tracker output that is not finite; each names the sequence or the frame.
    """
    ((_, outcome),) = run_sequences(tracker, [sequence])
    if isinstance(outcome, HiptrackError):
        raise outcome
    return outcome


def run_sequences(tracker, sequences, batch=1):
    """Track Sequences from their first boxes; yields (index, SequenceResult) as each ends, in no particular order.

    batch: how many are tracked side by side; when one ends the next takes its place. More than one needs a tracker with
    `start` and `step` (hiptrack.tracking.tracker.Tracker). In the place of a result stands the HiptrackError by which a
    sequence failed (see run_sequence); the others go on. The time of a step is divided evenly among the sequences it
    moves.
    """
    if batch < 1:
        raise ConfigError(f"evaluate.batch = {batch}: at least 1 sequence at a time was expected.")
    if not hasattr(tracker, "step"):
        tracker = OneTarget(tracker)
        if batch > 1:
            raise ConfigError(f"evaluate.batch = {batch}: this tracker follows one target at a time.")
    waiting, runs = deque(enumerate(sequences)), []
    ahead = bool(sequences) and decodes_ahead(tracker, sequences[0])
    with ReadAhead(batch, AHEAD if ahead else 0) as reader, core_for_decoding(tracker) if ahead else nullcontext():
        while waiting or runs:
            while waiting and len(runs) < batch:
                index, sequence = waiting.popleft()
                runs.append(_Run(index, sequence, tracker, reader))
            _step(tracker, [run for run in runs if run.goes_on])
            yield from ((run.index, run.outcome()) for run in runs if not run.goes_on)
            runs = [run for run in runs if run.goes_on]


class OneTarget:
    """A tracker with `init` and `update` alone, in the form of one that follows several targets."""

    def __init__(self, tracker):
        self.tracker = tracker

    def start(self, frame_rgb, box_xywh):
        self.tracker.init(frame_rgb, box_xywh)
        return self.tracker

    def step(self, targets, frames_rgb):
        """[result] of the one frame."""
        return [self.tracker.update(*frames_rgb)]


def _step(tracker, runs):
    """Move each run by a frame; what goes wrong ends the run it belongs to."""
    started = time.perf_counter()
    for run in runs:
        run.read()
    ready = [run for run in runs if run.error is None]
    before = time.perf_counter()
    try:
        outcomes = tracker.step([run.target for run in ready], [run.frame for run in ready]) if ready else []
    except HiptrackError as error:
        outcomes = [error] * len(ready)
    except Exception as error:  # whatever a tracker fails by, other sequences must not go with it
        logger.exception("%s failed", ", ".join(run.sequence.name for run in ready))
        outcomes = [_named(error)] * len(ready)
    now = time.perf_counter()
    for run, outcome in zip(ready, outcomes, strict=True):
        run.take(outcome, (now - before) / len(ready))
    for run in runs:
        run.end_to_end_seconds += (time.perf_counter() - started) / len(runs)


class _Run:
    """One sequence on its way. error: the HiptrackError that ended it, or None."""

    def __init__(self, index, sequence, tracker, reader):
        self.index, self.sequence, self.error = index, sequence, None
        self.moments = Moments(sequence)
        started = time.perf_counter()
        with self._ended_by_errors():
            given = _first_box(sequence)
            self._frames = iter(reader.frames(sequence.frames))
            frame = next(self._frames)
            before = time.perf_counter()
            self.target = tracker.start(frame, given.copy())
            now = time.perf_counter()
            self.image_size = frame.shape[1::-1]  # width, height
            self.boxes, self.scores, self.challenges, self.seconds = [given], [1.0], [None], [now - before]
            self.end_to_end_seconds = now - started

    @contextmanager
    def _ended_by_errors(self):
        """Within it, an exception of any kind ends this run, and no other."""
        try:
            yield
        except HiptrackError as error:
            self.error = error
        except Exception as error:  # as in _step
            logger.exception("%s failed", self.sequence.name)
            self.error = _named(error)

    @property
    def goes_on(self):
        return self.error is None and len(self.boxes) < len(self.sequence)

    def read(self):
        with self._ended_by_errors():
            self.frame = next(self._frames)
            if self.frame.shape[1::-1] != self.image_size:
                (width, height), (first_width, first_height) = self.frame.shape[1::-1], self.image_size
                raise DataError(
                    f"{self.sequence.frames[len(self.boxes)]}: the frame has {width}x{height} pixels, those before it "
                    f"{first_width}x{first_height}. Expected one size throughout a sequence; correct the image, or leave the "
                    "sequence out with `exclude`."
                )

    def take(self, found, seconds):
        """What the tracker found in the frame, in so many seconds."""
        index = len(self.boxes)
        with self._ended_by_errors():
            if isinstance(found, HiptrackError):
                raise found
            _require_finite_output(found, f"{self.sequence.name}: in frame {index + 1} ({self.sequence.frames[index]})")
            self.boxes.append(np.array(found.box, np.float64))
            self.scores.append(float(found.score))
            self.challenges.append(found.challenge)
            self.seconds.append(seconds)
            self.moments.look(index, self.boxes[-1], self.target)

    def outcome(self):
        """The SequenceResult, or the HiptrackError."""
        return self.error or SequenceResult(
            self.sequence.name,
            np.stack(self.boxes),
            np.array(self.seconds),
            self.end_to_end_seconds,
            np.array(self.scores),
            _stack_challenges(self.challenges),
            self.image_size,
            self.moments.kept,
        )


def _named(error):
    """An exception of any kind as a HiptrackError."""
    if fault := kernel_fault(error):
        return fault
    if isinstance(error, torch.OutOfMemoryError):
        return HiptrackError(
            f"The GPU's memory is full; at most {torch.cuda.max_memory_allocated() / 1e9:.1f} GB of it were in use. Track fewer "
            f"sequences at once: evaluate.batch, or Validation.batch in training. PyTorch says: {error}"
        )
    return HiptrackError(f"{type(error).__name__}: {error}")


def _first_box(sequence):
    given = np.array(sequence.boxes_xywh[0], np.float64)
    if not np.isfinite(given).all() or (given[2:] <= 0).any():
        raise DataError(
            f"{sequence.name}: the first box is {given.tolist()}; expected finite x, y, w, h with w and h "
            "above 0. Correct line 1 of its groundtruth.txt."
        )
    return given


def _require_finite_output(output, where):
    box = np.asarray(output.box, np.float64)
    rest = [output.score] if output.challenge is None else [output.score, *output.challenge]
    if box.shape != (4,) or not np.isfinite(box).all() or not np.isfinite(rest).all():
        raise HiptrackError(
            f"{where} the tracker gave the box {box.tolist()} with the score (and class outputs) "
            f"{[float(value) for value in rest]}; expected finite numbers, four for the box. The weights are "
            "probably damaged or diverged."
        )


def _stack_challenges(challenges):
    if all(row is None for row in challenges):
        return None
    absent = np.full(len(next(row for row in challenges if row is not None)), np.nan)
    return np.stack([absent if row is None else np.asarray(row, np.float64) for row in challenges])


LARGE = 20e6  # parameters from which on a step takes so long that decoding beside it does not show

SMALL_FRAME = 640 * 480  # pixels, up to which decoding takes less than a thread costs that does it beside the tracker


def decodes_ahead(tracker, sequence):
    """Whether frames like a Sequence's first are better decoded beside the tracker than in between: on a GPU always."""
    device = getattr(tracker, "device", None)
    if device is not None and device.type != "cpu":
        return True
    try:
        height, width = read_image_rgb(sequence.frames[0]).shape[:2]
    except DataError:  # told when its turn comes
        return True
    return height * width > SMALL_FRAME


@contextmanager
def core_for_decoding(tracker):
    """Within it, a small model on the CPU leaves one core to the thread that decodes.

    The threads of a layer wait for the slowest of them at its end, so that one core fewer costs less than one that is
    shared. By size rather than by a measured time, because the number of threads decides how sums are rounded, and
    results must repeat.
    """
    threads = torch.get_num_threads()
    model = getattr(tracker, "model", None)
    # an exported model has threads of its own
    is_small = isinstance(model, torch.nn.Module) and sum(part.numel() for part in model.parameters()) < LARGE
    if is_small and tracker.device.type == "cpu" and 1 < threads == usable_cores():
        torch.set_num_threads(threads - 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def usable_cores():
    """The cores that this process may use: of a container or under `taskset` fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


MOST = 8  # losses of a sequence


class Moments:
    """Watches a tracker on one Sequence; `kept`: {frame from 1: (score map [S, S], search region xywh [4])}.

    Kept are the first frames without overlap after one with it, of the longest such losses, and the frame of the lowest
    IoU; none where the true boxes are not known.
    """

    def __init__(self, sequence):
        self.sequence = sequence
        self._losses, self._present = {}, None  # {first frame: (frames without overlap, seen)}, the one that goes on
        self._lowest, self._frame, self._seen = 1.0, None, None

    @property
    def kept(self):
        found = {frame: seen for frame, (_, seen) in self._losses.items()}
        if self._seen is not None:
            found[self._frame] = self._seen
        return dict(sorted(found.items()))

    def look(self, index, box_xywh, tracker):
        """Look at the tracker after its update on frame `index` (from 0), whose box is given."""
        truth = self.sequence.boxes_xywh
        if index >= len(truth) or self.sequence.cover[index] == 0 or getattr(tracker, "search_xywh", None) is None:
            return
        overlap, frame = box_ious(truth[index], box_xywh), index + 1
        if overlap < self._lowest:
            self._lowest, self._frame, self._seen = overlap, frame, _seen(tracker)
        if overlap > 0:
            self._present = None
        elif self._present is None:
            self._present, self._losses[frame] = frame, (1, _seen(tracker))
            if len(self._losses) > MOST:
                ended = [frame for frame in self._losses if frame != self._present]
                del self._losses[min(ended, key=lambda frame: self._losses[frame][0])]
        else:
            length, seen = self._losses[self._present]
            self._losses[self._present] = length + 1, seen


def _seen(tracker):
    return tracker.score_map.cpu().numpy(), tracker.search_xywh.copy()


AHEAD = 3  # frames of a sequence that wait at most


class ReadAhead:
    """Decodes up to `ahead` frames of several sequences while the tracker works on those before; a context."""

    def __init__(self, sequences, ahead=AHEAD):
        """sequences: how many are read side by side; ahead: 0 decodes each frame when it is asked for."""
        self._pool, self._ahead = ThreadPoolExecutor(min(sequences, os.cpu_count() or 1), "decode"), ahead

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.shutdown(cancel_futures=True)

    def frames(self, paths):
        """Yields the frames [H, W, 3] uint8 RGB of image files, in order.

        Raises DataError, when its turn has come, for a file that is missing or damaged.
        """
        waiting = deque()
        for path in paths:
            waiting.append(self._pool.submit(read_image_rgb, path))
            if len(waiting) > self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
