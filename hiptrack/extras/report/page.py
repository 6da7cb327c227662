"""The page itself: HTML that needs nothing but the file it stands in."""

import base64
from html import escape
from importlib import resources

from hiptrack.data.labels import CLASSES
from hiptrack.evaluation.analysis import LOST_AFTER
from hiptrack.extras.report.charts import charts, curves, reliability
from hiptrack.extras.report.summary import OVERLAPS

CALIBRATION = "How often the branch is right when it is so sure; the wider a bar, the more frames. On the dashed line it is as sure as it should be."
LOST = f"Lost: no overlap with the true box in {LOST_AFTER} scored frames in a row, or from there to the end."
TEXT = '<td class="text">'
GROUPS = {
    "challenge": "By challenge",
    "size": "By size of the target (square root of its area)",
    "speed": "By speed of the target (its own sizes a frame)",
}


def page(runs, title):
    """The page of some RunSummary as text; the first leads the tables."""
    sections = [
        _overview(runs),
        _curves(runs),
        *(_group(runs, kind, text) for kind, text in GROUPS.items()),
        _branch(runs),
        _sequences(runs),
        _losses(runs),
        _moments(runs),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_asset('page.css')}</style></head><body><h1>{escape(title)}</h1>"
        + "".join(sections)
        + f"<script>{_asset('page.js')}</script></body></html>\n"
    )


def _asset(name):
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _overview(runs):
    rows, metrics = [], runs[0].numbers["metrics"]
    best = _best([run.numbers["overall"] or {} for run in runs], metrics)
    for run in runs:
        numbers, speed = run.numbers["overall"] or {}, run.numbers["speed"]
        frames = sum(row["frames"] for row in run.sequences.values())
        failed = len(run.numbers["failures"])
        classification = run.numbers["classification"] or {}
        rows.append(
            [
                _text(run.name),
                _count(len(run.sequences)),
                _count(frames),
                *(_number(numbers.get(metric), best=best.get(metric)) for metric in metrics),
                _count(len(run.losses)),
                _number(classification.get("accuracy")),
                _number(speed["fps_model"], 1),
                _number(speed["fps_end_to_end"], 1),
                _count(failed),
            ]
        )
    heads = ["run", "sequences", "frames", *metrics, "lost", "accuracy", "frames/s", "with decoding", "failed"]
    failures = [
        f'<li class="failed">{escape(run.name)}: {escape(name)}: {escape(message)}</li>'
        for run in runs
        for name, message in run.numbers["failures"].items()
    ]
    listed = f"<p>In none of the numbers:</p><ul>{''.join(failures)}</ul>" if failures else ""
    return _section("Overview", _table(heads, rows) + listed)


def _curves(runs):
    pictures = "".join(map(curves, charts(runs)))
    return _section("Success", f'<div class="charts">{pictures}</div>') if pictures else ""


def _group(runs, kind, title):
    names = [name for run in runs for name in run.groups[kind]]
    names = list(dict.fromkeys(names))
    if kind == "challenge":
        names.sort(key=CLASSES.index)
    rows = []
    for name in names:
        found = [run.groups[kind].get(name, {}) for run in runs]
        best = _best(found, OVERLAPS)
        cells = [_number(part.get(metric), best=best.get(metric)) for part in found for metric in OVERLAPS]
        rows.append([_text(name.replace("_", " ")), _count(found[0].get("frames", 0)), *cells])
    if not rows:
        return ""
    heads = [kind, "frames", *OVERLAPS * len(runs)]
    return _section(title, _table(heads, rows, _spans(runs, 2, len(OVERLAPS))))


def _branch(runs):
    parts = []
    for run in runs:
        classification = run.numbers["classification"]
        if not classification:
            continue
        told = (
            f"{run.name}: accuracy {classification['accuracy']:.3f}, balanced {classification['balanced_accuracy']:.3f}"
        )
        if run.calibration:
            told += f", expected calibration error {run.calibration['error']:.3f}"
        chart = ""
        if run.calibration:
            chart = f"{reliability(run.calibration['bins'])}<p>{CALIBRATION}</p>"
        parts.append(f"<p>{escape(told)}</p>{_confusion(classification['confusion'])}{chart}")
    return _section("The challenge branch", "".join(parts)) if parts else ""


