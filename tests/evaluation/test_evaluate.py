"""Running trackers over sequences: sharding, failures, result files, resuming, reports."""

import errno
import json
import logging
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from one_sequence import run_sequence

from hiptrack.data.labels import FrameLabels, draw_fixed
from hiptrack.data.sequence import Sequence
from hiptrack.errors import DataError, HiptrackError
from hiptrack.evaluation import score as scoring
from hiptrack.evaluation.score import evaluate_sequences, shard
from hiptrack.evaluation.table import format_table
from hiptrack.taxonomy import CLASSES, TEN

LENGTHS = (7, 3, 12, 5, 4)


class Drifter:
    """Moves the box by a third of a pixel a frame and names class `frame % 10`, from its own state alone."""

    def __init__(self, branch=True, breaks_at=None, output=None):
        self.branch, self.breaks_at, self.output = branch, breaks_at, output or {}
        self.tracked = []

    def init(self, frame_rgb, box_xywh):
        assert frame_rgb.dtype == np.uint8 and frame_rgb.shape[2] == 3
        self.box, self.frame = np.array(box_xywh), 0
        self.tracked.append(len(self.tracked))

    def update(self, frame_rgb):
        self.frame += 1
        if self.frame == self.breaks_at:
            raise RuntimeError("the network fell over")
        self.box = self.box + [1 / 3, -1 / 7, 0, 0]
        challenge = np.full(10, 0.05) + 0.5 * (np.arange(10) == self.frame % 10) if self.branch else None
        result = {"box": self.box, "score": 1 / (1 + self.frame), "challenge": challenge} | self.output
        return SimpleNamespace(**result)


@pytest.fixture
def sequences(tmp_path):
    """Five sequences of 80x60 pictures with labels; the third has hidden frames."""
    rng = np.random.default_rng(0)
    made = []
    for index, length in enumerate(LENGTHS):
        folder = tmp_path / "data" / f"seq{index}"
        folder.mkdir(parents=True)
        frames = []
        for frame in range(length):
            frames.append(str(folder / f"{frame + 1:08d}.png"))
            cv2.imwrite(frames[-1], rng.integers(0, 255, (60, 80, 3), np.uint8))
        drift = rng.normal(0, 2, (length, 4)).cumsum(0) * [1, 1, 0, 0]
        boxes = np.array([20.123456 + index, 15, 20, 18]) + drift
        cover = np.full(length, 8)
        if index == 2:
            cover[4:7] = 0
        labels = FrameLabels(rng.random((length, 9)) < 0.2, rng.random(length) < 0.8, TEN)
        made.append(Sequence(f"seq{index}", tuple(frames), boxes, cover > 0, cover, labels))
    return made


def untimed(report):
    """The report's numbers without those of the clock."""
    values = scoring.as_dict(report)
    del values["speed"]
    for numbers in values["sequences"].values():
        for name in ("resumed", "fps_model", "fps_end_to_end", "update_ms_p50", "update_ms_p95"):
            del numbers[name]
    return values


def in_processes(count, sequences, trackers=None, **options):
    """The reports of `count` processes, each a thread, with a gather that joins their lists in order."""
    barrier, parts = threading.Barrier(count, timeout=60), [None] * count
    trackers = trackers or [Drifter() for _ in range(count)]

    def evaluate_share(index):
        def gather(part):
            parts[index] = part
            barrier.wait()
            joined = [item for part in parts for item in part]
            barrier.wait()
            return joined

        options_here = {**options, "process_index": index, "num_processes": count, "gather": gather}
        return evaluate_sequences(trackers[index], sequences, **options_here)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(evaluate_share, range(count)))


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7, 50])
def test_shards_cover_every_sequence_once_and_are_balanced(processes):
    lengths = np.random.default_rng(processes).integers(1, 500, 40).tolist()
    shards = shard(lengths, processes)
    assert len(shards) == processes
    assert sorted(index for part in shards for index in part) == list(range(40))
    loads = [sum(lengths[index] for index in part) for part in shards]
    assert max(loads) - min(loads) <= max(lengths)
    for part in shards:
        assert [lengths[index] for index in part] == sorted((lengths[index] for index in part), reverse=True)
    assert shards == shard(lengths, processes)


def test_shards_of_equal_sequences_are_equal():
    assert [len(part) for part in shard([10] * 12, 4)] == [3, 3, 3, 3]
    assert shard([], 2) == [[], []]


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_several_processes_give_the_report_of_one(sequences, processes):
    single = evaluate_sequences(Drifter(), sequences)
    for report in in_processes(processes, sequences):
        assert untimed(report) == untimed(single)
        assert [score.result.name for score in report.scores] == [sequence.name for sequence in sequences]


