"""What is wrong with a benchmark's files is told with the file, the line and what was expected."""

import os
import re
import shutil
from pathlib import Path

import miniatures
import pytest
from helpers_data import write_lines

from hiptrack.data.benchmarks import (
    LaSOTDataset,
    LaSOTExtensionDataset,
    NfSDataset,
    OTBDataset,
    TNL2KDataset,
    TrackingNetDataset,
    UAV123Dataset,
    open_benchmark,
)
from hiptrack.data.detection import COCODataset, ImageNetVIDDataset
from hiptrack.data.folders import MVTDDataset
from hiptrack.errors import ConfigError, DataError

READERS = {
    "lasot": LaSOTDataset,
    "lasot_ext": LaSOTExtensionDataset,
    "trackingnet": TrackingNetDataset,
    "uav123": UAV123Dataset,
    "otb": OTBDataset,
    "nfs": NfSDataset,
    "tnl2k": lambda root, **options: TNL2KDataset(root, "TNL2K_test_subset", **options),
    "mvtd": MVTDDataset,
    "coco": COCODataset,
    "vid": ImageNetVIDDataset,
}
ANNO = "anno/UAV123/uav6.txt"
FIGHT = "TNL2K_test_subset/Fight_video_6-Done"
JSON = "annotations/instances_train2017.json"
VIDEO = "VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000001"
XML = f"Annotations/{VIDEO}/000001.xml"
BOXES = ["1,2,3,4"] * 3
NORMALISED = ["0.5,0.4,0.25,0.5", "0.6,0.4,0.25,1.0", "0.5,0.4,0.25,0.5"]  # of the image's sides
PIXELS = ": no box is as large as a pixel, the first is 0.5,0.4,0.25,0.5: are they in pixels"


def coco_with(**changes):
    return lambda root: miniatures.coco(root, [{**miniatures.coco_annotation(1), **changes}])


def lines(path, content):
    return lambda root: write_lines(root / path, content)


def append(path, line):
    def damage(root):
        text = (root / path).read_text().splitlines()
        write_lines(root / path, [*text, line])

    return damage


def gone(path):
    return lambda root: (shutil.rmtree if (root / path).is_dir() else os.remove)(root / path)


def folder(path):
    return lambda root: (root / path).mkdir(parents=True)


