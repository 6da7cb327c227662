"""The curves of a report, as page, PNG and CSV show them."""

import io
from dataclasses import dataclass
from html import escape

import numpy as np

from hiptrack.data.labels import CLASSES


@dataclass(frozen=True)
class Chart:
    """Shares of the frames over a threshold from 0 to `most`. lines: {run: [N]}; numbers: {run: the curve's number}."""

    name: str
    threshold: str
    most: float
    lines: dict[str, list[float]]
    numbers: dict[str, float]


def charts(runs):
    """The Charts of some RunSummary: success, and where the benchmark has it, precision and normalised precision.

    The number of a curve is its mean (of success: AO or AUC), of precision its value at 20 pixels.
    """
    one_pass = {run.name: run.numbers["one_pass"] for run in runs if run.numbers["one_pass"]}
    if not one_pass:
        lines = {run.name: run.numbers["success_curve"] for run in runs if run.numbers["success_curve"]}
        return [_chart("success", "overlap threshold", 1, lines, np.mean)] if lines else []

    def curves(name):
        return {run: found[name] for run, found in one_pass.items()}

    return [
        _chart("success", "overlap threshold", 1, curves("success"), np.mean),
        _chart("precision", "distance of the centres in pixels", 50, curves("precision"), lambda curve: curve[20]),
        _chart("normalised precision", "distance in sizes", 0.5, curves("normalised_precision"), np.mean),
    ]


def _chart(name, threshold, most, lines, number):
    return Chart(name, threshold, most, lines, {run: float(number(curve)) for run, curve in lines.items()})


NAMES = [name.replace("_", " ") for name in CLASSES]


def curves_png(charts):
    """The Charts side by side, the best run on top of each legend -> bytes."""
    from matplotlib.figure import Figure  # here: an evaluation draws at its end

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
    from matplotlib.figure import Figure

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


COLOURS = ("#d6336c", "#1c7ed6", "#2f9e44", "#f08c00", "#7048e8", "#0c8599")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 460, 300, 54, 34, 12


def curves(chart):
    """A Chart with its runs and their numbers, below the curves whether they fall or rise."""
    parts = [_axes(chart.threshold, chart.name, chart.most)]
    left = 0.45 if all(line[-1] > line[0] for line in chart.lines.values()) else 0.03
    for number, (name, curve) in enumerate(chart.lines.items()):
        points = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in zip(np.linspace(0, 1, len(curve)), curve, strict=True))
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        row = _y(0.06 + 0.075 * (len(chart.lines) - 1 - number))
        parts.append(
            f'<line x1="{_x(left)}" y1="{row}" x2="{_x(left + 0.06)}" y2="{row}" stroke="{colour}" stroke-width="3"/>'
        )
        parts.append(f'<text x="{_x(left + 0.08)}" y="{row + 4}">{escape(name)} [{chart.numbers[name]:.3f}]</text>')
    return _picture(parts, f"{chart.name} curves")


def reliability(bins):
    """Accuracy over certainty, bins as `analysis.calibration` gives them; the wider a bar, the more frames."""
    parts = [_axes("highest probability", "accuracy")]
    most = max(row["frames"] for row in bins)
    for row in (row for row in bins if row["frames"]):
        width = max(2.0, 0.9 / len(bins) * (_x(1) - _x(0)) * (row["frames"] / most) ** 0.5)
        left, top = _x(row["confidence"]) - width / 2, _y(row["accuracy"])
        told = f"{row['frames']} frames, probability {row['confidence']:.2f}, right {row['accuracy']:.2f}"
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_y(0) - top:.1f}" fill="{COLOURS[1]}" '
            f'fill-opacity="0.6"><title>{told}</title></rect>'
        )
    parts.append(
        f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="currentColor" stroke-dasharray="4"/>'
    )
    return _picture(parts, "Calibration")


def _x(value):
    return LEFT + value * (WIDTH - LEFT - 10)


def _y(value):
    return HEIGHT - BOTTOM - value * (HEIGHT - BOTTOM - TOP)


def _axes(below, beside, most=1):
    lines = [f'<rect x="{_x(0)}" y="{_y(1)}" width="{_x(1) - _x(0)}" height="{_y(0) - _y(1)}" class="frame"/>']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        lines.append(f'<line x1="{_x(0)}" y1="{_y(tick)}" x2="{_x(1)}" y2="{_y(tick)}" class="grid"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{_y(tick) + 4}" text-anchor="end">{tick:g}</text>')
        lines.append(f'<text x="{_x(tick)}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{tick * most:g}</text>')
    lines.append(f'<text x="{_x(0.5)}" y="{HEIGHT - 4}" text-anchor="middle">{below}</text>')
    lines.append(f'<text transform="translate(11 {_y(0.5)}) rotate(-90)" text-anchor="middle">{beside}</text>')
    return "".join(lines)


def _picture(parts, title):
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{title}">'
        + "".join(parts)
        + "</svg>"
    )
