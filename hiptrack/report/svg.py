"""Small charts as SVG text."""

from html import escape

import numpy as np

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
