"""The page itself: HTML that needs nothing but the file it stands in."""

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined

from hiptrack.evaluation.analysis import LOST_AFTER, SIZES, SPEEDS
from hiptrack.extras.report.summary import OVERLAPS


def page(runs, title, pictures, counted):
    """The page of some RunSummary as text; the first leads the tables.

    pictures: what `charts.draw` gives; counted: a sentence on what the numbers by challenge are over.
    """
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: "" if value is None else value,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    metrics = runs[0].numbers["metrics"]
    groups = {"size": SIZES, "speed": SPEEDS}
    challenges = [run.groups["challenge"] for run in runs]
    sequences = dict.fromkeys(name for run in runs for name in run.sequences)
    return environment.get_template("report.html.j2").render(
        title=title,
        runs=runs,
        pictures=pictures,
        metrics=metrics,
        overlaps=list(OVERLAPS),
        best=_best([run.numbers["overall"] or {} for run in runs], metrics),
        challenges=_compare(challenges, dict.fromkeys(name for table in challenges for name in table), metrics),
        counted=counted,
        groups={kind: _compare([run.groups[kind] for run in runs], groups[kind], OVERLAPS) for kind in groups},
        sequences=_compare([run.sequences for run in runs], sequences, metrics),
        lost_after=LOST_AFTER,
    )


def _compare(tables, names, metrics):
    """A row for each name that is in a run's table {name: {"frames", metric: value}}; {} for a run that lacks it."""
    rows = []
    for name in names:
        found = [table.get(name, {}) for table in tables]
        if any(found):
            frames = next(row["frames"] for row in found if row)
            rows.append({"name": name, "frames": frames, "runs": found, "best": _best(found, metrics)})
    return rows


def _best(found, metrics):
    """{metric: its highest value} of {metric: value} for each run; empty for a single run, or where all are equal."""
    known = {metric: [row[metric] for row in found if row.get(metric) is not None] for metric in metrics}
    return {metric: max(values) for metric, values in known.items() if len(set(values)) > 1}