def _confusion(confusion):
    heads = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in CLASSES)
    rows = []
    for name, counts in zip(CLASSES, confusion, strict=True):
        total = max(sum(counts), 1)
        cells = "".join(f'<td class="heat" style="--share:{count / total:.3f}">{count}</td>' for count in counts)
        rows.append(f"<tr><td>{escape(name.replace('_', ' '))}</td>{cells}</tr>")
    return f'<div class="wide"><table class="confusion"><tr><th>true \\ predicted</th>{heads}</tr>{"".join(rows)}</table></div>'


def _sequences(runs):
    names = list(dict.fromkeys(name for run in runs for name in run.sequences))
    rows, metrics = [], runs[0].numbers["metrics"]
    for name in names:
        found = [run.sequences.get(name, {}) for run in runs]
        frames, best = next(row["frames"] for row in found if row), _best(found, metrics)
        cells = [
            cell
            for row in found
            for cell in (
                *(_number(row.get(metric), best=best.get(metric)) for metric in metrics),
                _count(row.get("lost")),
            )
        ]
        rows.append([_text(name), _count(frames), *cells])
    heads = ["sequence", "frames", *(*metrics, "lost at") * len(runs)]
    return _section("Sequences", _table(heads, rows, _spans(runs, 2, len(metrics) + 1)))


def _losses(runs):
    rows = [
        [
            _text(run.name),
            _text(loss.sequence),
            _count(loss.frame),
            _count(loss.length),
            _text((loss.challenge or "").replace("_", " ")),
        ]
        for run in runs
        for loss in run.losses
    ]
    if not rows:
        return ""
    table = _table(["run", "sequence", "frame", "frames lost", "challenge"], rows)
    return _section("Where the target was lost", f"<p>{LOST}</p>{table}")


def _moments(runs):
    figures = []
    for run in runs:
        for moment in run.moments:
            source = base64.b64encode(moment.jpeg).decode()
            caption = escape(moment.caption if len(runs) == 1 else f"{run.name}: {moment.caption}")
            figures.append(
                f'<figure><img loading="lazy" alt="{caption}" src="data:image/jpeg;base64,{source}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
    if not figures:
        return ""
    key = '<p><span class="truth">ground truth</span>, <span class="predicted">prediction</span>; colours: the score map</p>'
    return _section("Worst moments", f'{key}<div class="pictures">{"".join(figures)}</div>')


def _section(title, content):
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _spans(runs, before, width):
    """A row above the heads that names the run over its columns; none for a single run."""
    if len(runs) == 1:
        return ""
    heads = "".join(f'<th class="group" colspan="{width}">{escape(run.name)}</th>' for run in runs)
    return f'<tr><th colspan="{before}"></th>{heads}</tr>'


def _table(heads, rows, above=""):
    texts = [cell.startswith(TEXT) for cell in rows[0]] if rows else [False] * len(heads)
    head = "".join(
        f'<th class="by{" text" if text else ""}">{escape(name)}</th>' for name, text in zip(heads, texts, strict=True)
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="wide"><table class="sorts"><thead>{above}<tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(value):
    return f"{TEXT}{escape(value)}</td>"


def _count(value):
    return _cell(value, "" if value is None else f"{value:,}")


def _number(value, digits=3, best=None):
    shown = "-" if value is None else f"{value:.{digits}f}"
    return _cell(value, f"<b>{shown}</b>" if value is not None and value == best else shown)


def _cell(value, shown):
    return f'<td data-value="{"" if value is None else value}">{shown}</td>'


def _best(found, metrics):
    """{metric: its highest value} of {metric: value} for each run; empty for a single run, or where all are equal."""
    known = {metric: [row[metric] for row in found if row.get(metric) is not None] for metric in metrics}
    return {metric: max(values) for metric, values in known.items() if len(set(values)) > 1}
