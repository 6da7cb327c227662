"""Writes a report: the page, its numbers as CSV, Markdown and LaTeX, its charts as PNG."""

import numpy as np

from hiptrack.errors import HiptrackError
from hiptrack.evaluation.table import challenge_rows, compare_rows, what_counts
from hiptrack.extras.report.charts import charts, draw
from hiptrack.extras.report.page import page
from hiptrack.extras.report.summary import OVERLAPS, summarise_run
from hiptrack.files import encoded, write_atomically
from hiptrack.tables import as_csv, as_latex, as_markdown


def write_report(reports, sequences, folder, title):
    """Write the report of {name: score.Report} over the same Sequences into a folder.

    report.html, report.csv, report.md and report.tex; where there is ground truth, success.csv and success.png, and where there are
    labels besides, by_challenge.tex and by_challenge.png; where the branch was on and there are labels, branch.csv and
    branch.png. Returns the files' names. Raises HiptrackError where they cannot be written.
    """
    runs = [summarise_run(name, report, sequences) for name, report in reports.items()]
    pictures = draw(runs)
    counted = what_counts(next(iter(reports.values())))
    files = {"report.html": encoded(page(runs, title, pictures, counted)), "report.csv": encoded(tables_csv(runs))}
    files |= {name: encoded(text) for name, text in tables_for_papers(reports).items()}
    if "by_challenge" in pictures:
        files["by_challenge.png"] = pictures["by_challenge"].png
    for name, as_table in (("success", curves_csv), ("branch", branch_csv)):
        if name in pictures:
            files |= {f"{name}.csv": encoded(as_table(runs)), f"{name}.png": pictures[name].png}
    try:
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise HiptrackError(f"the report in {folder} cannot be written: {error}") from error
    return list(files)


def left_out(reports, files):
    """A line on what `write_report`, which wrote these files, could not draw of {name: score.Report}; "" for nothing."""
    if "by_challenge.png" in files or not any(report.by_challenge for report in reports.values()):
        return ""
    return "no radar plot (by_challenge.png): it needs three challenges with numbers\n"


def tables_for_papers(reports):
    """{file: Markdown or LaTeX} of {name: score.Report}: all of them side by side, and by challenge where there are labels."""
    metrics = next(iter(reports.values())).protocol.metrics
    columns, rows = compare_rows(reports)
    # The best is marked where all are of the same frames.
    best = () if len(reports) == 1 or any(report.failures for report in reports.values()) else metrics
    texts = {"report.tex": as_latex(columns, [rows], best=best), "report.md": as_markdown(columns, rows) + "\n"}
    tables = {row[0]: report.by_challenge for row, report in zip(rows, reports.values(), strict=True)}
    if any(tables.values()):
        columns, blocks = challenge_rows(tables, metrics)
        texts["by_challenge.tex"] = as_latex(columns, blocks, best=best)
        texts["report.md"] += f"\n{as_markdown(columns, [row for block in blocks for row in block])}\n"
    return texts


def tables_csv(runs):
    """One line for each evaluation, sequence, group and loss of each RunSummary; a loss stands at its first frame."""
    metrics = list(dict.fromkeys([*OVERLAPS, *runs[0].numbers["metrics"]]))
    rows = []
    for run in runs:
        overall = run.numbers["overall"] or {}
        frames = sum(row["frames"] for row in run.sequences.values())
        whole = {"frames": frames, "sequences": len(run.sequences), **overall}
        tables = {"all": {"": whole}, "sequence": run.sequences, **run.groups}
        for table, named in tables.items():
            for name, row in named.items():
                numbers = [row.get(metric) for metric in metrics]
                rows.append([run.name, table, name, row["frames"], row.get("sequences"), *numbers, row.get("lost")])
        rows += [
            [run.name, "lost", loss.sequence, loss.length, None, *[None] * len(metrics), loss.frame]
            for loss in run.losses
        ]
    return as_csv(["run", "table", "row", "frames", "sequences", *metrics, "lost at"], rows)


def curves_csv(runs):
    """One line for each point of each line of the Charts of some RunSummary."""
    rows = [
        [run, chart.name, round(threshold, 6), share]
        for chart in charts(runs)
        for run, line in chart.lines.items()
        for threshold, share in zip(np.linspace(0, chart.most, len(line)), line, strict=True)
    ]
    return as_csv(["run", "curve", "threshold", "share"], rows)


def branch_csv(runs):
    """Confusion (row: true, column: predicted class) and calibration (row: a bin's lower end) of runs with a branch."""
    rows = []
    for run in (run for run in runs if run.numbers["classification"]):
        for name, counts in zip(run.classes, run.numbers["classification"]["confusion"], strict=True):
            rows += [
                [run.name, "confusion", name, other, count] for other, count in zip(run.classes, counts, strict=True)
            ]
        for found in run.calibration["bins"] if run.calibration else []:
            rows += [
                [run.name, "calibration", found["from"], key, found[key]]
                for key in ("frames", "confidence", "accuracy")
            ]
    return as_csv(["run", "table", "row", "column", "value"], rows)
