"""`benchmark eval`: sequences as `hiptrack eval` tracks them, beside the tracker alone on decoded frames."""

import os
import tempfile

import cv2
import torch

from hiptrack.data.folders import FolderDataset
from hiptrack.data.reading import read_image_rgb
from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.evaluation.run_sequences import core_for_decoding
from hiptrack.evaluation.score import evaluate_sequences
from hiptrack.extras.benchmark.measure import build_model, interleaved, ratio
from hiptrack.extras.world.files import write_world
from hiptrack.tracking.tracker import Tracker

FRAME_SIZE, JPEG_QUALITY = (1280, 720), 75  # about 120 kB a frame


def measure(args):
    """Returns (settings, rows): a row for each batch, medians over the repetitions.

    "tracker" is it alone with the threads that it has in an evaluation, "all threads" with those that decode, too.
    """
    if min(args.sequences, args.frames - 1, *args.batch) < 1:
        raise ConfigError("At least 1 sequence of 2 frames, and a batch of 1, were expected.")
    model, model_name = build_model(args)
    tracker = Tracker(model, precision=args.precision, device=args.device)
    del model
    with core_for_decoding(tracker):
        threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        sequences, size = _write_sequences(folder, args.sequences, args.frames)
        paths = [path for sequence in sequences for path in sequence.frames]
        videos = [([read_image_rgb(path) for path in own.frames], own.boxes_xywh[0]) for own in sequences]
        tasks = {"decode": lambda: [read_image_rgb(path) for path in paths]}
        for batch in args.batch:
            tasks[batch, "end to end"] = lambda batch=batch: _evaluate(tracker, sequences, batch)
            tasks[batch, "tracker"] = lambda batch=batch: _track_as_in_evaluation(tracker, videos, batch)
            tasks[batch, "all threads"] = lambda batch=batch: track_frames(tracker, videos, batch)
        timings = interleaved(tasks, args.repetitions)
    rows = []
    for batch in args.batch:
        ways = {name: timings[batch, name] for name in ("end to end", "tracker", "all threads")}
        rows.append(
            {
                "at once": batch,
                "decode ms": timings["decode"].median * 1e3 / len(paths),
                **{f"frames/s, {name}": len(paths) / timing.median for name, timing in ways.items()},
                "end to end / tracker": ratio(ways["tracker"], ways["end to end"]),
                "end to end / all threads": ratio(ways["all threads"], ways["end to end"]),
            }
        )
    frames = "{} x {} of {} x {}, {:.0f} kB JPEG".format(args.sequences, args.frames, *FRAME_SIZE, size / 1e3)
    settings = {"model": model_name, "precision": args.precision, "frames": frames, "threads of the tracker": threads}
    return settings | {"repetitions": args.repetitions}, rows


def track_frames(tracker, videos, batch):
    """Track targets through videos (frames [H, W, 3] uint8, first box xywh) of equal length, `batch` side by side."""
    for first in range(0, len(videos), batch):
        frames, boxes = zip(*videos[first : first + batch], strict=True)
        targets = [tracker.start(video[0], box) for video, box in zip(frames, boxes, strict=True)]
        for pictures in zip(*[video[1:] for video in frames], strict=True):
            for result in tracker.step(targets, pictures):
                if isinstance(result, HiptrackError):
                    raise result


def _track_as_in_evaluation(tracker, videos, batch):
    with core_for_decoding(tracker):
        track_frames(tracker, videos, batch)


def _evaluate(tracker, sequences, batch):
    failures = evaluate_sequences(tracker, sequences, batch=batch).failures
    if failures:  # it would be fast
        raise HiptrackError(f"{failures[0][0]}: {failures[0][1]}")


def _write_sequences(folder, count, frames):
    """(Sequences, mean bytes of a frame) with files of a usual size: the generator's own are finer."""
    write_world(folder, "val", count, frames, FRAME_SIZE, 0, sea=1.0)
    sequences = FolderDataset(folder, "val").sequences
    paths = [path for sequence in sequences for path in sequence.frames]
    for path in paths:
        cv2.imwrite(path, cv2.imread(path), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return sequences, sum(os.path.getsize(path) for path in paths) / len(paths)
