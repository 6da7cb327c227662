"""Run a tracker over sequences: several side by side as one batch, their frames decoded ahead."""

import logging
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from hiptrack.data.reading import read_image_rgb
from hiptrack.errors import ConfigError, DataError, HiptrackError
from hiptrack.evaluation.moments import Moments
from hiptrack.evaluation.results import SequenceResult
from hiptrack.models.prepare import kernel_fault
from hiptrack.progress import progress, skip

logger = logging.getLogger(__name__)


def run_sequences(tracker, sequences, batch=1, unfinished=None, shown=True):
    """Track Sequences from their first boxes; yields (index, SequenceResult) as each ends: in their order if one by one.

    batch: how many are tracked side by side; when one ends the next takes its place. More than one needs a tracker with
    `start` and `step` (hiptrack.tracking.tracker.Tracker). In the place of a result stands the HiptrackError by which a
    sequence failed: a first box that is not finite with a positive area, an unreadable frame, an output of the tracker
    that is not finite; it names the sequence or the frame, and the others go on. The time of a step is divided evenly
    among the sequences it moves.
    unfinished: an Unfinished, where those under way are kept, and from which such a tracker goes on; None keeps nothing.
    shown: whether progress is.
    """
    if batch < 1:
        raise ConfigError(f"evaluate.batch = {batch}: at least 1 sequence at a time was expected.")
    if not hasattr(tracker, "step"):
        tracker, unfinished = OneTarget(tracker), None  # nobody knows what it has gathered
        if batch > 1:
            raise ConfigError(f"evaluate.batch = {batch}: this tracker follows one target at a time.")
    waiting, runs = deque(enumerate(sequences)), []
    total, of = sum(map(len, sequences)), len(sequences)
    with (
        progress(total, "frame", "tracking", shown=shown and of > 0) as bar,
        ReadAhead(batch) as reader,
        core_for_decoding(tracker) as spare,
    ):
        while waiting or runs:
            while waiting and len(runs) < batch:
                index, sequence = waiting.popleft()
                kept = unfinished.read(sequence) if unfinished else None
                runs.append(_Run(index, sequence, tracker, reader, spare, kept))
                skip(bar, len(runs[-1].boxes))
            moving = [run for run in runs if run.goes_on]
            spare(any(run.ahead for run in moving))
            _step(tracker, moving)
            bar.update(sum(run.error is None for run in moving))
            for run in runs:
                if not run.goes_on:
                    skip(bar, len(run.sequence) - len(run.boxes))  # where it failed
                    yield run.index, run.outcome()
            runs = [run for run in runs if run.goes_on]
            bar.set_postfix_str(f"{of - len(waiting) - len(runs)} of {of} sequences", refresh=False)
            if unfinished:
                unfinished.keep_when_due(runs)


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
    """One sequence on its way. error: the HiptrackError that ended it, or None; boxes: of the frames so far."""

    def __init__(self, index, sequence, tracker, reader, spare, kept):
        """spare: of `core_for_decoding`; kept: the `state` of a run of the same sequence to go on from, or None."""
        self.index, self.sequence, self.error, self.boxes = index, sequence, None, []
        self.moments = Moments(sequence)
        started = time.perf_counter()
        with self._ended_by_errors():
            given = _first_box(sequence)
            first = sequence.frames[0]
            (frame,) = reader.frames([first], first, 0)
            self.ahead = decodes_ahead(tracker, frame)
            done = len(kept["frames"]["boxes"]) if kept else 1
            self._frames = reader.frames(sequence.frames[done:], first, AHEAD if self.ahead else 0)
            spare(self.ahead)
            before = time.perf_counter()
            self.target = tracker.start(frame, given.copy())
            now = time.perf_counter()
            self.image_size = frame.shape[1::-1]  # width, height
            self.boxes, self.scores, self.challenges, self.seconds = [given], [1.0], [None], [now - before]
            self.end_to_end_seconds = now - started
            if kept:
                self._restore(kept)

    def state(self):
        """{part: {name: number, array or tensor}} of all that it takes to go on from here with the same results."""
        frames = {"boxes": self.boxes, "scores": self.scores, "seconds": self.seconds}
        frames["end_to_end_seconds"] = self.end_to_end_seconds
        challenges = _stack_challenges(self.challenges)
        if challenges is not None:
            frames["challenges"] = challenges
        return {"frames": frames, "moments": self.moments.state(), "target": self.target.state()}

    def _restore(self, kept):
        frames = {name: tensor.numpy() for name, tensor in kept["frames"].items()}
        self.boxes, self.scores, self.seconds = list(frames["boxes"]), list(frames["scores"]), list(frames["seconds"])
        self.end_to_end_seconds = float(frames["end_to_end_seconds"])
        self.challenges = list(frames.get("challenges", [None] * len(self.boxes)))
        self.moments.restore({name: tensor.numpy() for name, tensor in kept["moments"].items()})
        self.target.restore(kept["target"])
        logger.info("%s goes on after frame %d of %d", self.sequence.name, len(self.boxes), len(self.sequence))

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
                    "sequence out: --exclude, or `exclude` of the data set in a gin file."
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


def decodes_ahead(tracker, frame_rgb):
    """Whether frames like this one are better decoded beside the tracker than in between: on a GPU always.

    By the frame alone, whatever else is tracked: it decides the number of threads (core_for_decoding).
    """
    device = getattr(tracker, "device", None)
    height, width = frame_rgb.shape[:2]
    return (device is not None and device.type != "cpu") or height * width > SMALL_FRAME


@contextmanager
def core_for_decoding(tracker):
    """Within it, a small model on the CPU leaves one core to the thread that decodes; yields what changes that.

    That is called with whether a core is to be left. The threads of a layer wait for the slowest of them at its end, so
    that one core fewer costs less than one that is shared. By size rather than by a measured time, because the number of
    threads decides how sums are rounded, and results must repeat.
    """
    threads = fewer = torch.get_num_threads()
    model = getattr(tracker, "model", None)
    if isinstance(model, torch.nn.Module) and tracker.device.type == "cpu":  # an exported model has threads of its own
        is_small = sum(part.numel() for part in model.parameters()) < LARGE
        fewer -= is_small and 1 < threads == usable_cores()

    def spare(wanted):
        number = fewer if wanted else threads
        if number != torch.get_num_threads():  # a change has PyTorch set up its kernels anew
            torch.set_num_threads(number)

    spare(True)
    try:
        yield spare
    finally:
        spare(False)


def usable_cores():
    """The cores that this process may use: of a container or under `taskset` fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


AHEAD = 3  # frames of a sequence that wait at most


class ReadAhead:
    """Decodes frames of several sequences while the tracker works on those before; a context."""

    def __init__(self, sequences):
        """sequences: how many are read side by side."""
        self._pool = ThreadPoolExecutor(min(sequences, os.cpu_count() or 1), "decode")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.shutdown(cancel_futures=True)

    def frames(self, paths, first, ahead):
        """Yields the frames [H, W, 3] uint8 RGB of image files, in order; `ahead` of them wait, 0: none is read unasked.

        first: the path of the sequence's first frame, as for read_image_rgb.
        Raises DataError, when its turn has come, for a file that is missing or damaged.
        """
        waiting = deque()
        for path in paths:
            waiting.append(self._pool.submit(read_image_rgb, path, first))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
