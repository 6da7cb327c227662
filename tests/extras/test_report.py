"""The report: one file that needs no other, with the right numbers in it."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from latex_tables import bold_cells, plain_rows
from matplotlib.projections.polar import PolarAxes
from toy import toy_model

from hiptrack.cli.report import names_of
from hiptrack.data.benchmarks import LaSOTDataset
from hiptrack.data.folders import FolderDataset, MVTDDataset
from hiptrack.data.sequence import GOT10K
from hiptrack.evaluation.run_sequences import Moments
from hiptrack.evaluation.score import evaluate_sequences, read_back
from hiptrack.evaluation.table import challenge_table, what_counts
from hiptrack.extras.report.charts import challenges, draw
from hiptrack.extras.report.page import page
from hiptrack.extras.report.summary import summarise_run
from hiptrack.extras.report.write import left_out, write_report
from hiptrack.screen import shown
from hiptrack.taxonomy import CLASSES
from hiptrack.tracking.tracker import Tracker

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Wandering:
    """Follows the true boxes up to the frame `lost`; a score map with its peak at the left, class 3 with probability 0.9."""

    multi_label = False

    def __init__(self, sequences, lost):
        self.truth = {len(s.frames[0]) and tuple(s.boxes_xywh[0]): s.boxes_xywh for s in sequences}
        self.lost = lost

    def init(self, frame, box):
        self.boxes, self.frame = self.truth[tuple(box)], 1

    def update(self, frame):
        self.frame += 1
        box = self.boxes[self.frame - 1] + (5000 if self.frame >= self.lost else 1)
        self.score_map = torch.zeros(8, 8)
        self.score_map[:, 0] = 1
        self.search_xywh = np.array([0.0, 20.0, 90.0, 90.0])
        challenge = np.full(10, 0.1 / 9)
        challenge[3] = 0.9
        return SimpleNamespace(box=box, score=0.5, challenge=challenge)


@pytest.fixture
def sequences(synthetic):
    return FolderDataset(str(synthetic), "val", f"{synthetic}/annotations").sequences


@pytest.fixture
def annotated(sequences):
    """The same; in the first sequence each frame has three flags, in the second the first of them until frame 10."""
    made = []
    for sequence, flags in zip(sequences, ([0, 3, 8], [0]), strict=True):
        table = np.zeros_like(sequence.labels.flags)
        table[: None if len(flags) > 1 else 10, flags] = True
        labels = replace(sequence.labels, flags=table, annotated=np.ones(len(sequence), bool))
        made.append(replace(sequence, labels=labels))
    return made


def evaluated(sequences, lost, folder=None, protocol=GOT10K):
    key = None if folder is None else "key"
    return evaluate_sequences(Wandering(sequences, lost), sequences, folder, key, protocol=protocol)


class Reader(HTMLParser):
    """Text of the cells of all tables, tags that stayed open, every address, and every id."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.addresses, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def page_of(reports, sequences, title="val"):
    runs = [summarise_run(name, report, sequences) for name, report in reports.items()]
    return page(runs, title, draw(runs), what_counts(next(iter(reports.values()))))


def test_the_page_stands_alone_and_holds_the_numbers(sequences):
    report = evaluated(sequences, lost=8)
    text = page_of({"mine": report}, sequences)
    reader = Reader(text)
    assert not reader.open
    assert all(address.startswith("data:image/jpeg;base64,") for address in reader.addresses)
    assert not re.search(r"https?://(?!www\.w3\.org)|@import|url\((?!#)", text)
    overview = next(row for row in reader.rows if row[0] == "mine")
    assert overview[1:6] == ["2", "28", *(f"{report.overall[name]:.3f}" for name in ("AO", "SR0.5", "SR0.75"))]
    first = next(row for row in reader.rows if row[0] == sequences[0].name)
    assert first[1] == "14" and first[-1] == "8"
    assert [row[1:4] for row in reader.rows if row[0] == "mine"][1] == [sequences[0].name, "8", "7"]
    assert re.search(r">\d+ frames, probability 0.90, right 0.\d\d</text>", text)  # the bar of the calibration
    assert len(text) < 300_000


def test_no_name_becomes_a_part_of_the_page(sequences):
    strange = [replace(sequence, name=f"<b>&{number}") for number, sequence in enumerate(sequences)]
    text = page_of({"one": evaluated(strange, lost=8), '<i id="x">': evaluated(strange, lost=99)}, strange, "<title>")
    reader = Reader(text)
    assert not reader.open and "<b>&" not in text and "<i id" not in text
    assert [row[0] for row in reader.rows if "&" in row[0]] == ["<b>&0", "<b>&1"]
    assert "&lt;b&gt;&amp;0, frame 8: lost" in text and "<title>&lt;title&gt;</title>" in text


