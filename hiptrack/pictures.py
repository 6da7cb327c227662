"""Pictures of tracking and of training: boxes on frames, contact sheets, curves, score maps.

Pictures are uint8 [H,W,3] RGB arrays; boxes are xywh in the frame's pixels.
"""

import io
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from hiptrack.files import write_atomically

SEARCH_COLOUR = (90, 170, 255)
_TEXT_COLOUR = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
CHART_STYLE = {
    "font.sans-serif": "DejaVu Sans",
    "text.parse_math": False,  # a run may be called a$b$c
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "hiptrack",  # the same runs, the same file
}


def draw_tracked(frame_rgb, box_xywh, search_xywh=None, text=""):
    """A copy of the frame uint8 [H,W,3] with search region (blue), a text at the upper left, and box (pink) on top.

    Boxes are xywh in the frame's pixels; search_xywh: None where nothing was searched.
    """
    picture = np.ascontiguousarray(frame_rgb).copy()
    if search_xywh is not None:
        picture = draw_box(picture, search_xywh, SEARCH_COLOUR)
    if text:
        _write_caption(picture, text)
    return draw_box(picture, box_xywh, PREDICTED_COLOUR)


def caption(score, challenge=None):
    """One line: the score, in [0, 1] or None, and the likeliest challenge of {name: probability} or None."""
    words = ["start" if score is None else f"score {score:.2f}"]
    if challenge:
        name = max(challenge, key=challenge.get)
        words.append(f"{name.replace('_', ' ')} {challenge[name]:.2f}")
    return "  ".join(words)


def _write_caption(picture, text):
    """Write in white on a darkened strip, as large as suits the picture, and no wider than it."""
    height, width = picture.shape[:2]
    scale = max(0.4, min(height, width) / 900)
    (length, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
    scale *= min(1, 0.9 * width / length)
    thickness = max(1, round(scale))
    (length, rise), below = cv2.getTextSize(text, _FONT, scale, thickness)
    gap = max(1, round(0.3 * rise))
    picture[: rise + below + 2 * gap, : length + 2 * gap] //= 3
    cv2.putText(picture, text, (gap, gap + rise), _FONT, scale, _TEXT_COLOUR, thickness, cv2.LINE_AA)


TRUTH_COLOUR = (60, 230, 60)
PREDICTED_COLOUR = (255, 70, 170)
_STRIP = 18  # pixel rows of a line of text


@dataclass(frozen=True)
class Shot:
    """One cell of a sheet: a frame uint8 [H,W,3], its boxes xywh [4] or None, and a line of text."""

    frame_rgb: np.ndarray
    truth_xywh: np.ndarray | None
    predicted_xywh: np.ndarray | None
    caption: str = ""


def draw_box(frame_rgb, box_xywh, colour):
    """A copy of the frame with the box's outline, cut at the border; colour is (red, green, blue)."""
    picture = np.ascontiguousarray(frame_rgb).copy()
    # OpenCV takes 32-bit corners; far outside, their exact place shows in nothing.
    limit = 4 * max(picture.shape[:2])
    x, y, w, h = (float(value) for value in box_xywh)
    corners = [round(min(max(value, -limit), limit)) for value in (x, y, x + w, y + h)]
    thickness = max(1, round(max(picture.shape[:2]) / 400))
    cv2.rectangle(picture, corners[:2], corners[2:], colour, thickness, cv2.LINE_AA)
    return picture


def picture_sheet(rows, cell_size=(240, 160)):
    """Contact sheet of rows of Shots (rows may differ in length): ground truth green, prediction pink.

    Each frame is fitted into cell_size (width, height) with black around it and its caption below.
    """
    width, height = cell_size
    columns = max(len(row) for row in rows)
    blank = np.zeros((height + _STRIP, width, 3), np.uint8)
    lines = [np.hstack([_cell(shot, width, height) for shot in row] + [blank] * (columns - len(row))) for row in rows]
    legend = np.zeros((_STRIP, columns * width, 3), np.uint8)
    _write(legend, "ground truth", 4, TRUTH_COLOUR)
    _write(legend, "prediction", 110, PREDICTED_COLOUR)
    return np.vstack([legend, *lines])


def _cell(shot, width, height):
    frame_height, frame_width = shot.frame_rgb.shape[:2]
    scale = min(width / frame_width, height / frame_height)
    size = max(1, round(frame_width * scale)), max(1, round(frame_height * scale))
    picture = cv2.resize(np.ascontiguousarray(shot.frame_rgb), size, interpolation=cv2.INTER_AREA)
    for box, colour in ((shot.truth_xywh, TRUTH_COLOUR), (shot.predicted_xywh, PREDICTED_COLOUR)):
        if box is not None:
            picture = draw_box(picture, np.asarray(box, np.float64) * scale, colour)
    cell = np.zeros((height + _STRIP, width, 3), np.uint8)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    cell[top : top + size[1], left : left + size[0]] = picture
    _write(cell[height:], shot.caption, 4, (230, 230, 230))
    return cell


def _write(strip, text, left, colour):
    cv2.putText(strip, text, (left, _STRIP - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)


def score_overlay(search_crop_rgb, score_map):
    """uint8 [H,W,3] of the search crop [H,W,3] with the score map [S,S] laid over it.

    Colours run from the map's 0 to its own highest value, and the crop shows through where the score is low;
    values that are not finite count as 0.
    """
    height, width = search_crop_rgb.shape[:2]
    scores = np.nan_to_num(np.asarray(score_map, np.float32), nan=0, posinf=0, neginf=0).clip(min=0)
    if scores.max() > 0:
        scores = scores / scores.max()
    scores = cv2.resize(scores, (width, height), interpolation=cv2.INTER_LINEAR)
    heat = cv2.applyColorMap(np.round(255 * scores).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    opacity = 0.7 * scores[..., None]
    return np.round((1 - opacity) * search_crop_rgb + opacity * heat).astype(np.uint8)


def write_png(picture_rgb, path):
    """Write a uint8 [H,W,3] RGB picture to `path` as PNG, whole or not at all."""
    _, data = cv2.imencode(".png", np.ascontiguousarray(picture_rgb[..., ::-1]))
    write_atomically(path, data.tobytes())


def write_jpeg(picture_rgb, path, quality=80):
    """Write a uint8 [H,W,3] RGB picture to `path` as JPEG of a quality 1..100, whole or not at all."""
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(picture_rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    write_atomically(path, data.tobytes())


@contextmanager
def chart_style():
    """Within it Matplotlib draws charts alike everywhere: a matplotlibrc, also one in the working directory, changes nothing."""
    from matplotlib import style  # here: training draws none

    with style.context(["default", CHART_STYLE]):
        yield


def plot_curves(metrics, path):
    """Write a PNG with one panel per metric; metrics: name -> list of (step, value)."""
    with chart_style():
        _write_figure(_curves(metrics), path)


def _curves(metrics):
    from matplotlib.figure import Figure

    columns = min(3, max(1, len(metrics)))
    lines = max(1, -(-len(metrics) // columns))
    figure = Figure(figsize=(4.2 * columns, 2.8 * lines), layout="constrained")
    for place, (name, points) in enumerate(metrics.items(), 1):
        axes = figure.add_subplot(lines, columns, place)
        axes.plot(
            [step for step, _ in points],
            [value for _, value in points],
            marker="." if len(points) < 30 else "",
        )
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    return figure


def _write_figure(figure, path):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())
