"""The frames most worth labelling."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from toy import save_toy

from hiptrack.data.folders import FolderDataset
from hiptrack.errors import ConfigError
from hiptrack.evaluation.rank import rank_frames, uncertainty
from hiptrack.taxonomy import CLASSES

SURE, EVEN = np.eye(10)[3:4], np.full((1, 10), 0.1)
MIXED = np.array([[0.5, 0.3, 0.2, *[0] * 7]])


@pytest.mark.parametrize(
    "by, mixed",
    [
        ("confidence", 0.5 * 10 / 9),
        ("margin", 0.8),
        ("entropy", -(0.5 * np.log10(0.5) + 0.3 * np.log10(0.3) + 0.2 * np.log10(0.2))),
    ],
)
def test_uncertainty_goes_from_certain_to_even(by, mixed):
    values = uncertainty(np.concatenate((SURE, EVEN, MIXED)), by, False)
    assert values == pytest.approx([0, 1, mixed])


@pytest.mark.parametrize("by", ["confidence", "margin", "entropy"])
def test_independent_classes_are_each_present_or_absent(by):
    values = uncertainty(np.array([[0, 1, 0.0], [0.5, 0.5, 0.5], [0.5, 1, 0]]), by, True)
    assert values == pytest.approx([0, 1, 1 / 3])


class Scripted:
    """Follows the true boxes, save from the frame `lost` on; the uncertainty of frame n (from 1) is doubts[n]."""

    multi_label, classes = False, CLASSES

    def __init__(self, sequence, doubts, lost=None):
        self.sequence, self.doubts, self.lost = sequence, doubts, lost

    def init(self, frame, box):
        self.frame = 1

    def update(self, frame):
        self.frame += 1
        box = self.sequence.boxes_xywh[self.frame - 1] + (1000 if self.lost and self.frame >= self.lost else 0)
        challenge = np.zeros(10)
        challenge[:2] = 1 - self.doubts.get(self.frame, 0.0), self.doubts.get(self.frame, 0.0)
        return SimpleNamespace(box=box, score=1.0, challenge=challenge)


def ranked(sequence, doubts, gap=1, lost=None):
    ranking = rank_frames(Scripted(sequence, doubts, lost), [sequence], "confidence", gap)
    return [found.frame for found in ranking.candidates], ranking


def unlabelled(root):
    return FolderDataset(str(root), "val").sequences[0]


def test_least_certain_frames_come_first_and_neighbours_are_left_out(synthetic):
    sequence = unlabelled(synthetic)
    doubts = {4: 0.3, 5: 0.45, 6: 0.4, 10: 0.2}
    assert ranked(sequence, doubts)[0][:4] == [5, 6, 4, 10]
    frames, ranking = ranked(sequence, doubts, gap=4)
    assert frames[:2] == [5, 10] and all(abs(a - b) >= 4 for a in frames for b in frames if a != b)
    first = ranking.candidates[0]
    assert first.file == sequence.frames[4] and first.challenge == CLASSES[0]
    assert first.probability == pytest.approx(0.55) and first.uncertainty == pytest.approx(0.5)


def test_the_first_frame_and_labelled_ones_are_none(synthetic):
    frames, ranking = ranked(unlabelled(synthetic), {1: 0.5})
    assert 1 not in frames and len(frames) == 13 and ranking.labelled == 0
    labelled = FolderDataset(str(synthetic), "val", f"{synthetic}/annotations").sequences[0]
    frames, ranking = ranked(labelled, {})
    assert not frames and ranking.labelled == 13


def test_frames_after_the_target_was_lost_are_counted_not_listed(synthetic):
    frames, ranking = ranked(unlabelled(synthetic), {12: 0.5}, lost=10)
    assert sorted(frames) == list(range(2, 10)) and ranking.lost == 5


def test_a_sequence_that_fails_is_named_and_the_others_are_ranked(synthetic, tmp_path):
    shutil.copytree(synthetic / "val", tmp_path / "val")
    sequences = FolderDataset(str(tmp_path), "val").sequences
    Path(sequences[0].frames[4]).write_bytes(b"")
    ranking = rank_frames(Scripted(sequences[1], {}), sequences)
    assert {found.sequence for found in ranking.candidates} == {sequences[1].name}
    assert len(ranking.failures) == 1 and sequences[0].frames[4] in ranking.failures[0]


def test_an_unknown_measure_is_an_error():
    with pytest.raises(ValueError, match="unknown measure 'doubt'"):
        uncertainty(EVEN, "doubt", False)


def test_a_gap_of_nothing_is_an_error(synthetic):
    with pytest.raises(ConfigError, match="--gap 0: at least 1"):
        ranked(unlabelled(synthetic), {}, gap=0)


def test_the_tool_prints_and_writes_the_list(synthetic, tmp_path):
    weights, out = tmp_path / "model.safetensors", tmp_path / "frames.csv"
    save_toy(weights, challenge="ChallengeBranch")
    shutil.copytree(synthetic / "val", tmp_path / "test")
    for path in (tmp_path / "test").glob("*/groundtruth.txt"):  # no truth: the tracker is not known to lose anything
        path.write_text(path.read_text().splitlines()[0] + "\n")
    command = [sys.executable, "-m", "hiptrack", "rank-hard", "--checkpoint", str(weights)]
    arguments = ["--root", str(tmp_path), "--split", "test", "--gap", "3", "--by", "entropy", "--out", str(out)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(out.open()))
    values = [float(row["uncertainty"]) for row in rows]
    assert len(values) >= 6 and values == sorted(values, reverse=True)
    assert f"{len(rows)} frames at least 3 apart; left out: 0 that have labels" in done.stdout
    assert rows[0]["file"] in done.stdout
    off = subprocess.run(
        [*command, *arguments, "Tracker.branch=off"], capture_output=True, text=True, timeout=300, check=False
    )
    assert off.returncode == 1 and "Tracker.branch = 'off'" in off.stderr and "Traceback" not in off.stderr