def test_the_pictures_of_a_page_share_no_ids_and_are_the_same_each_time(sequences):
    report = evaluated(sequences, lost=8, protocol=LaSOTDataset.PROTOCOL)
    text = page_of({"mine": report}, sequences)
    ids = Reader(text).ids
    assert len(ids) == len(set(ids)) > 10
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', text)) <= set(ids)
    assert text == page_of({"mine": report}, sequences)


def test_moments_show_boxes_and_the_score_map(sequences):
    summary = summarise_run("mine", evaluated(sequences, lost=8), sequences)
    assert [moment.caption.split(":")[0] for moment in summary.moments] == [f"{s.name}, frame 8" for s in sequences]
    picture = cv2.imdecode(np.frombuffer(summary.moments[0].jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    plain = cv2.imread(sequences[0].frames[7])[..., ::-1].astype(int)
    redder = (picture - plain)[..., 0] - (picture - plain)[..., 2]
    assert redder[30:100, 1:6].mean() > 60 > abs(redder[30:100, 100:150].mean())  # the peak, at the region's left


def test_a_region_far_larger_than_the_frame_costs_no_memory(sequences):
    """As a box that has grown out of all bounds searches it."""
    report = evaluated(sequences[:1], lost=8)
    far = 1e6
    report.scores[0].result.moments[8] = np.eye(8, dtype=np.float32), np.array([80 - far / 2, 60 - far / 2, far, far])
    picture = summarise_run("mine", report, sequences[:1]).moments[0].jpeg
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR) is not None


@pytest.mark.parametrize("name", ["a$b$c", r"$\frac{$", "_best", "caf\udce9\n\x1b[1m"])
def test_a_run_of_any_name_is_drawn(name, sequences, tmp_path, recwarn):
    write_report({name: evaluated(sequences, lost=8)}, sequences, tmp_path, "val")
    assert cv2.imread(str(tmp_path / "success.png")).std() > 5
    assert f"] {shown(name)}</text>" in (tmp_path / "report.html").read_text()
    assert not [warning for warning in recwarn if "legend" in str(warning.message)]


def test_a_sequence_that_was_never_lost_shows_its_lowest_overlap(sequences):
    class Slipping(Wandering):
        """Half a box aside in frame 9."""

        def update(self, frame):
            found = super().update(frame)
            found.box = found.box + [0.6 * found.box[2] * (self.frame == 9), 0, 0, 0]
            return found

    report = evaluate_sequences(Slipping(sequences, lost=99), sequences)
    moments = summarise_run("mine", report, sequences).moments
    assert len(moments) == 2 and all(", frame 9: IoU 0." in moment.caption for moment in moments)
    assert all(9 in score.result.moments for score in report.scores)


def test_the_longest_losses_are_kept(sequences):
    lengths = [1, 2, 3, 1, 2, 4, 2, 3, 2, 5, 2]  # frames without overlap, each followed by one with it
    lost = [flag for length in lengths for flag in [True] * length + [False]]
    boxes = np.tile([10.0, 10, 20, 20], (len(lost) + 1, 1))
    sequence = SimpleNamespace(boxes_xywh=boxes, cover=np.full(len(boxes), 8))
    tracker = SimpleNamespace(search_xywh=np.zeros(4), score_map=torch.zeros(4, 4))
    moments = Moments(sequence)
    for index, away in enumerate(lost, 1):
        moments.look(index, boxes[index] + [100 * away, 0, 0, 0], tracker)
    starts = np.cumsum([0, *(length + 1 for length in lengths)])[:-1] + 2
    by_length = {int(start): length for start, length in zip(starts, lengths, strict=True)}
    kept = set(moments.kept) - {2}  # of length 1, and the first frame of the lowest IoU
    assert len(kept) == 8 and min(by_length[start] for start in kept) == 2
    assert {start for start, length in by_length.items() if length > 2} <= kept


def test_the_trackers_score_maps_reach_the_pictures(sequences):
    report = evaluate_sequences(Tracker(toy_model(), device="cpu"), sequences)
    for score in report.scores:
        for score_map, region in score.result.moments.values():
            assert score_map.shape == (8, 8) and region[2] == region[3] > 0
        assert score.result.moments


def test_two_runs_stand_side_by_side_in_page_csv_and_png(sequences, tmp_path):
    reports = {"good": evaluated(sequences, lost=99), "bad": evaluated(sequences, lost=4)}
    write_report(reports, sequences, tmp_path, "val")
    rows = Reader((tmp_path / "report.html").read_text()).rows
    assert ["", "good", "bad"] in rows
    first = next(row for row in rows if row[0] == sequences[0].name)
    assert first[5] == "" and first[-1] == "4" and float(first[2]) > float(first[6])
    table = table_of(tmp_path / "report.csv")
    mine = next(row for row in table if row["run"] == "bad" and row["row"] == sequences[0].name)
    assert mine["lost at"] == "4" and float(mine["AO"]) == pytest.approx(reports["bad"].scores[0].ious.mean())
    assert [row["row"] for row in table if row["table"] == "challenge"] == [*CLASSES, *CLASSES]
    whole = next(row for row in table if row["run"] == "good" and row["table"] == "all")
    assert float(whole["AO"]) == pytest.approx(reports["good"].overall["AO"]) and whole["frames"] == "28"
    losses = [(row["row"], row["lost at"], row["frames"]) for row in table if row["table"] == "lost"]
    assert losses == [(sequence.name, "4", "11") for sequence in sequences]
    curve = [row for row in table_of(tmp_path / "success.csv") if row["run"] == "bad"]
    assert len(curve) == 101 and float(curve[50]["threshold"]) == 0.5
    assert float(curve[50]["share"]) == pytest.approx(reports["bad"].overall["SR0.5"])
    branch = [row for row in table_of(tmp_path / "branch.csv") if row["run"] == "good"]
    told = {(row["row"], row["column"]): row["value"] for row in branch if row["table"] == "confusion"}
    assert len(told) == 100 and sum(map(int, told.values())) == reports["good"].confusion.sum()
    assert sum(int(told[name, CLASSES[3]]) for name in CLASSES) == reports["good"].confusion[:, 3].sum() > 0
    assert sum(int(row["value"]) for row in branch if row["column"] == "frames") > 0  # calibration
    for name in ("success.png", "branch.png"):
        assert cv2.imread(str(tmp_path / name)).std() > 5


def table_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_better_of_two_runs_is_bold(sequences):
    reports = {name: evaluated(sequences, lost) for name, lost in (("bad", 4), ("good", 99), ("as good", 99))}
    rows = re.findall("<tr>.*?</tr>", page_of(reports, sequences), re.DOTALL)
    row = next(row for row in rows if f">{sequences[0].name}<" in row)
    assert [bool(re.search("<b>", cell)) for cell in row.split("<td ")[3::4]] == [False, True, True]
    assert "<b>" not in page_of({"alone": reports["bad"]}, sequences)


def test_a_benchmark_is_reported_by_its_own_numbers(sequences, tmp_path):
    report = evaluated(sequences, 8, protocol=LaSOTDataset.PROTOCOL)
    write_report({"mine": report}, sequences, tmp_path, "lasot")
    rows = Reader((tmp_path / "report.html").read_text()).rows
    heads = next(row for row in rows if row[0] == "run")
    assert heads[3:6] == ["AUC", "P_norm0.2", "P"] and "AO" not in heads
    overview = next(row for row in rows if row[0] == "mine")
    assert overview[3:6] == [f"{report.overall[name]:.3f}" for name in ("AUC", "P_norm0.2", "P")]
    first = next(row for row in rows if row[0] == sequences[0].name)
    assert first[2] == f"{report.scores[0].one_pass.numbers()['AUC']:.3f}" and first[-1] == "8"
    points = {(row["curve"], float(row["threshold"])): row["share"] for row in table_of(tmp_path / "success.csv")}
    assert float(points["precision", 20]) == pytest.approx(report.overall["P"])
    assert float(points["normalised precision", 0.2]) == pytest.approx(report.overall["P_norm0.2"])
    whole = next(row for row in table_of(tmp_path / "report.csv") if row["table"] == "all")
    assert float(whole["AUC"]) == pytest.approx(report.overall["AUC"])


def test_the_table_by_challenge_is_the_same_in_page_csv_and_latex(annotated, tmp_path):
    reports = {"good_1": evaluated(annotated, 99), "bad": evaluated(annotated, 4)}
    names = write_report(reports, annotated, tmp_path, "val")
    assert {"report.md", "report.tex", "by_challenge.tex", "by_challenge.png"} <= set(names)
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert lines[0].startswith("| tracker |") and any(line.startswith("| occlusion |") for line in lines)
    page_rows = Reader((tmp_path / "report.html").read_text()).rows
    latex, table = plain_rows((tmp_path / "by_challenge.tex").read_text()), table_of(tmp_path / "report.csv")
    assert latex[0] == ["challenge", "tracker", "frames", "sequences", "AO", "SR0.5", "SR0.75"]
    empty = []
    for place, name in enumerate(CLASSES):
        rows = [report.by_challenge[name] for report in reports.values()]
        cells = [
            [str(row["frames"]), str(row["sequences"])]
            + ["-" if row[metric] is None else f"{row[metric]:.3f}" for metric in GOT10K.metrics]
            for row in rows
        ]
        words = name.replace("_", " ")
        assert next(row for row in page_rows if row[:1] == [words])[1:] == cells[0] + cells[1]
        assert latex[1 + 2 * place : 3 + 2 * place] == [[words, "good_1", *cells[0]], ["", "bad", *cells[1]]]
        written = [row for row in table if row["table"] == "challenge" and row["row"] == name]
        assert [(row["frames"], row["sequences"]) for row in written] == [(cell[0], cell[1]) for cell in cells]
        assert [row["AO"] for row in written] == ["" if row["AO"] is None else str(row["AO"]) for row in rows]
        empty += [words] if rows[0]["frames"] == 0 else []
    assert len(empty) == len(CLASSES) - 4
    bold = bold_cells((tmp_path / "by_challenge.tex").read_text())
    assert bold and all(row % 2 == 0 for row, _ in bold)  # good_1 is never the worse
    whole = plain_rows((tmp_path / "report.tex").read_text())
    assert whole[1][:4] == ["good_1", "2", "28", f"{reports['good_1'].overall['AO']:.3f}"]
    assert set(bold_cells((tmp_path / "report.tex").read_text())) == {(0, 3), (0, 4), (0, 5)}
    printed = challenge_table(reports).splitlines()
    assert [line.split()[-5:] for line in printed[1:-1]] == [row[2:] for row in latex[1:]]


def test_of_a_single_run_no_challenge_is_the_best(sequences, tmp_path):
    write_report({"mine": evaluated(sequences, 8)}, sequences, tmp_path, "val")
    text = (tmp_path / "by_challenge.tex").read_text()
    assert plain_rows(text)[0][:3] == ["challenge", "frames", "sequences"] and len(plain_rows(text)) == 1 + len(CLASSES)
    assert not bold_cells(text) and "By challenge" in (tmp_path / "report.html").read_text()


def test_nothing_is_the_best_where_some_sequences_failed(sequences, tmp_path):
    reports = {
        "all": evaluated(sequences, 8),
        "some": replace(evaluated(sequences, 4), failures=(("lost", "no image"),)),
    }
    write_report(reports, sequences, tmp_path, "val")
    for name in ("report.tex", "by_challenge.tex"):
        text = (tmp_path / name).read_text()
        assert "some (1 failed)" in text and not bold_cells(text)


def test_the_radar_plot_has_the_classes_with_numbers_and_names_the_others(annotated):
    protocol = MVTDDataset.PROTOCOL
    reports = {"good": evaluated(annotated, 99, protocol=protocol), "bad": evaluated(annotated, 4, protocol=protocol)}
    runs = [summarise_run(name, report, annotated) for name, report in reports.items()]
    shown, left_out = challenges(runs)
    assert shown == [CLASSES[0], CLASSES[3], CLASSES[8]]  # normal: 4 of 14 frames of the second
    assert left_out == [name for name in CLASSES if name not in shown]
    plot = draw(runs)["by_challenge"]
    assert "left out for lack of sequences: " + ", ".join(name.replace("_", " ") for name in left_out) in plot.svg
    assert all(f"[{report.overall['AUC']:.3f}] {name}" in plot.svg for name, report in reports.items())
    assert all(f">{name.replace('_', ' ')}</text>" in plot.svg for name in shown)
    assert cv2.imdecode(np.frombuffer(plot.png, np.uint8), cv2.IMREAD_COLOR).std() > 5
    assert plot.svg in page_of(reports, annotated)


def test_the_corners_of_a_polygon_are_the_run_s_numbers(annotated, monkeypatch):
    lines = []
    plot = PolarAxes.plot
    monkeypatch.setattr(PolarAxes, "plot", lambda axes, x, y, **more: lines.append(y) or plot(axes, x, y, **more))
    reports = {"good": evaluated(annotated, 99), "bad": evaluated(annotated, 4)}
    draw([summarise_run(name, report, annotated) for name, report in reports.items()])
    for report, line in zip(reports.values(), lines, strict=True):
        values = [report.by_challenge[CLASSES[number]]["AO"] for number in (0, 3, 8, 9)]
        assert line == [*values, values[0]]


def test_two_classes_make_no_polygon(annotated, tmp_path):
    reports = {"mine": evaluated(annotated[1:], 8)}
    files = write_report(reports, annotated[1:], tmp_path, "val")
    assert "by_challenge.tex" in files and "by_challenge.png" not in files
    assert "needs three challenges" in left_out(reports, files) and left_out(reports, ["by_challenge.png"]) == ""
    assert "radar" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "folders, names",
    [
        (["runs/a/evaluation", "runs/b/evaluation"], ["a", "b"]),
        (["results/x/val-1", "results/y/val-2"], ["x/val-1", "y/val-2"]),
        (["one"], ["one"]),
        (["runs/a", "runs/a/b"], ["a", "b"]),
    ],
)
def test_runs_are_called_by_what_tells_them_apart(folders, names):
    assert names_of([Path(folder) for folder in folders]) == names


