"""The tables of evaluations: of one in full, of several side by side, by challenge."""

from hiptrack.evaluation.score import as_dict
from hiptrack.screen import shown
from hiptrack.tables import as_text


def format_table(report) -> str:
    """The report as plain text: a line per sequence, all of them together, speed, challenges, classes, and what failed."""
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
    if report.by_challenge:
        lines += ["", challenge_table({"": report})]
    if report.classification:
        lines += ["", classification_table(report.classification, report.taxonomy.classes)]
    if report.multi_label:
        lines += ["", _multi_label_table(report.multi_label, report.taxonomy.classes)]
    if report.failures:
        lines += [
            "",
            f"INCOMPLETE: {len(report.failures)} sequence(s) failed and are in none of the numbers above",
        ]
        lines += [f"  {shown(name)}: {shown(message)}" for name, message in report.failures]
    return "\n".join(lines)


def compare_table(reports) -> str:
    """The table of `compare_rows` as plain text."""
    return as_text(*compare_rows(reports))


def compare_rows(reports):
    """(columns, rows) for {name: Report} on the same sequences: a row each, with the number of those that failed, if any."""
    metrics = next(iter(reports.values())).protocol.metrics
    rows = []
    for name, report in reports.items():
        name = f"{name} ({len(report.failures)} failed)" if report.failures else name
        frames = sum(len(score.result.seconds) for score in report.scores)
        overlaps = [_three((report.overall or {}).get(metric)) for metric in metrics]
        speeds = [_one(report.speed["fps_model"]), _one(report.speed["fps_end_to_end"])]
        rows.append([name, len(report.scores), frames, *overlaps, *speeds])
    return ["tracker", "sequences", "frames", *metrics, "frames/s", "end to end"], rows


def challenge_table(reports) -> str:
    """The table by challenge of {name: Report} as plain text, and what was counted."""
    report = next(iter(reports.values()))
    tables = {name: report.by_challenge for name, report in reports.items()}
    columns, blocks = challenge_rows(tables, report.protocol.metrics)
    return f"{as_text(columns, [row for rows in blocks for row in rows])}\n{what_counts(report)}"


def challenge_rows(tables, metrics, show=None):
    """(columns, blocks) of {tracker: `analysis.by_challenge`, or None}: a block for each challenge, of a row for each tracker.

    Of a single tracker it is one block, without its name. show: makes a cell of a number, by default with three digits.
    """
    show, alone, blocks = show or _three, len(tables) == 1, []
    for challenge in next(table for table in tables.values() if table):
        rows = []
        for tracker, table in tables.items():
            row = (table or {}).get(challenge, {})
            name = [] if alone else [tracker]
            counts = [row.get("frames", "-"), row.get("sequences", "-")]
            rows.append([challenge.replace("_", " "), *name, *counts, *(show(row.get(metric)) for metric in metrics)])
        for row in rows[1:]:
            row[0] = ""
        blocks.append(rows)
    columns = ["challenge", *([] if alone else ["tracker"]), "frames", "sequences", *metrics]
    return columns, [[row for rows in blocks for row in rows]] if alone else blocks


def what_counts(report) -> str:
    """A sentence on what the numbers by challenge of a Report are over."""
    text = "A scored frame counts for each of its challenges"
    if not report.protocol.is_one_pass:
        return text
    part = (
        "the majority of their annotated frames" if report.attribute_sequences == "majority" else "any annotated frame"
    )
    return f"{text}; {', '.join(report.protocol.metrics)}: over all frames of the sequences that have the challenge in {part}"


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