# benchmark, damage, the message after the root
CASES = [
    (
        "lasot",
        lines("testing_set.txt", ["airplane-1", "airplan-2"]),
        r"testing_set.txt:2: names 'airplan-2'.*'airplane-2'",
    ),
    (
        "lasot",
        lines("bear/bear-2/groundtruth.txt", ["1,2,3,4"] * 4),
        "bear/bear-2/groundtruth.txt: 4 boxes for 3 images",
    ),
    (
        "lasot",
        lines("bear/bear-2/groundtruth.txt", ["0,0,0,0", *BOXES[:2]]),
        "bear/bear-2/groundtruth.txt:1: .*no area",
    ),
    ("lasot", gone("bear/bear-2/groundtruth.txt"), "bear/bear-2/groundtruth.txt: not found"),
    (
        "lasot",
        lines("bear/bear-2/full_occlusion.txt", ["0,1"]),
        "bear/bear-2/full_occlusion.txt: 2 labels for 3 frames",
    ),
    (
        "lasot",
        lines("bear/bear-2/out_of_view.txt", ["0,2,0"]),
        "bear/bear-2/out_of_view.txt:1: '2' is not a label. Expected a whole number in 0..1",
    ),
    ("lasot", gone("bear/bear-2/out_of_view.txt"), "bear/bear-2/out_of_view.txt: not found"),
    ("lasot", gone("bear/bear-2/img/00000002.jpg"), "bear/bear-2/groundtruth.txt: 3 boxes for 2 images"),
    (
        "lasot",
        lambda root: [gone(name)(root) for name in ("airplane", "bear", "rubicCube")],
        ": the data set is empty. Expected folders",
    ),
    (
        "lasot_ext",
        lines("atv/atv-2/full_occlusion.txt", ["1,0,0"]),
        "atv/atv-2/groundtruth.txt:1: .*marked absent, in the first",
    ),
    ("lasot_ext", gone("atv/atv-2/img"), "atv/atv-2/img: the folder cannot be read"),
    ("trackingnet", gone("TEST/frames/t_0"), "TEST/frames/t_0: the folder cannot be read"),
    ("trackingnet", lines("TEST/anno/t_0.txt", BOXES), "TEST/anno/t_0.txt: 3 boxes for 11 images"),
    ("trackingnet", gone("TEST"), "TEST: there is no such folder. Expected the chunks"),
    ("uav123", append(ANNO, "1,2,3,4"), f"{ANNO}: 110 boxes, but the sequence uav6 has 109 .images 1 to 109 of uav6"),
    ("uav123", gone("data_seq/UAV123/bird1/000100.jpg"), "data_seq/UAV123/bird1/000100.jpg: not found, as are 0 more"),
    (
        "uav123",
        lines("anno/UAV123/uav66.txt", BOXES),
        "anno/UAV123/uav66.txt: UAV123 has no sequence of this name.*'uav6'",
    ),
    ("uav123", lines(ANNO, ["1,NaN,3,4"] * 109), f"{ANNO}:1: the box 1,nan,3,4 is not finite"),
    ("uav123", gone("anno"), "anno/UAV123: there is no such folder"),
    (
        "otb",
        lines("Basketball/groundtruth_rect.txt", ["1 2 3 4", "1;2;3;4"]),
        "Basketball/groundtruth_rect.txt:2: '1;2;3;4'",
    ),
    (
        "otb",
        append("Football1/groundtruth_rect.txt", "1,2,3,4"),
        "Football1/groundtruth_rect.txt: 75 boxes for 74 images.*from 1 to 74",
    ),
    ("otb", folder("Empty"), "Empty: no boxes. Expected groundtruth_rect.txt"),
    (
        "nfs",
        lines("ball/30/ball.txt", ['0 1 2 x 4 1 0 0 0 "a"']),
        r"ball/30/ball.txt:1: '0 1 2 x .*xmin ymin xmax ymax",
    ),
    ("nfs", lines("ball/30/ball.txt", miniatures.vatic(70)), "ball/30/ball.txt: 70 boxes for 4 images"),
    ("nfs", gone("ball/30/ball.txt"), "ball/30/ball.txt: not found"),
    ("tnl2k", append(f"{FIGHT}/groundtruth.txt", "1,2,3,4"), f"{FIGHT}/groundtruth.txt: 4 boxes for 3 images"),
    ("tnl2k", gone("TNL2K_test_subset"), "TNL2K_test_subset: there is no such folder.*'TNL2K_train_subset'"),
    ("mvtd", gone("test"), "test: there is no such folder"),
    (
        "mvtd",
        lines("test/3-Ship/groundtruth.txt", ["1,2,3,4"] * 2),
        "test/3-Ship/groundtruth.txt: 2 boxes for 3 images",
    ),
    ("coco", gone(JSON), f"{JSON}: cannot be read"),
    ("coco", lines(JSON, ["[1, 2"]), f"{JSON}: no COCO instances .Expected `object`, got `array`"),
    ("coco", lines(JSON, ['{"images": []}']), f"{JSON}: no COCO instances .*required field `annotations`"),
    (
        "coco",
        lines(JSON, ['{"images": [{"id": 1, "file_name": "../a.jpg"}], "annotations": []}']),
        rf"{JSON}: no COCO instances .*regex.* at `\$.images\[0\].file_name`",
    ),
    ("coco", coco_with(image_id=9), rf"{JSON}: annotations\[0\] is of the picture 9, which is none"),
    (
        "coco",
        coco_with(bbox=[1, 2, 3]),
        rf"{JSON}: no COCO instances .Expected `array` of length 4 - at `\$.annotations\[0\].bbox`",
    ),
    (
        "coco",
        coco_with(bbox=[1, 2, 1e9, 4]),
        rf"{JSON}: no COCO instances .Expected `float` <= 1000000.0 - at `\$.annotations\[0\].bbox\[2\]`",
    ),
    ("coco", coco_with(bbox=[1, 2, 3, 4]), "train2017: the data set is empty"),
    ("vid", lines(XML, ["<annotation><object>"]), f"{XML}: cannot be read"),
    ("vid", lines(XML, [miniatures.vid_frame(("", 1, 0))]), f"{XML}: cannot be read .the trackid is ''"),
    ("vid", lines(XML, [miniatures.vid_frame((0, 1e9, 0))]), f"{XML}: cannot be read .xm.. of track 0 is 1000000"),
    (
        "vid",
        lines(XML, ['<!DOCTYPE a [<!ENTITY b "c">]><annotation/>']),
        f"{XML}: cannot be read .it declares entities",
    ),
    ("vid", gone(f"Data/{VIDEO}/000001.JPEG"), f"{XML}: there is no image 000001 in"),
    ("lasot", lines("bear/bear-2/groundtruth.txt", NORMALISED), f"bear/bear-2/groundtruth.txt{PIXELS}"),
    ("lasot_ext", lines("atv/atv-2/groundtruth.txt", NORMALISED), f"atv/atv-2/groundtruth.txt{PIXELS}"),
    ("trackingnet", lines("TEST/anno/t_0.txt", NORMALISED[:1]), f"TEST/anno/t_0.txt{PIXELS}"),
    ("uav123", lines(ANNO, (NORMALISED[::2] * 55)[:109]), f"{ANNO}{PIXELS}"),
    (
        "otb",
        lines("Basketball/groundtruth_rect.txt", [line.replace(",", "\t") for line in NORMALISED]),
        f"Basketball/groundtruth_rect.txt{PIXELS}",
    ),
    ("nfs", lines("plain/30/plain.txt", ['0 0.5 0.4 0.75 0.9 1 0 0 0 "a"'] * 3), f"plain/30/plain.txt{PIXELS}"),
    ("tnl2k", lines(f"{FIGHT}/groundtruth.txt", [*NORMALISED[:2], "0,0,0,0"]), f"{FIGHT}/groundtruth.txt{PIXELS}"),
    ("mvtd", lines("test/3-Ship/groundtruth.txt", NORMALISED), f"test/3-Ship/groundtruth.txt{PIXELS}"),
    ("coco", coco_with(bbox=[0.5, 0.4, 0.25, 0.5]), f"{JSON}{PIXELS}"),
    ("vid", lambda root: normalised_track(root), f"Annotations/{VIDEO}/000002.xml: no box is as large as a pixel"),
]


