"""The page itself: HTML that needs nothing but the file it stands in."""

import base64
from html import escape
from importlib import resources

from hiptrack.data.labels import CLASSES
from hiptrack.files import write_atomically
from hiptrack.report import svg

METRICS = ("AO", "SR0.5", "SR0.75")
GROUPS = {
    "challenge": "By challenge",
    "size": "By size of the target (square root of its area)",
    "speed": "By speed of the target (its own sizes a frame)",
}


def write_page(runs, path, title):
    """Write the page of some RunSummary, the first of which leads the tables."""
    write_atomically(path, page(runs, title).encode())


def page(runs, title):
    """The page as text."""
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
    rows = []
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
                *(_number(numbers.get(metric)) for metric in METRICS),
                _number(classification.get("accuracy")),
                _number(speed["fps_model"], 1),
                _number(speed["fps_end_to_end"], 1),
                _count(failed) if failed else _count(0),
            ]
        )
    heads = ["run", "sequences", "frames", *METRICS, "accuracy", "frames/s", "with decoding", "failed"]
    failures = [
        f'<li class="failed">{escape(run.name)}: {escape(name)}: {escape(message)}</li>'
        for run in runs
        for name, message in run.numbers["failures"].items()
    ]
    listed = f"<p>In none of the numbers:</p><ul>{''.join(failures)}</ul>" if failures else ""
    return _section("Overview", _table(heads, rows) + listed)


def _curves(runs):
    curves = {run.name: run.numbers["success_curve"] for run in runs if run.numbers["success_curve"]}
    return _section("Success", svg.success_curves(curves)) if curves else ""


def _group(runs, kind, title):
    names = [name for run in runs for name in run.groups[kind]]
    names = list(dict.fromkeys(names))
    if kind == "challenge":
        names.sort(key=CLASSES.index)
    rows = []
    for name in names:
        found = [run.groups[kind].get(name, {}) for run in runs]
        cells = [_number(part.get(metric)) for part in found for metric in METRICS]
        rows.append([_text(name.replace("_", " ")), _count(found[0].get("frames", 0)), *cells])
    return (
        _section(title, _table(["", "frames", *METRICS * len(runs)], rows, _spans(runs, 2, len(METRICS))))
        if rows
        else ""
    )


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
        chart = svg.reliability(run.calibration["bins"]) if run.calibration else ""
        parts.append(f"<p>{escape(told)}</p>{_confusion(classification['confusion'])}{chart}")
    return _section("The challenge branch", "".join(parts)) if parts else ""


def _confusion(confusion):
    heads = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in CLASSES)
    rows = []
    for name, counts in zip(CLASSES, confusion, strict=True):
        total = max(sum(counts), 1)
        cells = "".join(f'<td class="heat" style="--share:{count / total:.3f}">{count}</td>' for count in counts)
        rows.append(f"<tr><td>{escape(name.replace('_', ' '))}</td>{cells}</tr>")
    return f'<div class="wide"><table><tr><th>true \\ predicted</th>{heads}</tr>{"".join(rows)}</table></div>'


def _sequences(runs):
    names = list(dict.fromkeys(name for run in runs for name in run.sequences))
    rows = []
    for name in names:
        found = [run.sequences.get(name, {}) for run in runs]
        frames = next(row["frames"] for row in found if row)
        cells = [
            cell
            for row in found
            for cell in (*(_number(row.get(metric)) for metric in METRICS), _count(row.get("lost")))
        ]
        rows.append([_text(name), _count(frames), *cells])
    heads = ["sequence", "frames", *(*METRICS, "lost at") * len(runs)]
    return _section("Sequences", _table(heads, rows, _spans(runs, 2, 4)))


def _losses(runs):
    rows = [
        [_text(run.name), _text(loss.sequence), _count(loss.frame), _count(loss.length), _text(loss.challenge or "")]
        for run in runs
        for loss in run.losses
    ]
    if not rows:
        return ""
    return _section("Where the target was lost", _table(["run", "sequence", "frame", "frames lost", "challenge"], rows))


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
    """A table that sorts; cells are HTML."""
    head = "".join(f'<th class="by">{escape(name)}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="wide"><table class="sorts"><thead>{above}<tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(value):
    return f"<td>{escape(value)}</td>"


def _count(value):
    return _cell(value, "" if value is None else f"{value:,}")


def _number(value, digits=3):
    return _cell(value, "-" if value is None else f"{value:.{digits}f}")


def _cell(value, shown):
    return f'<td data-value="{"" if value is None else value}">{shown}</td>'
