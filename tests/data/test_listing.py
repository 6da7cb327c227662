"""What counts as a sequence's folder and frames, and the frames' order."""

import logging
import os
import re

import numpy as np
import pytest
from helpers_data import write_lines, write_sequence

from hiptrack.data import listing
from hiptrack.data.benchmarks import LaSOTDataset
from hiptrack.data.folders import FolderDataset
from hiptrack.data.listing import image_names, subfolders, text_files
from hiptrack.data.reading import read_image_rgb
from hiptrack.errors import DataError
from hiptrack.extras.video.sources import open_source

BOXES = [(1, 2, 10, 8), (2, 2, 10, 8)]


def touched(folder, names, suffix=".jpg"):
    """Empty images in a folder, made in another order than that of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in np.random.default_rng(0).permutation(names):
        (folder / f"{name}{suffix}").touch()
    return str(folder)


# Order


@pytest.mark.parametrize(
    "names",
    [
        ["1.05", "1.10", "1.15", "2.00", "10.05"],  # as many digits everywhere: times
        ["0.1", "0.2", "0.3", "0.4"],
        ["cam0.1", "cam0.2", "cam0.9", "cam0.10", "cam0.11"],  # 0.1 and 0.10 cannot both be decimals
        ["1700000000.5", "1700000000.40", "1700000000.50"],  # nor 0.5 and 0.50
        ["0.0", "0.05", "0.1", "0.15", "0.45", "0.5"],  # 05 and 5 cannot both be numbers
        ["0", "0.25", "0.50", "0.75", "1", "1.25"],
        ["2024.5.1", "2024.5.10", "2024.10.1"],
        ["10.30.5", "10.30.10", "10.31.1"],
        ["img.1", "img.2", "img.10"],
        ["v1.5_2", "v1.5_10", "v1.5_100"],
        ["frame9", "frame10", "frame011"],
        ["cam2.9", "cam2.10", "cam2.11", "cam2.12"],
    ],
)
def test_names_whose_order_is_known(tmp_path, names):
    assert image_names(touched(tmp_path / "a", names)) == [f"{name}.jpg" for name in names]


AMBIGUOUS = [["0.05", "0.1", "0.15", "0.2"], ["t1.5", "t1.25", "t2.125"], ["0,05", "0,1", "0,2"], ["9.5", "9.25"]]


@pytest.mark.parametrize("names", AMBIGUOUS)
def test_decimals_of_unequal_length_have_no_order(tmp_path, names):
    folder = touched(tmp_path / "a", names)
    with pytest.raises(DataError, match="the order of the frames cannot be told") as error:
        image_names(folder)
    text = str(error.value)
    assert text.startswith(f"{folder}: ") and "decimals behind the point" in text and "a number of its own" in text


def test_both_orders_are_shown(tmp_path):
    with pytest.raises(DataError) as error:
        image_names(touched(tmp_path, ["0.05", "0.1", "0.15", "0.2"]))
    decimals, numbers = re.findall(r"it is (.+?) \.\.\.", str(error.value))
    assert decimals == "0.05.jpg, 0.1.jpg, 0.15.jpg" and numbers == "0.1.jpg, 0.2.jpg, 0.05.jpg"


def test_data_sets_and_tracking_of_a_folder_refuse_such_names(tmp_path):
    write_sequence(tmp_path / "a", [(1, 2, 10, 8)] * 4, [f"{name}.jpg" for name in AMBIGUOUS[0]])
    for read in (lambda: FolderDataset(str(tmp_path)).sequences, lambda: open_source(str(tmp_path / "a"))):
        with pytest.raises(DataError, match="the order of the frames cannot be told"):
            read()


# Folders that are none of the data


@pytest.mark.parametrize("name", [*listing.SYSTEM_FOLDERS, ".git", ".ipynb_checkpoints", "@EADIR"])
def test_a_system_s_own_folder_is_no_sequence(tmp_path, name, caplog):
    listing._say_passed_over.cache_clear()
    for sequence in ("a", "b"):
        write_sequence(tmp_path / sequence, BOXES)
        (tmp_path / sequence / name).mkdir()
    write_sequence(tmp_path / name / "a", BOXES)
    with caplog.at_level(logging.INFO):
        assert [s.name for s in FolderDataset(str(tmp_path)).sequences] == ["a", "b"]
        _ = FolderDataset(str(tmp_path)).sequences
    assert caplog.text.count("belong to a system, not to the data") == (not name.startswith("."))


def test_it_is_none_in_a_folder_of_a_class_either(tmp_path):
    for name in ("airplane-1", "airplane-2"):
        folder = tmp_path / "airplane" / name
        write_sequence(folder / "img", BOXES)
        os.rename(folder / "img" / "groundtruth.txt", folder / "groundtruth.txt")
        for mark in ("full_occlusion", "out_of_view"):
            write_lines(folder / f"{mark}.txt", ["0,0"])
    for place in (tmp_path, tmp_path / "airplane", tmp_path / "airplane" / "airplane-1", folder / "img"):
        (place / "@eaDir").mkdir()
    assert [s.name for s in LaSOTDataset(str(tmp_path)).sequences] == ["airplane-1"]


def test_a_folder_that_is_no_sequence_is_still_an_error(tmp_path):
    write_sequence(tmp_path / "a", BOXES)
    (tmp_path / "notes").mkdir()
    with pytest.raises(DataError, match="notes: no images"):
        _ = FolderDataset(str(tmp_path)).sequences


# Links


@pytest.mark.parametrize("target", ["loop", "nowhere"])
def test_a_link_that_leads_nowhere_in_the_place_of_a_sequence_is_named(tmp_path, target):
    write_sequence(tmp_path / "a", BOXES)
    (tmp_path / "loop").symlink_to(target)
    with pytest.raises(DataError, match="loop: the folder cannot be read"):
        _ = FolderDataset(str(tmp_path)).sequences
    assert [s.name for s in FolderDataset(str(tmp_path), exclude=["loop"]).sequences] == ["a"]


@pytest.mark.parametrize("target", ["00000003.jpg", "nowhere.jpg"])
def test_a_link_that_leads_nowhere_in_the_place_of_an_image_is_no_frame_less(tmp_path, target):
    write_sequence(tmp_path / "test" / "a", BOXES)
    write_lines(tmp_path / "test" / "a" / "groundtruth.txt", ["1,2,10,8"])
    (tmp_path / "test" / "a" / "00000003.jpg").symlink_to(target)
    (sequence,) = FolderDataset(str(tmp_path), "test").sequences
    assert len(sequence) == 3
    with pytest.raises(DataError, match="00000003.jpg: the image cannot be read"):
        read_image_rgb(sequence.frames[2])


@pytest.mark.parametrize("name", ["groundtruth.txt", "absence.label"])
def test_a_link_to_itself_in_the_place_of_a_text_is_named(tmp_path, name):
    write_sequence(tmp_path / "a", BOXES)
    (tmp_path / "a" / name).unlink(missing_ok=True)
    (tmp_path / "a" / name).symlink_to(name)
    with pytest.raises(DataError, match=f"{name}: cannot be read"):
        _ = FolderDataset(str(tmp_path)).sequences


def test_links_to_folders_and_files_are_followed(tmp_path):
    write_sequence(tmp_path / "elsewhere", BOXES)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "list").symlink_to(tmp_path / "elsewhere" / "groundtruth.txt")
    assert subfolders(str(tmp_path / "set")) == ["a"]
    assert len(FolderDataset(str(tmp_path / "set")).sequences[0]) == 2


def test_a_pipe_is_no_folder_and_no_frame_less(tmp_path):
    touched(tmp_path, ["1", "2"])
    os.mkfifo(tmp_path / "3.jpg")
    os.mkfifo(tmp_path / "notes.txt")
    assert image_names(str(tmp_path)) == ["1.jpg", "2.jpg", "3.jpg"]
    assert subfolders(str(tmp_path)) == [] and text_files(str(tmp_path)) == ["notes"]
