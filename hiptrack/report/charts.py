"""The curves of a report, as page, PNG and CSV show them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Chart:
    """Shares of the frames over a threshold from 0 to `most`. lines: {run: [N]}; numbers: {run: the curve's own number}."""

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
