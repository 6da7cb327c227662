"""Pictures: what is drawn where, and that files are whole."""

import cv2
import matplotlib
import numpy as np
import pytest

from hiptrack import pictures
from hiptrack.pictures import PREDICTED_COLOUR, TRUTH_COLOUR, Shot

GREY = np.full((60, 80, 3), 128, np.uint8)


def has_colour(picture, colour):
    return (np.abs(picture.astype(int) - colour).max(-1) < 40).any()


def test_a_box_is_outlined_and_the_frame_is_kept():
    frame = GREY.copy()
    picture = pictures.draw_box(frame, (10, 20, 30, 15), (255, 0, 0))
    np.testing.assert_array_equal(frame, GREY)
    changed = np.argwhere((picture != GREY).any(-1))
    assert changed.min(0).tolist() == pytest.approx([20, 10], abs=1)
    assert changed.max(0).tolist() == pytest.approx([35, 40], abs=1)
    np.testing.assert_array_equal(picture[27, 25], GREY[27, 25])
    assert has_colour(picture, (255, 0, 0)) and not has_colour(picture, (0, 0, 255))


@pytest.mark.parametrize("box", [(-1e9, -1e9, 2e9, 2e9), (1000, 1000, 5, 5), (-20, 10, 30, 10), (5, 5, 0, 0)])
def test_boxes_outside_are_drawn_as_far_as_they_are_seen(box):
    assert pictures.draw_box(GREY, box, (255, 0, 0)).shape == GREY.shape


def test_a_frame_that_is_not_contiguous_can_be_drawn_on():
    assert has_colour(pictures.draw_box(GREY[:, ::-1], (10, 10, 20, 20), (255, 0, 0)), (255, 0, 0))


def test_the_sheet_holds_every_frame_with_its_boxes():
    wide = np.full((50, 300, 3), 90, np.uint8)
    rows = [
        [Shot(GREY, (10, 10, 30, 20), (12, 12, 30, 20), "boat 1")] * 3,
        [Shot(wide, (10, 10, 30, 20), None, "car 1")],
    ]
    sheet = pictures.picture_sheet(rows, cell_size=(120, 90))
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 3 * 120 and sheet.shape[0] >= 2 * 90
    half = len(sheet) // 2
    for column in range(3):
        cell = sheet[20:half, 120 * column : 120 * (column + 1)]
        assert has_colour(cell, TRUTH_COLOUR) and has_colour(cell, PREDICTED_COLOUR)
    below = sheet[half + 20 :]
    assert has_colour(below[:, :120], TRUTH_COLOUR) and not has_colour(below, PREDICTED_COLOUR)
    assert not below[:, 120:].any()


def test_the_score_map_colours_its_peak_and_leaves_the_rest():
    scores = np.zeros((8, 8), np.float32)
    scores[2, 6] = 0.3
    picture = pictures.score_overlay(GREY, scores)
    assert picture.shape == GREY.shape and picture.dtype == np.uint8
    difference = np.abs(picture.astype(int) - GREY).sum(-1)
    row, column = np.unravel_index(difference.argmax(), difference.shape)
    assert row == pytest.approx(60 * 2.5 / 8, abs=5) and column == pytest.approx(80 * 6.5 / 8, abs=6)
    np.testing.assert_array_equal(picture[40:, :40], GREY[40:, :40])
    np.testing.assert_array_equal(pictures.score_overlay(GREY, np.zeros((8, 8))), GREY)
    np.testing.assert_array_equal(pictures.score_overlay(GREY, np.full((8, 8), np.nan)), GREY)


def test_a_png_reads_back_in_its_colours(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    pictures.write_png(picture, tmp_path / "new" / "picture.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "picture.png"))[..., ::-1], picture)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]


def test_plots_are_written_whole_and_replaced(tmp_path):
    metrics = {f"Loss/{name}": [(step, 1 / (step + 1)) for step in range(50)] for name in "abcd"}
    path = tmp_path / "curves.png"
    for _ in range(2):
        pictures.plot_curves(metrics | {"empty": []}, path)
    picture = cv2.imread(str(path))
    assert picture is not None and picture.std() > 5
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_a_matplotlibrc_changes_no_chart_and_a_name_is_no_formula(tmp_path):
    metrics = {"Loss/a$\\frac$": [(1, 0.5), (2, 0.25)]}
    pictures.plot_curves(metrics, tmp_path / "plain.png")
    with matplotlib.rc_context({"text.usetex": True, "lines.linewidth": 9, "font.size": 30, "axes.facecolor": "red"}):
        pictures.plot_curves(metrics, tmp_path / "other.png")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "other.png").read_bytes()
