"""Tracking one target through any source of frames, writing what is found as it goes.

The memory needed does not grow: one frame is held at a time, and nothing is kept of it but what the tracker remembers.
"""

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hiptrack import screen
from hiptrack.errors import ConfigError, DataError
from hiptrack.extras.export.tracker import exported_tracker
from hiptrack.extras.video import outputs
from hiptrack.extras.video.outputs import JsonLines, VideoOutput, codec_of, jsonl_record
from hiptrack.extras.video.sources import open_source
from hiptrack.models.weights import load_model
from hiptrack.pictures import caption, draw_tracked
from hiptrack.progress import progress
from hiptrack.signals import StopSignals
from hiptrack.tracking.tracker import Tracker, parts_of

DEFAULT_FPS = 25


@dataclass(frozen=True)
class Tracked:
    """A frame and what the tracker found in it.

    number: from 1. frame_rgb: uint8 [H,W,3]. box_xywh: [4] float64 in its pixels. score: in [0, 1], None in the frame
    where the box was given. challenge: {name: probability}, None unless the branch is on. search_xywh: [4], the square
    that was searched, None in the first frame. seconds: time that the tracker took, without decoding and drawing.
    """

    number: int
    frame_rgb: np.ndarray
    box_xywh: np.ndarray
    score: float | None
    challenge: dict[str, float] | None
    search_xywh: np.ndarray | None
    seconds: float


@dataclass(frozen=True)
class TrackRequest:
    """What `track` is asked for: the options of hiptrack track.

    source: what `open_source` takes. checkpoint: a weights file, or the folder of an export. box_xywh: [4] in the
    pixels of frame `start`, None: drawn by mouse. frames: how many at most. trust_export: read an export whose files can
    run code.
    """

    source: str
    checkpoint: Path
    box_xywh: tuple[float, ...] | None = None
    out: Path | None = None
    jsonl: Path | None = None
    start: int = 1
    frames: int | None = None
    display: bool = False
    trust_export: bool = False


