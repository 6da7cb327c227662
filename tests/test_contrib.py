"""OpenCV's trackers in a process of their own: results as of any other tracker, and errors that name what failed."""

import sys

import cv2
import numpy as np
import pytest
from toy import moving_target

from hiptrack.data.sequences import FolderDataset
from hiptrack.errors import HiptrackError, NotFoundError
from hiptrack.tracking.baselines import StillBox
from hiptrack.tracking.contrib import evaluate_contrib
from hiptrack.tracking.evaluate import evaluate_sequences
from hiptrack.tracking.report_text import compare_table


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
    """MIL is in plain OpenCV, too, so that this interpreter serves."""
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


def test_what_fails_is_named(dataset, tmp_path):
    with pytest.raises(HiptrackError, match="film0: OpenCV's Nothing failed: .* has no TrackerNothing; opencv-contrib"):
        evaluate_contrib("Nothing", sys.executable, dataset, tmp_path / "nothing")
    with pytest.raises(NotFoundError, match="make compare-opencv"):
        evaluate_contrib("KCF", tmp_path / "python", dataset, tmp_path / "missing")
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(HiptrackError, match=r"film0: the process of OpenCV's KCF ended \(exit code 3\)"):
        evaluate_contrib("KCF", broken, dataset, tmp_path / "broken")
    (tmp_path / "data" / "film1" / "00000005.png").write_bytes(b"")
    with pytest.raises(HiptrackError, match=r"film1: OpenCV's MIL failed: .*00000005\.png"):
        evaluate_contrib("MIL", sys.executable, dataset, tmp_path / "results")
    assert (tmp_path / "results" / "film0" / "film0_001.txt").exists()  # what was tracked before is kept