def test_without_labels_there_is_no_word_of_challenges(synthetic):
    plain = FolderDataset(str(synthetic), "val").sequences
    text = page_of({"mine": evaluated(plain, lost=99)}, plain)
    assert "By challenge" not in text and "The challenge branch" not in text and "Worst moments" not in text


def test_the_tool_reads_results_back(synthetic, sequences, tmp_path):
    evaluated(sequences, 8, tmp_path / "one")
    evaluated(sequences, 99, tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / sequences[1].name)
    report = read_back(tmp_path / "one", FolderDataset(str(synthetic), "val", f"{synthetic}/annotations"))
    assert report.scores[0].result.moments.keys() == {8}
    command = [sys.executable, "-m", "hiptrack", "report", str(tmp_path / "one"), str(tmp_path / "two")]
    data = ["--root", str(synthetic), "--split", "val", "--annotations", f"{synthetic}/annotations"]
    out = ["--out", str(tmp_path / "out")]
    done = subprocess.run([*command, *data, *out], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "report.html").read_text()
    assert f"two: {sequences[1].name}: it has no result files here" in text and "frame 8: lost" in text
    printed = [line.split() for line in done.stdout.splitlines()]
    assert ["tracker", "sequences", "frames", "AO", "SR0.5", "SR0.75"] in [line[:6] for line in printed]
    assert ["two", "(1", "failed)", "1", "14"] in [line[:5] for line in printed]
    assert ["challenge", "tracker", "frames", "sequences", "AO", "SR0.5", "SR0.75"] in printed
    absent = subprocess.run([*command, "nowhere", *data], capture_output=True, text=True, timeout=120, check=False)
    assert absent.returncode == 1 and "not found: nowhere" in absent.stderr
    shutil.rmtree(tmp_path / "two" / sequences[0].name)
    empty = subprocess.run([*command, *data], capture_output=True, text=True, timeout=120, check=False)
    assert empty.returncode == 1 and "two holds no result of the 2 sequences of" in empty.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_shows_it_and_sorts(sequences, tmp_path):
    write_report({"one": evaluated(sequences, lost=8), "two": evaluated(sequences, lost=5)}, sequences, tmp_path, "val")
    text = (tmp_path / "report.html").read_text()
    probe = """<script>
    const table = [...document.querySelectorAll("table.sorts")].find(t => t.querySelector("th.by").textContent === "sequence");
    const names = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
    const before = names(); table.querySelector("th.by").click(); const down = names();
    table.querySelector("th.by").click(); const up = names();
    const images = [...document.images].map(image => image.src.length > 1000);
    document.title = JSON.stringify({before, down, up, images});
    </script>"""
    (tmp_path / "probe.html").write_text(text.replace("</body>", f"{probe}</body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}/profile"]
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", f"file://{tmp_path}/probe.html"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    seen = json.loads(re.search("<title>(.*?)</title>", done.stdout).group(1))
    names = sorted(sequence.name for sequence in sequences)
    assert seen["up"] == names and seen["down"] == names[::-1]
    assert len(seen["images"]) == 4 and all(seen["images"])
