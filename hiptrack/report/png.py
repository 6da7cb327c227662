"""The charts of a report as PNG."""

import io

import numpy as np
from matplotlib.figure import Figure

from hiptrack.data.labels import CLASSES

NAMES = [name.replace("_", " ") for name in CLASSES]


def curves_png(charts):
    """The Charts side by side, the best run on top of each legend -> bytes."""
    figure = Figure(figsize=(6 * len(charts), 4.2), layout="constrained")
    for place, chart in enumerate(charts, 1):
        axes = figure.add_subplot(1, len(charts), place)
        for run in sorted(chart.lines, key=lambda run: -chart.numbers[run]):
            curve = chart.lines[run]
            axes.plot(np.linspace(0, chart.most, len(curve)), curve, label=f"[{chart.numbers[run]:.3f}] {_plain(run)}")
        axes.set(xlabel=chart.threshold, ylabel=chart.name, xlim=(0, chart.most), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return _png(figure)


def branch_png(runs):
    """Confusion matrix (shares of the true class) and calibration of each run whose branch was on -> bytes."""
    figure = Figure(figsize=(12, 5 * len(runs)), layout="constrained")
    for line, run in enumerate(runs):
        _draw_confusion(figure.add_subplot(len(runs), 2, 2 * line + 1), run)
        _draw_calibration(figure.add_subplot(len(runs), 2, 2 * line + 2), run.calibration)
    return _png(figure)


def _draw_confusion(axes, run):
    counts = np.array(run.numbers["classification"]["confusion"])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(
            column,
            row,
            str(count),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if shares[row, column] > 0.6 else "black",
        )
    axes.set_xticks(range(len(NAMES)), NAMES, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(NAMES)), NAMES, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true", title=_plain(run.name))


def _draw_calibration(axes, calibration):
    axes.plot([0, 1], [0, 1], "--", color="grey")
    axes.set(xlabel="highest probability", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    if calibration:
        bins = [row for row in calibration["bins"] if row["frames"]]
        frames = np.array([row["frames"] for row in bins])
        place, height = [row["confidence"] for row in bins], [row["accuracy"] for row in bins]
        axes.bar(place, height, 0.09 * np.sqrt(frames / frames.max()), alpha=0.6)
        axes.set_title(f"expected calibration error {calibration['error']:.3f}")


def _plain(text):
    """A text of which matplotlib takes no part for a formula."""
    return text.replace("$", r"\$")


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