def parse_box(text: str) -> tuple[float, ...]:
    """ "x,y,w,h" -> four numbers. Raises ConfigError."""
    try:
        box = tuple(float(field) for field in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4:
        raise ConfigError(f"--box {text}: four numbers x,y,w,h in pixels were expected.")
    return box


def track(request: TrackRequest, tracker: Callable[..., Tracker] = Tracker) -> int:
    """Does what is asked and returns the exit code: 0, or 128 and the number of the signal that ended it.

    tracker: called with the checkpoint's model; an export folder has one of its own.

    Nothing is written before the first frame was decoded and its box accepted. Whatever ends it, the files hold what
    was tracked until then. Raises HiptrackError.
    """
    _check(request)
    weights_file, settings = parts_of(request.checkpoint)
    if weights_file.is_dir():
        tracker = exported_tracker(weights_file, request.trust_export)
    elif request.trust_export:
        raise ConfigError(f"--trust-export: {request.checkpoint} is no folder of hiptrack export. Leave it out.")
    else:
        tracker = tracker(model=load_model(weights_file), **settings)
    with open_source(request.source) as source:
        for option, path in (("--out", request.out), ("--jsonl", request.jsonl)):
            if path is not None and source.reads(path):
                raise ConfigError(
                    f"{option} {path} is what is tracked. Expected another path: it would be overwritten."
                )
        numbered = itertools.islice(source.frames(request.start), request.frames)
        box = outputs.choose_box if request.box_xywh is None else request.box_xywh
        code = _run(request, source, track_frames(tracker, numbered, box))
        for note in source.notes:
            _say(note)
    return code


def track_frames(
    tracker: Tracker,
    numbered: Iterable[tuple[int, np.ndarray]],
    box_xywh: np.ndarray | tuple[float, ...] | Callable[[np.ndarray], np.ndarray],
) -> Iterator[Tracked]:
    """Yields what a tracker finds in (number, frame uint8 [H,W,3] RGB), one at a time.

    box_xywh: the target in the first of them, [4] in pixels, or what gives it for that frame. Raises DataError for a
    frame of another size than the first: box and memory belong to the old one.
    """
    size = None
    for number, frame in numbered:
        if size is None:
            size = frame.shape[:2]
            box = box_xywh(frame) if callable(box_xywh) else box_xywh
            started = time.perf_counter()
            tracker.init(frame, box)
            seconds = time.perf_counter() - started
            yield Tracked(number, frame, np.array(box, np.float64), None, None, None, seconds)
            continue
        if frame.shape[:2] != size:
            raise DataError(
                f"frame {number} has {frame.shape[1]}x{frame.shape[0]} pixels, those before it {size[1]}x{size[0]}. Expected "
                f"one size throughout; track what follows in a run of its own, from frame {number} with its own box."
            )
        started = time.perf_counter()
        result = tracker.update(frame)
        seconds = time.perf_counter() - started
        challenge = (
            None if result.challenge is None else dict(zip(tracker.classes, map(float, result.challenge), strict=True))
        )
        yield Tracked(number, frame, result.box, result.score, challenge, tracker.target.search_xywh, seconds)


def _check(request):
    """Raise what can be known to be wrong before anything is read."""
    if request.out is None and request.jsonl is None and not request.display:
        raise ConfigError("Nothing would be seen of the tracking. Expected --out, --jsonl or --display.")
    for option, value in (("--start", request.start), ("--frames", request.frames)):
        if value is not None and value < 1:
            raise ConfigError(f"{option} {value}: a number from 1 on was expected.")
    if request.out is not None:
        codec_of(request.out)
    taken = {os.path.realpath(file): "a file of the export" for file in request.checkpoint.glob("*")}
    taken[os.path.realpath(request.checkpoint)] = "the weights file"
    for option, path in (("--out", request.out), ("--jsonl", request.jsonl)):
        if path is None:
            continue
        if os.path.realpath(path) in taken:
            raise ConfigError(f"{option} {path} is {taken[os.path.realpath(path)]}. Expected another path.")
        taken[os.path.realpath(path)] = f"also given as {option}"
    if (request.box_xywh is None or request.display) and not outputs.has_display():
        wanted = (
            "draw the box on: give --box x,y,w,h" if request.box_xywh is None else "show frames on: leave out --display"
        )
        raise ConfigError(f"There is no display to {wanted}.")


def _run(request, source, tracked_frames):
    """Track to the end, or to a signal or the closing of the window; returns the exit code."""
    stop = video = lines = shown = None
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: _tell(video, lines))  # first in, last out: the files are complete, the bar stands above
        bar = stack.enter_context(progress(_expected(request, source), "frame", "tracking"))
        for tracked in tracked_frames:
            if not stop:  # only now, since until here nothing is lost when a signal ends it at once
                stop = stack.enter_context(StopSignals())
                if request.out:
                    height, width = tracked.frame_rgb.shape[:2]
                    video = stack.enter_context(VideoOutput(request.out, (width, height), _fps(source)))
                if request.jsonl:
                    lines = stack.enter_context(JsonLines(request.jsonl))
                if request.display:
                    shown = stack.enter_context(outputs.Window())
            if lines:
                lines.write(jsonl_record(tracked))
            if video or shown:
                text = caption(tracked.score, tracked.challenge)
                picture = draw_tracked(tracked.frame_rgb, tracked.box_xywh, tracked.search_xywh, text)
            if video:
                video.write(picture)
            bar.update()
            if (shown and not shown.show(picture)) or stop.requested:
                break
    return 128 + stop.signal if stop.requested else 0


def _tell(*files):
    for file in files:
        if file and file.complete:
            _say(f"wrote {file.path} ({file.frames} frames)")


def _expected(request, source):
    """Number of frames for the progress bar; None where unknown."""
    left = None if source.total is None else max(0, source.total - request.start + 1)
    known = [number for number in (left, request.frames) if number is not None]
    return min(known, default=None)


def _fps(source):
    if source.fps is None:
        _say(f"{source.name}: no frame rate is known; {DEFAULT_FPS} frames/s are written")
    return source.fps or DEFAULT_FPS


def _say(text):
    tqdm.write(screen.shown(text), file=sys.stderr)