def test_a_full_disk_ends_it_at_once_and_it_goes_on_afterwards(sequences, tmp_path, monkeypatch):
    whole, out, tracker, written = evaluate_sequences(Drifter(), sequences), tmp_path / "out", Drifter(), []
    fsync = os.fsync

    def full(handle):
        written.append(handle)
        if len(written) > 10:  # two for each file: in the second file of the second sequence
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(HiptrackError) as raised:
            evaluate_sequences(tracker, sequences, out, "key")
    told = str(raised.value)
    assert (
        f"{out / 'seq0' / 'seq0_time.txt'}: the result" in told
        and "(No space left on device)" in told
        and "start the same command again" in told
    )
    assert len(tracker.tracked) == 2 and not list(out.rglob("*.tmp"))
    again = Drifter()
    assert untimed(evaluate_sequences(again, sequences, out, "key")) == untimed(whole)
    assert len(again.tracked) == 4


def test_processes_that_lose_a_sequence_are_an_error(sequences):
    with pytest.raises(HiptrackError, match="2 outcomes came back for 5 sequences"):
        evaluate_sequences(Drifter(), sequences, num_processes=2, gather=lambda outcomes: outcomes)


def test_run_sequence_gives_everything_per_frame(sequences):
    result = run_sequence(Drifter(), sequences[0])
    assert result.name == "seq0" and result.image_size == (80, 60)
    assert result.boxes_xywh.shape == (7, 4) and result.challenges.shape == (7, 10)
    np.testing.assert_array_equal(result.boxes_xywh[0], sequences[0].boxes_xywh[0])
    np.testing.assert_allclose(result.boxes_xywh[6] - result.boxes_xywh[0], [2, -6 / 7, 0, 0])
    np.testing.assert_allclose(result.scores, 1 / (1 + np.arange(7)))
    assert result.seconds.shape == (7,) and (result.seconds >= 0).all()
    assert result.seconds.sum() < result.end_to_end_seconds
    assert run_sequence(Drifter(branch=False), sequences[0]).challenges is None


def test_result_files_have_got10k_form(sequences, tmp_path):
    results = tmp_path / "results"
    report = evaluate_sequences(Drifter(), sequences, results, "abc")
    for sequence, score in zip(sequences, report.scores, strict=True):
        folder = results / sequence.name
        lines = (folder / f"{sequence.name}_001.txt").read_text().split("\n")
        assert lines.pop() == ""
        boxes = sequence.boxes_xywh[0] + np.arange(len(sequence))[:, None] * [1 / 3, -1 / 7, 0, 0]
        assert lines == [f"{x:.3f},{y:.3f},{w:.3f},{h:.3f}" for x, y, w, h in boxes]
        np.testing.assert_array_equal(
            np.loadtxt(folder / f"{sequence.name}_001.txt", delimiter=","), score.result.boxes_xywh
        )
        seconds = (folder / f"{sequence.name}_time.txt").read_text().split()
        assert len(seconds) == len(sequence)
        assert all(len(text.split(".")[1]) == 8 and float(text) >= 0 for text in seconds)
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            f"{sequence.name}_{end}" for end in ("001.txt", "time.txt", "details.npz")
        )
    assert json.loads((results / "key.json").read_text()) == {"key": "abc", "taxonomy": TEN.as_dict()}


def test_files_and_no_files_give_the_same_numbers(sequences, tmp_path):
    written = evaluate_sequences(Drifter(), sequences, tmp_path / "results", "abc")
    assert untimed(written) == untimed(evaluate_sequences(Drifter(), sequences))


def test_finished_sequences_are_read_back_with_identical_numbers(sequences, tmp_path, caplog):
    results = tmp_path / "results"
    evaluate_sequences(Drifter(), sequences[:2], results, "abc")
    tracker = Drifter()
    with caplog.at_level(logging.INFO, "hiptrack"):
        partly = evaluate_sequences(tracker, sequences, results, "abc")
    assert len(tracker.tracked) == 3
    assert [score.resumed for score in partly.scores] == [True, True, False, False, False]
    assert "2 of 5 sequences were finished before" in caplog.text
    assert "2 of 5 sequences were finished before" in format_table(partly)

    tracker = Drifter()
    again = evaluate_sequences(tracker, sequences, results, "abc")
    assert not tracker.tracked
    expected, values = scoring.as_dict(partly), scoring.as_dict(again)
    for numbers in (*expected["sequences"].values(), *values["sequences"].values()):
        del numbers["resumed"]
    assert values == expected
    assert untimed(again) == untimed(evaluate_sequences(Drifter(), sequences))


