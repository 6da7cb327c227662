"""The figures of a report, drawn once each: as SVG for the page and as PNG beside it."""

import io
import re
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from hiptrack import screen
from hiptrack.pictures import chart_style

NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True)
class Chart:
    """Shares of the frames over a threshold from 0 to `most`. lines: {run: [N]}; numbers: {run: the curve's number}."""

    name: str
    threshold: str
    most: float
    lines: dict[str, list[float]]
    numbers: dict[str, float]


@dataclass(frozen=True)
class Picture:
    """A figure as an element of a page, whose ids no other picture's has, and as a PNG file."""

    svg: str
    png: bytes


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


def draw(runs):
    """Pictures of some RunSummary, where there is something to show.

    {"success": the charts, "by_challenge": a radar plot, "branch": confusion and calibration}
    """
    pictures, curves = {}, charts(runs)
    shown, left_out = challenges(runs)
    known = [run for run in runs if run.numbers["classification"]]
    with chart_style():
        if curves:
            pictures["success"] = _picture("success", _curves(curves))
        if len(shown) > 2:  # fewer corners make no polygon
            pictures["by_challenge"] = _picture("by_challenge", _radar(runs, shown, left_out))
        if known:
            pictures["branch"] = _picture("branch", _branch(known))
    return pictures


def _curves(charts):
    """The Charts side by side, the best run on top of each legend."""
    figure = Figure(figsize=(4.4 * len(charts), 3.5), layout="constrained")
    for axes, chart in zip(figure.subplots(1, len(charts), squeeze=False).flat, charts):
        colours = {run: f"C{number}" for number, run in enumerate(chart.lines)}
        for run in sorted(chart.lines, key=lambda run: -chart.numbers[run]):
            curve, label = chart.lines[run], f"[{chart.numbers[run]:.3f}] {screen.shown(run)}"
            axes.plot(np.linspace(0, chart.most, len(curve)), curve, color=colours[run], label=label)
        axes.set(xlabel=chart.threshold, ylabel=chart.name, xlim=(0, chart.most), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def challenges(runs):
    """(the classes in which each labelled RunSummary has the benchmark's first number, those in which one has none)."""
    metric = runs[0].numbers["metrics"][0]
    tables = [run.groups["challenge"] for run in runs if run.groups["challenge"]]
    names = list(tables[0]) if tables else []
    shown = [name for name in names if all(table[name][metric] is not None for table in tables)]
    return shown, [name for name in names if name not in shown]


def _radar(runs, names, left_out):
    """The benchmark's first number by challenge, a polygon for each run."""
    metric = runs[0].numbers["metrics"][0]
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.add_subplot(projection="polar")
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    for number, run in enumerate(runs):
        if run.groups["challenge"]:
            values = [run.groups["challenge"][name][metric] for name in names]
            label = f"[{run.numbers['overall'][metric]:.3f}] {screen.shown(run.name)}"
            axes.plot([*angles, 0], [*values, values[0]], color=f"C{number}", label=label)
            axes.fill(angles, values, color=f"C{number}", alpha=0.1)
    axes.set_xticks(angles, [_words(name) for name in names], fontsize=8)
    for label, angle in zip(axes.get_xticklabels(), angles, strict=True):
        across = np.cos(angle)
        label.set_horizontalalignment("center" if abs(across) < 0.2 else "left" if across > 0 else "right")
    axes.set_rlabel_position(np.degrees(angles[1] / 2))
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right upper", fontsize=8)
    words = f"{metric} by challenge; in brackets over all"
    if left_out:
        lack = "sequences" if runs[0].numbers["one_pass"] else "frames"
        words += f"\nleft out for lack of {lack}: {', '.join(map(_words, left_out))}"
    axes.set_title(words, fontsize=8, pad=18)
    return figure


def _words(name):
    return name.replace("_", " ")


def _branch(runs):
    """Confusion matrix (colours: shares of the true class) and calibration of each run."""
    figure = Figure(figsize=(12, 5 * len(runs)), layout="constrained")
    for (left, right), run in zip(figure.subplots(len(runs), 2, squeeze=False), runs):
        _draw_confusion(left, run)
        _draw_calibration(right, run.calibration)
    return figure


def _draw_confusion(axes, run):
    counts = np.array(run.numbers["classification"]["confusion"])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="none")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, count, ha="center", va="center", fontsize=8, color=colour)
    names = [name.replace("_", " ") for name in run.classes]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true", title=screen.shown(run.name))


def _draw_calibration(axes, calibration):
    axes.plot([0, 1], [0, 1], "--", color="grey")
    axes.set(xlabel="highest probability", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    if calibration:
        bins = [row for row in calibration["bins"] if row["frames"]]
        most = max(row["frames"] for row in bins)
        for row in bins:
            told = f"{row['frames']} frames, probability {row['confidence']:.2f}, right {row['accuracy']:.2f}"
            width = max(0.005, 0.09 * (row["frames"] / most) ** 0.5)
            axes.bar(row["confidence"], row["accuracy"], width, color="C0", alpha=0.6)
            axes.text(row["confidence"], 0.02, told, rotation=90, ha="center", va="bottom", fontsize=8)
        axes.set_title(f"expected calibration error {calibration['error']:.3f}")


def _picture(name, figure):
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata=NO_METADATA)
    figure.savefig(png, format="png", dpi=150)
    _, start, element = svg.getvalue().partition("<svg")  # without the head of an XML file
    own_ids = partial(re.sub, r'( id="|href="#|url\(#)', rf"\g<1>{name}-")
    return Picture(re.sub("<[^>]*>", lambda tag: own_ids(tag[0]), start + element), png.getvalue())