def normalised_track(root):
    """One more track, from the third frame on, with sides below one pixel."""
    for number in (2, 3):
        path = root / f"Annotations/{VIDEO}/{number:06d}.xml"
        box = "<bndbox><xmin>0.5</xmin><xmax>0.75</xmax><ymin>0.4</ymin><ymax>0.9</ymax></bndbox>"
        track = f"<object><trackid>9</trackid>{box}</object></annotation>"
        path.write_text(path.read_text().replace("</annotation>", track))


@pytest.mark.parametrize("benchmark, damage, message", CASES)
def test_a_defect_is_told_with_its_place(benchmark, damage, message, tmp_path):
    root = tmp_path / benchmark
    getattr(miniatures, benchmark)(root)
    damage(root)
    with pytest.raises(DataError) as error:
        _ = READERS[benchmark](str(root)).sequences
    text = str(error.value)
    assert re.match(f"{re.escape(str(root))}/?{message}", text), text
    assert len(text) < 700 and "\n" not in text


@pytest.mark.parametrize("benchmark", READERS)
@pytest.mark.parametrize("parameter", ["include", "exclude"])
def test_a_name_that_is_not_there_has_a_nearest_one(benchmark, parameter, tmp_path):
    root = tmp_path / benchmark
    getattr(miniatures, benchmark)(root)
    with pytest.raises(
        DataError, match=rf"{parameter} names 'airplane-3', which is no sequence .*The nearest name there is"
    ):
        _ = READERS[benchmark](str(root), **{parameter: ["airplane-3"]}).sequences


@pytest.mark.parametrize("benchmark", READERS)
def test_a_root_that_is_not_there(benchmark, tmp_path):
    none = str(tmp_path / "none")
    dataset = READERS[benchmark](none)
    assert dataset.missing_paths() == [none]
    with pytest.raises(DataError, match=f"{re.escape(none)}: the data root does not exist or is no folder. Expected"):
        _ = dataset.sequences


@pytest.mark.parametrize("reader", [LaSOTDataset, TrackingNetDataset, MVTDDataset, ImageNetVIDDataset])
def test_a_split_that_is_not_there_has_a_nearest_one(reader):
    with pytest.raises(ConfigError, match=rf"{reader.__name__}.split = 'trian'.*The nearest name there is 'train'"):
        reader("x", "trian")


def test_a_trackingnet_sequence_in_two_chunks(tmp_path):
    miniatures.trackingnet(tmp_path)
    shutil.copy(tmp_path / "TRAIN_0" / "anno" / "a_0.txt", tmp_path / "TRAIN_1" / "anno" / "a_0.txt")
    with pytest.raises(DataError, match=r"TRAIN_1: the sequence 'a_0' is also in .*TRAIN_0"):
        _ = TrackingNetDataset(str(tmp_path), "train", chunks=[0, 1]).sequences


def test_mvtd_held_out_names_that_are_not_there(tmp_path):
    miniatures.mvtd(tmp_path, 3)
    with pytest.raises(DataError, match="MVTDDataset.held_out names '4-Boat'.*The nearest name"):
        _ = MVTDDataset(str(tmp_path), "val", held_out=["4-Boat"]).sequences


@pytest.mark.parametrize("benchmark, path", [("coco", JSON), ("lasot", "bear/bear-2/groundtruth.txt"), ("vid", XML)])
def test_a_pipe_in_the_place_of_a_file_does_not_block(benchmark, path, tmp_path):
    getattr(miniatures, benchmark)(tmp_path)
    os.remove(tmp_path / path)
    os.mkfifo(Path(tmp_path) / path)
    with pytest.raises(DataError, match="not a regular file"):
        _ = READERS[benchmark](str(tmp_path)).sequences


def test_a_root_of_splits_is_told_to_choose_one(tmp_path):
    miniatures.mvtd(tmp_path)
    with pytest.raises(DataError, match=r"holds the folders test, train, which are splits.*--split.*--dataset mvtd"):
        list(open_benchmark("got10k", str(tmp_path)).sequences)
