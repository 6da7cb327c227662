"""What a report tells of one evaluation: numbers, groups, losses, and pictures of the worst moments."""

from dataclasses import dataclass

import cv2
import numpy as np

from hiptrack.data.reading import read_image_rgb
from hiptrack.evaluation.analysis import by_size, by_speed, calibration, find_lost_targets, scored_frames
from hiptrack.evaluation.score import as_dict
from hiptrack.pictures import PREDICTED_COLOUR, TRUTH_COLOUR, draw_box, score_overlay

OVERLAPS = ("AO", "SR0.5", "SR0.75")
MOMENTS = 12  # pictures of a run
POOR = 0.5  # IoU below which a moment is worth a picture
PICTURE_WIDTH = 320
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Moment:
    """A picture worth looking at: a line of text, and the frame with both boxes as JPEG."""

    caption: str
    jpeg: bytes


@dataclass(frozen=True)
class RunSummary:
    """One evaluation under its name; numbers as in report.json (`score.as_dict`).

    classes: the names of the challenges; sequences: {name: {"frames", "AO", "SR0.5", "SR0.75", the benchmark's own metrics,
    "lost"}}; groups: {"challenge": `analysis.by_challenge`, {} without labels; "size" | "speed": {group: {"frames", "AO",
    "SR0.5", "SR0.75"}}}; losses: of `analysis.find_lost_targets`.
    """

    name: str
    classes: tuple
    numbers: dict
    sequences: dict
    groups: dict
    losses: list
    calibration: dict | None
    moments: list


def summarise_run(name, report, sequences):
    """RunSummary of a score.Report of these Sequences; those that failed have no row."""
    by_name = {sequence.name: sequence for sequence in sequences}
    tracked = [by_name[score.result.name] for score in report.scores]
    frames = scored_frames(report.scores, tracked, len(report.taxonomy.classes))
    losses = find_lost_targets(frames, tracked, report.taxonomy.classes)
    numbers = as_dict(report)
    lost = {}
    for loss in losses:
        lost.setdefault(loss.sequence, loss.frame)
    rows = {
        sequence: {
            **{key: row.get(key) for key in ("frames", *OVERLAPS, *numbers["metrics"])},
            "lost": lost.get(sequence),
        }
        for sequence, row in numbers["sequences"].items()
    }
    groups = {"challenge": report.by_challenge or {}, "size": by_size(frames), "speed": by_speed(frames)}
    moments = [_picture(*moment) for moment in _worst(report, tracked, frames, losses)]
    return RunSummary(name, report.taxonomy.classes, numbers, rows, groups, losses, calibration(frames), moments)


def _worst(report, sequences, frames, losses):
    """(score, sequence, frame from 1, caption) of the losses, longest first, and of other sequences' lowest IoUs."""
    number = {sequence.name: place for place, sequence in enumerate(sequences)}
    found = [
        (number[loss.sequence], loss.frame, f"lost for {loss.length} frames", loss.challenge)
        for loss in sorted(losses, key=lambda loss: -loss.length)
    ]
    lost = {place for place, *_ in found}
    for row in _lowest(frames):
        if frames.sequence[row] not in lost and frames.iou[row] < POOR:
            challenge = report.taxonomy.classes[frames.challenge[row]] if frames.challenge[row] >= 0 else None
            found.append((frames.sequence[row], frames.frame[row], f"IoU {frames.iou[row]:.2f}", challenge))
    for place, frame, what, challenge in found[:MOMENTS]:
        text = f"{sequences[place].name}, frame {frame}: {what}" + (
            f", {challenge.replace('_', ' ')}" if challenge else ""
        )
        yield report.scores[place], sequences[place], int(frame), text


def _lowest(frames):
    rows = [np.flatnonzero(frames.sequence == number) for number in np.unique(frames.sequence)]
    return sorted((mine[frames.iou[mine].argmin()] for mine in rows), key=lambda row: frames.iou[row])


def _picture(score, sequence, frame, caption):
    image = read_image_rgb(sequence.frames[frame - 1], sequence.frames[0])
    seen = score.result.moments.get(frame)
    if seen is not None:
        image = _overlaid(image, *seen)
    image = draw_box(image, sequence.boxes_xywh[frame - 1], TRUTH_COLOUR)
    image = draw_box(image, score.result.boxes_xywh[frame - 1], PREDICTED_COLOUR)
    scale = min(1, PICTURE_WIDTH / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return Moment(caption, jpeg.tobytes())


def _overlaid(image, score_map, search_xywh):
    """The frame with the score map [S, S] laid over the square that was searched, as far as it shows."""
    height, width = image.shape[:2]
    x, y, side = (round(float(value)) for value in search_xywh[:3])
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + side, width), min(y + side, height)
    if left >= right or top >= bottom:
        return image
    cells = len(score_map) / side  # of the map, for a pixel
    to_map = np.array([[cells, 0, (left - x + 0.5) * cells - 0.5], [0, cells, (top - y + 0.5) * cells - 0.5]])
    shown = cv2.warpAffine(
        np.asarray(score_map, np.float32),
        to_map,
        (right - left, bottom - top),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    image = image.copy()
    image[top:bottom, left:right] = score_overlay(image[top:bottom, left:right], shown)
    return image
