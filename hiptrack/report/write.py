"""Writes a report: the page, its tables as CSV, its curves as PNG."""

from hiptrack.errors import HiptrackError
from hiptrack.files import write_atomically
from hiptrack.report.csv import as_csv
from hiptrack.report.page import write_page
from hiptrack.report.summary import summarise_run
from hiptrack.tracking.pictures import plot_success


def write_report(reports, sequences, folder, title):
    """Write report.html, report.csv and success.png of {name: evaluate.Report} over the same Sequences into a folder.

    Raises HiptrackError where it cannot be written.
    """
    runs = [summarise_run(name, report, sequences) for name, report in reports.items()]
    curves = {name: report.success_curve for name, report in reports.items() if report.success_curve is not None}
    try:
        write_page(runs, folder / "report.html", title)
        write_atomically(folder / "report.csv", as_csv(runs).encode())
        if curves:
            plot_success(curves, folder / "success.png")
    except OSError as error:
        raise HiptrackError(f"the report in {folder} cannot be written: {error}") from error
