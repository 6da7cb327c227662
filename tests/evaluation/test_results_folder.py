"""A results folder stays usable when the set of sequences changes, and never gives a result of other data."""

import json
import os
import shutil

import pytest
from accelerate.state import AcceleratorState
from toy import save_toy

from hiptrack import config
from hiptrack.data.folders import FolderDataset
from hiptrack.data.image_heads import JPEG_END
from hiptrack.errors import DataError
from hiptrack.evaluation.evaluate import EvaluationOptions, evaluate
from hiptrack.evaluation.score import read_back

FIRST, SECOND = "world_val_0001", "world_val_0002"


@pytest.fixture
def run(synthetic, tmp_path, monkeypatch, clean_gin):
    """run(names, *overrides): the Evaluation of these sequences of a copy of the data, as `hiptrack eval` does it."""
    save_toy(tmp_path / "toy.safetensors")
    shutil.copytree(synthetic / "val", tmp_path / "data" / "val")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def run(names, *overrides, out=None):
        config.load(["gin/eval/tracker.gin"], overrides, root="evaluate")
        data = FolderDataset("data", "val", include=names)
        return evaluate(EvaluationOptions(tmp_path / "toy.safetensors", data, out))

    yield run
    AcceleratorState._reset_state(reset_partial_state=True)


def files(folder):
    return {path: path.read_bytes() for path in folder.glob("*/*")}


def resumed(found):
    return {score.result.name: score.resumed for score in found.report.scores}


def test_a_sequence_more_or_less_leaves_the_others_results(run):
    one = run([FIRST])
    before = files(one.folder)
    both = run([FIRST, SECOND])
    assert both.folder == one.folder and resumed(both) == {FIRST: True, SECOND: False}
    assert before.items() <= files(both.folder).items()
    assert set(json.loads((both.folder / "report.json").read_text())["sequences"]) == {FIRST, SECOND}
    other = run([SECOND])
    assert resumed(other) == {SECOND: True} and other.folder == one.folder
    assert set(json.loads((other.folder / "report.json").read_text())["sequences"]) == {SECOND}
    assert other.report.overall == pytest.approx(run([SECOND], out=one.folder / "anew").report.overall)


def test_another_configuration_goes_elsewhere(run):
    one, other = run([FIRST]), run([FIRST], "Tracker.margin=3")
    assert other.folder != one.folder and other.folder.name.startswith("data-val-")
    with pytest.raises(DataError, match="another checkpoint or configuration"):
        run([FIRST], "Tracker.margin=3", out=one.folder)


@pytest.mark.parametrize("change", ["box", "frame", "image"])
def test_a_sequence_that_changed_is_named_and_its_result_stays(run, tmp_path, change):
    """By less than its result's text form tells; then it is tracked where the earlier result was moved away."""
    out = run([FIRST, SECOND]).folder
    folder = tmp_path / "data" / "val" / FIRST
    if change == "box":
        lines = (folder / "groundtruth.txt").read_text().splitlines()
        x, rest = lines[0].split(",", 1)
        lines[0] = f"{float(x) + 1e-4:.4f},{rest}"
        (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    elif change == "image":
        image = folder / "00000007.jpg"
        before = image.stat()
        image.write_bytes(image.read_bytes()[:-9] + b"another" + JPEG_END)
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert image.stat().st_size == before.st_size
    else:
        (folder / "00000014.jpg").rename(folder / "00000015.jpg")
    before = files(out)
    found = run([FIRST, SECOND])
    ((name, message),) = found.report.failures
    assert name == FIRST and f"Move {out / FIRST} away to have it tracked again" in message.replace(f"{tmp_path}/", "")
    assert resumed(found) == {SECOND: True} and before == files(out)
    assert [name for name, _ in read_back(out, FolderDataset("data", "val")).failures] == [FIRST]
    (out / FIRST).rename(tmp_path / "away")
    assert resumed(run([FIRST, SECOND])) == {FIRST: False, SECOND: True}


def test_results_of_another_version_of_the_code_are_not_taken_up(run, monkeypatch):
    one = run([FIRST])
    monkeypatch.setattr("hiptrack.evaluation.evaluate.code_identity", lambda: "another version")
    assert run([FIRST]).folder != one.folder
    with pytest.raises(DataError, match="another version of hiptrack"):
        run([FIRST], out=one.folder)