def test_processes_share_a_results_folder(sequences, tmp_path):
    reports = in_processes(3, sequences, results_dir=tmp_path / "results", key="abc")
    for report in reports:
        assert untimed(report) == untimed(evaluate_sequences(Drifter(), sequences))


def test_processes_share_what_is_left_of_a_broken_evaluation(sequences, tmp_path):
    evaluate_sequences(Drifter(), [sequences[0], sequences[2]], tmp_path / "results", "abc")
    trackers = [Drifter(), Drifter()]
    reports = in_processes(2, sequences, trackers, results_dir=tmp_path / "results", key="abc")
    assert sorted(len(tracker.tracked) for tracker in trackers) == [1, 2]  # of 5, 4 and 3 frames
    for report in reports:
        assert untimed(report) == untimed(evaluate_sequences(Drifter(), sequences))


def test_results_of_another_key_are_an_error_and_stay(sequences, tmp_path):
    results = tmp_path / "results"
    evaluate_sequences(Drifter(), sequences, results, "abc")
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=r"key abc; this evaluation has xyz.*Choose another results folder"):
        evaluate_sequences(Drifter(), sequences, results, "xyz")
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before


def test_results_of_unknown_making_are_an_error(sequences, tmp_path):
    results = tmp_path / "results"
    evaluate_sequences(Drifter(), sequences, results, "abc")
    (results / "key.json").write_text("{}")
    with pytest.raises(DataError, match="key.json is not of the form"):
        evaluate_sequences(Drifter(), sequences, results, "abc")
    (results / "key.json").unlink()
    with pytest.raises(DataError, match="no key.json"):
        evaluate_sequences(Drifter(), sequences, results, "abc")


