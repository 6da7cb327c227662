"""An evaluation's report as plain text."""

from hiptrack.evaluation.score import as_dict
from hiptrack.tables import as_text


def format_table(report) -> str:
    """The report as plain text: a line per sequence, all of them together, speed, classes, and what failed."""
    sequences, metrics = as_dict(report)["sequences"], report.protocol.metrics
    frames = sum(numbers["frames"] for numbers in sequences.values())
    total = {"frames": frames, **(report.overall or {}), **report.speed}
    everything = "all sequences" if report.protocol.is_one_pass else "all frames"  # over what the mean is
    rows = [_row(name, numbers, metrics) for name, numbers in (*sequences.items(), (everything, total))]
    lines = [as_text(["sequence", "frames", *metrics, "frames/s model", "end to end"], rows)]
    lines.append(
        f"one update takes {_one(report.speed['update_ms_p50'])} ms at the median, "
        f"{_one(report.speed['update_ms_p95'])} ms at the 95th percentile"
    )
    resumed = sum(score.resumed for score in report.scores)
    if resumed:
        lines.append(f"{resumed} of {len(report.scores)} sequences were finished before: read back, not tracked again")
    if report.classification:
        lines += ["", classification_table(report.classification, report.taxonomy.classes)]
    if report.multi_label:
        lines += ["", _multi_label_table(report.multi_label, report.taxonomy.classes)]
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
    rows = []
    for name, report in reports.items():
        name = f"{name} ({len(report.failures)} failed)" if report.failures else name
        overlaps = [_three((report.overall or {}).get(metric)) for metric in metrics]
        rows.append([name, *overlaps, _one(report.speed["fps_model"]), _one(report.speed["fps_end_to_end"])])
    return as_text(["tracker", *metrics, "frames/s", "end to end"], rows)


def _row(name, numbers, metrics):
    overlaps = [_three(numbers.get(metric)) for metric in metrics]
    return [name, numbers["frames"], *overlaps, _one(numbers["fps_model"]), _one(numbers["fps_end_to_end"])]


def classification_table(numbers, classes) -> str:
    """Frames and recall of each class, and their accuracy (metrics.summarise_classification), as plain text."""
    rows = zip(classes, numbers["counts"], map(_three, numbers["recalls"]), strict=True)
    return (
        f"{as_text(['class', 'frames', 'recall'], rows)}\n"
        f"accuracy {numbers['accuracy']:.3f}, balanced accuracy {numbers['balanced_accuracy']:.3f} "
        f"over {numbers['frames']} labelled frames"
    )


def _multi_label_table(numbers, classes):
    precisions, f1 = map(_three, numbers["average_precisions"]), map(_three, numbers["f1"])
    rows = zip(classes, numbers["counts"], precisions, f1, strict=True)
    return (
        f"{as_text(['all classes of a frame', 'frames', 'AP', 'F1'], rows)}\n"
        f"mean average precision {numbers['mean_average_precision']:.3f}, macro F1 {numbers['macro_f1']:.3f} "
        f"over {numbers['frames']} labelled frames"
    )


def _three(value):
    return "-" if value is None else f"{value:.3f}"


def _one(value):
    return "-" if value is None else f"{value:.1f}"
