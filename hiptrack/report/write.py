"""Writes a report: the page, its numbers as CSV, its charts as PNG."""

from hiptrack.errors import HiptrackError
from hiptrack.files import write_atomically
from hiptrack.report.charts import charts
from hiptrack.report.csv import branch_csv, curves_csv, tables_csv
from hiptrack.report.page import page
from hiptrack.report.png import branch_png, curves_png
from hiptrack.report.summary import summarise_run


def write_report(reports, sequences, folder, title):
    """Write the report of {name: evaluate.Report} over the same Sequences into a folder.

    report.html and report.csv; where there is ground truth, success.csv and success.png; where the branch was on and there are
    labels, branch.csv and branch.png. Returns the files' names. Raises HiptrackError where they cannot be written.
    """
    runs = [summarise_run(name, report, sequences) for name, report in reports.items()]
    files = {"report.html": page(runs, title).encode(), "report.csv": tables_csv(runs).encode()}
    if curves := charts(runs):
        files |= {"success.csv": curves_csv(curves).encode(), "success.png": curves_png(curves)}
    if known := [run for run in runs if run.numbers["classification"]]:
        files |= {"branch.csv": branch_csv(known).encode(), "branch.png": branch_png(known)}
    try:
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise HiptrackError(f"the report in {folder} cannot be written: {error}") from error
    return list(files)
