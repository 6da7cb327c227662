"""OpenCV's trackers in a process of their own: results as of any other tracker, and errors that name what failed."""

import sys

import cv2
import numpy as np
import pytest
from toy import moving_target, save_toy

from hiptrack.cli import compare_opencv
from hiptrack.data.folders import FolderDataset
from hiptrack.errors import HiptrackError, NotFoundError
from hiptrack.evaluation import contrib_worker
from hiptrack.evaluation.baselines import StillBox, evaluate_contrib
from hiptrack.evaluation.score import evaluate_sequences
from hiptrack.evaluation.table import compare_table


@pytest.fixture
def dataset(tmp_path):
    """Two films whose targets wander away from their first boxes; the boxes of the second are not known."""
    for number in range(2):
        folder = tmp_path / "data" / f"film{number}"
        folder.mkdir(parents=True)
        pictures, box = moving_target(8, seed=number)
        for frame, picture in enumerate(pictures, 1):
            cv2.imwrite(str(folder / f"{frame:08d}.png"), picture[..., ::-1])
        lines = [",".join(map(str, box + [4 * frame * (number == 0), 0, 0, 0])) for frame in range(8)]
        (folder / "groundtruth.txt").write_text("\n".join(lines))
    return FolderDataset(str(tmp_path / "data"))


def test_its_boxes_are_scored_as_those_of_any_tracker(dataset, tmp_path):
    """MIL is in plain OpenCV, so that this interpreter serves."""
    report = evaluate_contrib("MIL", sys.executable, dataset, tmp_path / "results")
    assert not report.failures and [len(score.result.boxes_xywh) for score in report.scores] == [8, 8]
    for score, sequence in zip(report.scores, dataset.sequences, strict=True):
        assert np.array_equal(score.result.boxes_xywh[0], sequence.boxes_xywh[0])
        assert score.result.image_size == (120, 90) and (score.result.seconds > 0).all()
    file = tmp_path / "results" / "film0" / "film0_001.txt"
    assert len(file.read_text().splitlines()) == 8
    kept = file.stat().st_mtime_ns
    again = evaluate_contrib("MIL", sys.executable, dataset, tmp_path / "results")
    assert again.overall == report.overall and file.stat().st_mtime_ns == kept  # read back
    lines = compare_table({"MIL": report, "still box": evaluate_sequences(StillBox(), dataset.sequences)}).splitlines()
    assert lines[0].split()[:4] == ["tracker", "AO", "SR0.5", "SR0.75"]
    assert lines[1].split()[:2] == ["MIL", f"{report.overall['AO']:.3f}"] and lines[2].startswith("still box")


def test_a_sequence_that_fails_is_named_and_the_others_are_tracked(dataset, tmp_path, caplog):
    (tmp_path / "data" / "film0" / "00000005.png").write_bytes(b"")
    report = evaluate_contrib("MIL", sys.executable, dataset, tmp_path / "results")
    ((name, message),) = report.failures
    assert name == "film0" and message.startswith("film0: OpenCV's MIL failed: ") and "00000005.png" in message
    assert [score.result.name for score in report.scores] == ["film1"] and message in caplog.text
    cv2.imwrite(str(tmp_path / "data" / "film1" / "00000003.png"), np.zeros((50, 60, 3), np.uint8))
    nothing = evaluate_contrib("MIL", sys.executable, dataset, tmp_path / "none")
    assert dict(nothing.failures)["film1"].endswith("the frame has 60x50 pixels, the first 120x90")
    assert compare_table({"MIL": nothing}).splitlines()[1].startswith("MIL (2 failed)  ")


def test_a_crash_of_opencv_is_the_failure_of_its_sequence(dataset, tmp_path):
    crashes = script(tmp_path / "python", "kill -SEGV $$")
    report = evaluate_contrib("KCF", crashes, dataset, tmp_path / "results")
    assert report.failures[1] == ("film1", "film1: OpenCV's KCF crashed (signal 11)")


def test_an_interpreter_that_cannot_serve_is_named(dataset, tmp_path):
    with pytest.raises(HiptrackError, match=r"\(exit code 1\): OpenCV .* has no TrackerNothing; opencv-contrib"):
        evaluate_contrib("Nothing", sys.executable, dataset, tmp_path / "nothing")
    with pytest.raises(NotFoundError, match="make compare-opencv"):
        evaluate_contrib("KCF", tmp_path / "python", dataset, tmp_path / "missing")
    broken = script(tmp_path / "python", "echo no cv2 here >&2; exit 3")
    with pytest.raises(HiptrackError, match=rf"KCF cannot be run by {broken} \(exit code 3\): no cv2 here"):
        evaluate_contrib("KCF", broken, dataset, tmp_path / "broken")
    broken.write_text("neither a program nor a script")
    with pytest.raises(HiptrackError, match=f"{broken} cannot be started"):
        evaluate_contrib("KCF", broken, dataset, tmp_path / "broken")


def script(path, line):
    """An interpreter that does nothing but this line of shell."""
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ((10.4, 5.6, 20, 10), [10, 6, 20, 10]),
        ((-5, -5, 2000, 2000), [0, 0, 120, 90]),
        ((119, 40, 9, 9), [119, 40, 1, 9]),
    ],
)
def test_opencv_gets_the_part_of_the_box_that_lies_in_the_image(box, inside):
    assert contrib_worker.window(box, 120, 90) == inside


@pytest.mark.parametrize("box", [(-50, 0, 20, 20), (5, 90, 9, 9), (5, 5, 0.2, 9), (float("nan"), 0, 5, 5)])
def test_a_box_without_a_pixel_is_refused(box):
    with pytest.raises(ValueError):
        contrib_worker.window(box, 120, 90)


@pytest.mark.parametrize("name", ["model", "nano"])
def test_the_command_sets_five_trackers_side_by_side(dataset, tmp_path, monkeypatch, capsys, name):
    """A stand-in for the environment with opencv-contrib: its trackers keep the box."""
    save_toy(tmp_path / "model.safetensors")
    answers = script(tmp_path / "python", f"exec {sys.executable} {tmp_path / 'answers.py'}")
    (tmp_path / "answers.py").write_text(
        "import json, sys\nprint('a word of a library')\nasked = json.load(sys.stdin)\nn = len(asked['frames'])\n"
        "print(json.dumps({'boxes': [asked['box']] * n, 'seconds': [0.01] * n, 'end_to_end_seconds': 1, 'image_size': [120, 90]}))"
    )
    given = [str(tmp_path / "data"), "--python", str(answers)]
    if name == "model":
        given += ["--checkpoint", str(tmp_path / "model.safetensors")]
    monkeypatch.setattr(sys, "argv", ["compare_opencv.py", *given])
    assert compare_opencv.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["tracker", "AO", "SR0.5", "SR0.75", "frames/s", "end", "to", "end"]
    assert [line.split("  ")[0] for line in lines[1:]] == ["still box", "MIL", "KCF", "CSRT", name]
    assert lines[1].split()[2:5] == lines[3].split()[1:4] and lines[3].split()[4:] == ["100.0", "8.0"]
