"""An evaluation's report as plain text."""

from hiptrack.data.labels import CLASSES
from hiptrack.evaluation.score import as_dict


def format_table(report) -> str:
    """The report as plain text: a line per sequence, all of them together, speed, classes, and what failed."""
    sequences, metrics = as_dict(report)["sequences"], report.protocol.metrics
    frames = sum(numbers["frames"] for numbers in sequences.values())
    total = {"frames": frames, **(report.overall or {}), **report.speed}
    everything = "all sequences" if report.protocol.is_one_pass else "all frames"  # over what the mean is
    rows = [["sequence", "frames", *metrics, "frames/s model", "end to end"]]
    rows += [_row(name, numbers, metrics) for name, numbers in (*sequences.items(), (everything, total))]
    lines = _align(rows)
    lines.append(
        f"one update takes {_one(report.speed['update_ms_p50'])} ms at the median, "
        f"{_one(report.speed['update_ms_p95'])} ms at the 95th percentile"
    )
    resumed = sum(score.resumed for score in report.scores)
    if resumed:
        lines.append(f"{resumed} of {len(report.scores)} sequences were finished before: read back, not tracked again")
    if report.classification:
        lines += ["", *_classification_lines(report.classification)]
    if report.multi_label:
        lines += ["", *_multi_label_lines(report.multi_label)]
    if report.failures:
        lines += [
            "",
            f"INCOMPLETE: {len(report.failures)} sequence(s) failed and are in none of the numbers above",
        ]
        lines += [f"  {name}: {message}" for name, message in report.failures]
    return "\n".join(lines)


def compare_table(reports) -> str:
    """{name: Report} on the same sequences as plain text: a line each, with the number of those that failed, if any."""
    metrics = next(iter(reports.values())).protocol.metrics
    rows = [["tracker", *metrics, "frames/s", "end to end"]]
    for name, report in reports.items():
        name = f"{name} ({len(report.failures)} failed)" if report.failures else name
        overlaps = [_three((report.overall or {}).get(metric)) for metric in metrics]
        rows.append([name, *overlaps, _one(report.speed["fps_model"]), _one(report.speed["fps_end_to_end"])])
    return "\n".join(_align(rows))


def _row(name, numbers, metrics):
    overlaps = [_three(numbers.get(metric)) for metric in metrics]
    return [name, numbers["frames"], *overlaps, _one(numbers["fps_model"]), _one(numbers["fps_end_to_end"])]


def _classification_lines(classification):
    counted = zip(CLASSES, classification["counts"], classification["recalls"], strict=True)
    rows = [
        ["class", "frames", "recall"],
        *([name, count, _three(recall)] for name, count, recall in counted),
    ]
    summary = (
        f"accuracy {classification['accuracy']:.3f}, "
        f"balanced accuracy {classification['balanced_accuracy']:.3f} "
        f"over {classification['frames']} labelled frames"
    )
    return [*_align(rows), summary]


def _multi_label_lines(numbers):
    columns = zip(CLASSES, numbers["counts"], numbers["average_precisions"], numbers["f1"], strict=True)
    rows = [
        ["all classes of a frame", "frames", "AP", "F1"],
        *([name, count, _three(precision), _three(f1)] for name, count, precision, f1 in columns),
    ]
    summary = (
        f"mean average precision {numbers['mean_average_precision']:.3f}, macro F1 {numbers['macro_f1']:.3f} "
        f"over {numbers['frames']} labelled frames"
    )
    return [*_align(rows), summary]


def _three(value):
    return "-" if value is None else f"{value:.3f}"


def _one(value):
    return "-" if value is None else f"{value:.1f}"


def _align(rows):
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    return lines