def test_a_results_folder_that_cannot_be_used_is_an_error(sequences, tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(DataError, match="cannot be used"):
        evaluate_sequences(Drifter(), sequences, tmp_path / "results", "abc")


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("seq1_001.txt", lambda data: data[: len(data) // 2], "seq1_001.txt.*(lines|is)"),
        ("seq1_001.txt", lambda data: data.replace(b",", b"\t"), r"seq1_001.txt:1: is .*expected 4 finite"),
        ("seq1_001.txt", lambda data: b"nan" + data[data.index(b",") :], r"seq1_001.txt:1: is 'nan,"),
        ("seq1_001.txt", lambda data: b"1.000" + data[data.index(b",") :], r"seq1_001.txt:1: .*other data"),
        ("seq1_001.txt", lambda data: b"\xff\xfe" + data, "seq1_001.txt: cannot be read"),
        ("seq1_time.txt", lambda data: data + data, "seq1_time.txt: has 6 lines, but the sequence has 3"),
        ("seq1_details.npz", lambda data: data[: len(data) // 2], "seq1_details.npz: cannot be read"),
        ("seq1_details.npz", lambda data: b"", "seq1_details.npz: cannot be read"),
    ],
)
def test_a_damaged_result_file_is_named_and_kept(sequences, tmp_path, name, damage, message):
    results = tmp_path / "results"
    evaluate_sequences(Drifter(), sequences, results, "abc")
    path = results / "seq1" / name
    path.write_bytes(damage(path.read_bytes()))
    damaged = path.read_bytes()
    report = evaluate_sequences(Drifter(), sequences, results, "abc")
    assert [failed for failed, _ in report.failures] == ["seq1"]
    assert len(report.scores) == 4
    assert re.search(message, report.failures[0][1])
    assert path.read_bytes() == damaged


def test_results_of_other_data_under_the_same_key_are_not_reused(sequences, tmp_path):
    results = tmp_path / "results"
    evaluate_sequences(Drifter(), sequences, results, "abc")
    shorter = sequences[2]
    shorter = replace(shorter, frames=shorter.frames[:9], boxes_xywh=shorter.boxes_xywh[:9], cover=shorter.cover[:9])
    report = evaluate_sequences(Drifter(), [shorter], results, "abc")
    assert "12 lines, but the sequence has 9 frames" in report.failures[0][1]


def test_a_sequence_without_all_of_its_files_is_tracked_again(sequences, tmp_path):
    results = tmp_path / "results"
    evaluate_sequences(Drifter(), sequences, results, "abc")
    (results / "seq3" / "seq3_001.txt").unlink()
    tracker = Drifter()
    report = evaluate_sequences(tracker, sequences, results, "abc")
    assert len(tracker.tracked) == 1 and not report.failures
    assert (results / "seq3" / "seq3_001.txt").exists()


def test_a_failed_sequence_is_named_and_the_others_finish(sequences, tmp_path):
    results = tmp_path / "results"
    report = evaluate_sequences(Drifter(breaks_at=10), sequences, results, "abc")
    assert report.failures == (("seq2", "RuntimeError: the network fell over"),)
    assert [score.result.name for score in report.scores] == ["seq0", "seq1", "seq3", "seq4"]
    assert not (results / "seq2").exists()
    assert (
        untimed(report)["overall"]
        == untimed(evaluate_sequences(Drifter(), [*sequences[:2], *sequences[3:]]))["overall"]
    )
    assert not scoring.as_dict(report)["complete"]
    table = format_table(report)
    assert "INCOMPLETE: 1 sequence(s) failed" in table and "seq2: RuntimeError: the network fell over" in table
    assert not evaluate_sequences(Drifter(), sequences, results, "abc").failures


def test_an_unreadable_frame_fails_its_sequence(sequences):
    with open(sequences[1].frames[1], "wb") as file:
        file.write(b"no picture")
    report = evaluate_sequences(Drifter(), sequences)
    assert [name for name, _ in report.failures] == ["seq1"]
    assert sequences[1].frames[1] in report.failures[0][1]


def test_every_sequence_failing_still_gives_a_report(sequences):
    report = evaluate_sequences(Drifter(breaks_at=1), sequences)
    assert report.overall is None and len(report.failures) == 5
    assert "INCOMPLETE: 5" in format_table(report)
    assert len(json.loads(json.dumps(scoring.as_dict(report), allow_nan=False))["failures"]) == 5


@pytest.mark.parametrize(
    "output",
    [
        {"box": np.array([1, 2, np.nan, 4])},
        {"box": np.array([1, 2, 3])},
        {"score": np.inf},
        {"challenge": np.full(10, np.nan)},
    ],
)
def test_outputs_that_are_no_numbers_are_named(sequences, output):
    with pytest.raises(HiptrackError, match=r"seq0: in frame 2 \(.*00000002.png\)"):
        run_sequence(Drifter(output=output), sequences[0])


@pytest.mark.parametrize("box", [(1, 2, 0, 4), (1, 2, np.nan, 4)])
def test_a_first_box_that_cannot_be_tracked_is_named(sequences, box):
    sequence = replace(sequences[0], boxes_xywh=np.array([box]))
    with pytest.raises(DataError, match="seq0: the first box"):
        run_sequence(Drifter(), sequence)


def test_nothing_to_evaluate_and_repeated_names_are_errors(sequences):
    with pytest.raises(DataError, match="no sequence to evaluate"):
        evaluate_sequences(Drifter(), [])
    with pytest.raises(DataError, match="name seq1 occurs more than once"):
        evaluate_sequences(Drifter(), [*sequences, sequences[1]])


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_name_that_is_no_folder_name_writes_nothing(sequences, tmp_path, name):
    with pytest.raises(DataError, match="cannot name a result folder"):
        evaluate_sequences(Drifter(), [replace(sequences[0], name=name)], tmp_path / "results", "abc")
    assert not (tmp_path / "results").exists()


def test_a_test_split_is_tracked_and_not_scored(sequences, tmp_path):
    hidden = [replace(sequence, boxes_xywh=sequence.boxes_xywh[:1], labels=None) for sequence in sequences]
    report = evaluate_sequences(Drifter(), hidden, tmp_path / "results", "abc")
    assert report.overall is None and report.success_curve is None and report.classification is None
    assert len((tmp_path / "results" / "seq2" / "seq2_001.txt").read_text().splitlines()) == 12
    assert format_table(report).splitlines()[1].split()[2:5] == ["-", "-", "-"]


def test_a_sequence_hidden_throughout_has_no_overlap_of_its_own(sequences):
    hidden = replace(sequences[1], cover=np.zeros(3, int))
    report = evaluate_sequences(Drifter(), [sequences[0], hidden])
    assert scoring.as_dict(report)["sequences"]["seq1"]["AO"] is None
    assert report.overall == evaluate_sequences(Drifter(), sequences[:1]).overall


def test_classification_counts_labelled_frames_that_were_classified(sequences):
    report = evaluate_sequences(Drifter(), sequences)
    pairs = [
        (draw_fixed(sequence.labels, sequence.name, frame), frame % 10)
        for sequence in sequences
        for frame in range(1, len(sequence))
    ]
    pairs = [(true, predicted) for true, predicted in pairs if true >= 0]
    for true in range(10):
        for predicted in range(10):
            assert report.confusion[true, predicted] == pairs.count((true, predicted))
    classification = scoring.as_dict(report)["classification"]
    assert classification["frames"] == len(pairs)
    assert classification["accuracy"] == sum(true == predicted for true, predicted in pairs) / len(pairs)
    table = format_table(report)
    assert all(name in table for name in CLASSES) and "balanced accuracy" in table


def test_the_numbers_by_challenge_are_in_json_and_table(sequences):
    low_contrast = CLASSES.index("low_contrast")
    for sequence in sequences:
        sequence.labels.flags[:, low_contrast] = False
    report = evaluate_sequences(Drifter(), sequences)
    values = json.loads(json.dumps(scoring.as_dict(report), allow_nan=False))
    assert list(values["by_challenge"]) == list(CLASSES) and values["attribute_sequences"] is None
    blurred = CLASSES.index("motion_blur")
    ious = np.concatenate(
        [
            score.ious[(sequence.labels.flags[:, blurred] & sequence.labels.annotated)[1:][sequence.cover[1:] > 0]]
            for score, sequence in zip(report.scores, sequences, strict=True)
        ]
    )
    row = values["by_challenge"]["motion_blur"]
    assert row["frames"] == len(ious) > 0 and row["AO"] == pytest.approx(ious.mean())
    assert row["SR0.5"] == pytest.approx((ious > 0.5).mean()) and 0 < row["sequences"] <= 5
    printed = [line.split() for line in format_table(report).splitlines()]
    assert ["motion", "blur", str(len(ious)), str(row["sequences"]), f"{row['AO']:.3f}"] in [
        line[:5] for line in printed
    ]
    assert ["low", "contrast", "0", "0", "-", "-", "-"] in printed
    plain = evaluate_sequences(Drifter(), [replace(sequence, labels=None) for sequence in sequences])
    assert scoring.as_dict(plain)["by_challenge"] is None and "challenge" not in format_table(plain)
    assert plain.overall == report.overall
    with pytest.raises(ValueError, match="attribute_sequences is 'all', none of majority, any"):
        evaluate_sequences(Drifter(), sequences, attribute_sequences="all")


def test_no_classification_without_branch_or_labels(sequences):
    assert evaluate_sequences(Drifter(branch=False), sequences).classification is None
    unlabelled = [replace(sequence, labels=None) for sequence in sequences]
    assert evaluate_sequences(Drifter(), unlabelled).classification is None
    blank = FrameLabels(np.zeros((7, 9), bool), np.zeros(7, bool), TEN)
    assert evaluate_sequences(Drifter(), [replace(sequences[0], labels=blank)]).classification is None


def test_no_name_fakes_a_line_of_the_table(sequences):
    odd = [replace(sequences[0], name="a\nall frames  1  1.000\x1b[2J"), replace(sequences[1], name="b\n\x1b")]
    lines = format_table(evaluate_sequences(Drifter(breaks_at=3), odd)).split("\n")
    assert all(line.isprintable() for line in lines) and sum(line.startswith("all frames") for line in lines) == 1
    assert any(line.startswith("  a\\nall frames  1  1.000\\x1b[2J: ") for line in lines)  # it failed


def test_the_table_and_the_json_agree(sequences):
    report = evaluate_sequences(Drifter(), sequences)
    values = json.loads(json.dumps(scoring.as_dict(report), allow_nan=False))
    assert values == scoring.as_dict(report)
    lines = {line.split("  ")[0]: line.split()[-6:] for line in format_table(report).splitlines()[1:7]}
    for name, numbers in values["sequences"].items():
        assert lines[name][:4] == [
            str(numbers["frames"]),
            *(f"{numbers[key]:.3f}" for key in ("AO", "SR0.5", "SR0.75")),
        ]
    assert lines["all frames"][0] == str(sum(LENGTHS))
    assert lines["all frames"][1] == f"{values['overall']['AO']:.3f}"
    assert len(values["success_curve"]) == 101
    assert values["speed"]["fps_model"] > values["speed"]["fps_end_to_end"] > 0
