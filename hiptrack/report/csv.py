"""The tables of a report as CSV."""

import csv
import io

COLUMNS = ("run", "table", "row", "frames", "AO", "SR0.5", "SR0.75", "lost at")


def as_csv(runs):
    """One line for each sequence and each group of each RunSummary, below a line of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for run in runs:
        for name, row in run.sequences.items():
            writer.writerow(
                {"run": run.name, "table": "sequence", "row": name, **_numbers(row), "lost at": row["lost"]}
            )
        for table, groups in run.groups.items():
            for name, row in groups.items():
                writer.writerow({"run": run.name, "table": table, "row": name, **_numbers(row)})
    return text.getvalue()


def _numbers(row):
    return {name: row[name] for name in ("frames", "AO", "SR0.5", "SR0.75")}
