"""The readers of benchmarks on miniatures in the benchmarks' real layouts, their oddities included."""

import pickle

import gin
import miniatures
import numpy as np
import pytest
from helpers_data import annotation, write_annotations, write_image, write_lines

from hiptrack.data.benchmarks import (
    BENCHMARKS,
    LaSOTDataset,
    LaSOTExtensionDataset,
    NfSDataset,
    OTBDataset,
    TNL2KDataset,
    TrackingNetDataset,
    UAV123Dataset,
    open_benchmark,
    uav123_sequences,
)
from hiptrack.data.clips import ClipData, ClipDataset, Geometry, usable_sequences
from hiptrack.data.detection import COCODataset, ImageNetVIDDataset
from hiptrack.data.folders import EXCLUSIONS, FolderDataset, MVTDDataset
from hiptrack.data.reading import packaged_list
from hiptrack.data.sampling import CausalSampler, RandomIntervalSampler
from hiptrack.errors import ConfigError

OTB = ["Basketball", "BlurCar1", "Board", "Football1", "Human4_2", "Jogging_1", "Jogging_2", "KiteSurf", "Tiger1"]
# Reader, what writes its miniature, and the names that are read of it.
MINIATURES = [
    (LaSOTDataset, "lasot", ["airplane-1", "airplane-13", "bear-2", "rubicCube-1"]),
    (LaSOTExtensionDataset, "lasot_ext", ["atv-1", "atv-2", "atv-10", "dancingshoe-1"]),
    (TrackingNetDataset, "trackingnet", ["t_0"]),
    (UAV123Dataset, "uav123", ["bird1_1", "uav6"]),
    (OTBDataset, "otb", OTB),
    (NfSDataset, "nfs", ["ball", "car_2", "longer", "plain"]),
    (COCODataset, "coco", ["000000000007-1", "000000000008-4"]),
    (ImageNetVIDDataset, "vid", ["ILSVRC2015_train_00000001-0", "ILSVRC2015_train_00000001-1"]),
]


@pytest.fixture
def mini(tmp_path):
    """mini(kind) writes a miniature and returns its folder."""

    def write(kind, *arguments):
        getattr(miniatures, kind)(tmp_path / kind, *arguments)
        return tmp_path / kind

    return write


def names(dataset):
    return [sequence.name for sequence in dataset.sequences]


@pytest.mark.parametrize("reader, kind, expected", MINIATURES, ids=[row[1] for row in MINIATURES])
def test_what_all_readers_have_in_common(reader, kind, expected, mini):
    root = str(mini(kind))
    dataset = reader(root)
    assert names(dataset) == expected
    assert dataset.missing_paths() == [] and dataset.labelled_frames == 0
    assert f"{len(expected)} sequences" in dataset.describe() and dataset.name.startswith(kind)
    assert reader(root, name="other").name == "other"
    assert names(reader(root, include=expected[-1:])) == expected[-1:]
    if len(expected) > 1:
        assert names(reader(root, exclude=expected[:1])) == expected[1:]
    for sequence in dataset.sequences:
        assert len(sequence.visible) == len(sequence.cover) == len(sequence)
        assert sequence.boxes_xywh.dtype == np.float64 and np.isfinite(sequence.boxes_xywh).all()
        assert len(sequence.boxes_xywh) in (1, len(sequence))
        assert (sequence.cover > 0).tolist() == sequence.visible.tolist()
        assert all(frame.startswith(root) for frame in sequence.frames)
    read = {}
    fresh, copy = reader(root), pickle.loads(pickle.dumps(reader(root)))
    fresh.share(read)
    copy.share(read)
    assert copy.sequences is fresh.sequences
    assert pickle.loads(pickle.dumps(fresh)).sequences[0].frames == fresh.sequences[0].frames


@pytest.mark.parametrize("reader", [*BENCHMARKS.values(), COCODataset, ImageNetVIDDataset])
def test_every_reader_is_registered_and_names_its_protocol(reader):
    assert gin.get_configurable(reader.__name__) is not None
    assert reader.PROTOCOL.metrics and reader.__doc__


def test_a_reader_built_by_gin_stands_in_clip_data(mini, clean_gin):
    gin.parse_config(
        f"ClipData.datasets = [@LaSOTDataset(), @vid/ImageNetVIDDataset()]\nLaSOTDataset.root = {str(mini('lasot'))!r}\n"
        f"LaSOTDataset.split = 'train'\nvid/ImageNetVIDDataset.root = {str(mini('vid'))!r}"
    )
    lasot, vid = gin.get_configurable("ClipData")().datasets
    assert names(lasot) == ["airplane-2", "bear-3"] and len(vid.sequences) == 2
    assert lasot.name == "lasot-train"


# LaSOT


def test_lasot_marks_hide_the_target(mini):
    sequence = LaSOTDataset(str(mini("lasot")), include=["rubicCube-1"]).sequences[0]
    assert sequence.visible.tolist() == [True, False, True, False, True]
    assert sequence.cover.tolist() == [8, 0, 8, 0, 8]
    assert sequence.frames[0].endswith("rubicCube/rubicCube-1/img/00000001.jpg")


def test_lasot_lists_in_the_root_decide(mini):
    root = mini("lasot")
    write_lines(root / "testing_set.txt", ["bear-3", "airplane-1"])
    assert names(LaSOTDataset(str(root))) == ["bear-3", "airplane-1"]
    assert names(LaSOTDataset(str(root), "train")) == ["airplane-2", "airplane-13", "bear-2", "rubicCube-1"]
    write_lines(root / "training_set.txt", ["bear-2"])
    assert names(LaSOTDataset(str(root), "train")) == ["bear-2"]


def test_lasot_s_published_testing_set_has_four_sequences_of_each_class():
    testing_set = packaged_list("lasot_testing_set")
    classes = [name.rpartition("-")[0] for name in testing_set]
    assert len(set(testing_set)) == 280 and len(set(classes)) == 70
    assert {classes.count(name) for name in classes} == {4}


def test_lasot_images_beyond_the_last_box_are_left_out(mini):
    root = mini("lasot")
    miniatures.touch(root / "bear" / "bear-2" / "img", ["00000004.jpg"])
    assert [len(sequence) for sequence in LaSOTDataset(str(root), include=["bear-2"]).sequences] == [3]


def test_lasot_annotations_are_matched(mini, tmp_path):
    write_annotations(tmp_path / "labels", "bear-2", [annotation("bear-2", 2, ["occlusion"])])
    dataset = LaSOTDataset(str(mini("lasot")), annotations=str(tmp_path / "labels"))
    assert dataset.labelled_frames == 1
    assert dataset.sequences[2].labels.annotated.tolist() == [False, True, False]


# TrackingNet


def test_trackingnet_s_test_has_the_first_box_alone(mini):
    sequence = TrackingNetDataset(str(mini("trackingnet"))).sequences[0]
    assert sequence.boxes_xywh.tolist() == [[1, 2, 10, 8]] and len(sequence) == 11
    assert sequence.frames[10].endswith("TEST/frames/t_0/10.jpg")


def test_trackingnet_s_chunks(mini):
    root = str(mini("trackingnet"))
    assert names(TrackingNetDataset(root, "train", chunks=[1, 0])) == ["c_0", "a_0", "b_1"]
    assert len(TrackingNetDataset(root, "train").missing_paths()) == 10
    with pytest.raises(ConfigError, match="expected, and only with the split 'train'"):
        TrackingNetDataset(root, "test", chunks=[0])


# UAV123


def test_uav123_parts_of_a_video(mini):
    first, second, _ = UAV123Dataset(str(mini("uav123", ["bird1_1", "bird1_2", "uav6"]))).sequences
    assert (len(first), len(second)) == (253, 703)
    assert second.frames[0].endswith("data_seq/UAV123/bird1/000775.jpg")
    assert second.frames[-1].endswith("bird1/001477.jpg")
    assert np.flatnonzero(~second.visible).tolist() == [4] and second.boxes_xywh[4].tolist() == [0, 0, 0, 0]


def test_uav123_s_table_is_whole():
    sequences = uav123_sequences()
    assert len(sequences) == 123
    folders = {folder for folder, _, _ in sequences.values()}
    assert len(folders) == 91
    assert sum(last - first + 1 for _, first, last in sequences.values()) == 112_578  # frames, as published


# OTB


def test_otb_s_oddities(mini):
    found = {sequence.name: sequence for sequence in OTBDataset(str(mini("otb", True))).sequences}
    assert {"Jogging_1", "Jogging_2", "Human4_2", "Basketball"} <= set(found)
    assert not {"Jogging", "Human4", "Human4_1"} & set(found)
    assert found["Jogging_2"].boxes_xywh[0].tolist() == [50, 2, 10, 8]
    places = {
        "BlurCar1": ("0247.jpg", "0249.jpg", 3),
        "Board": ("00001.jpg", "00003.jpg", 3),
        "David": ("0300.jpg", "0770.jpg", 471),
        "Diving": ("0001.jpg", "0215.jpg", 215),
        "Football1": ("0001.jpg", "0074.jpg", 74),
        "Freeman3": ("0001.jpg", "0460.jpg", 460),
        "Freeman4": ("0001.jpg", "0283.jpg", 283),
        "KiteSurf": ("0001.png", "0003.png", 3),
        "Tiger1": ("0006.jpg", "0009.jpg", 4),
    }
    for name, (first, last, count) in places.items():
        frames = found[name].frames
        assert (frames[0][-len(first) :], frames[-1][-len(last) :], len(frames)) == (first, last, count)
    assert found["Tiger1"].boxes_xywh[0].tolist() == [6, 2, 10, 8]


# NfS, TNL2K


def test_nfs_takes_every_eighth_box_from_corners(mini):
    found = {sequence.name: sequence for sequence in NfSDataset(str(mini("nfs"))).sequences}
    assert found["ball"].boxes_xywh.tolist() == [[x, 2, 10, 8] for x in (0, 8, 16, 24)]
    assert found["car_2"].visible.all() and len(found["car_2"]) == 3
    assert found["plain"].boxes_xywh[:, 0].tolist() == [0, 1, 2]
    assert len(found["longer"]) == len(found["longer"].boxes_xywh) == 4


def test_tnl2k_takes_frames_of_any_name_in_natural_order(mini):
    root = str(mini("tnl2k"))
    (sequence,) = TNL2KDataset(root, "TNL2K_test_subset").sequences
    assert [frame.rsplit("/")[-1] for frame in sequence.frames] == ["frame1.png", "frame2.png", "frame10.jpg"]
    assert sequence.visible.tolist() == [True, True, False]
    assert names(TNL2KDataset(f"{root}/TNL2K_train_subset")) == ["Arrow-1"]


# MVTD


def test_mvtd_holds_out_a_tenth_by_name_whatever_the_others_are(mini):
    root = str(mini("mvtd"))
    held_out = names(MVTDDataset(root, "val"))
    assert len(held_out) == 2
    assert sorted(held_out + names(MVTDDataset(root, "train"))) == sorted(names(MVTDDataset(root, "train_full")))
    assert len(names(MVTDDataset(root, "test"))) == 20
    assert MVTDDataset(root, "test").sequences[0].frames[2].endswith("test/1-Ship/frame0010.jpg")


def test_mvtd_holds_out_what_is_named(mini):
    root = str(mini("mvtd", 4))
    assert names(MVTDDataset(root, "val", held_out=["2-Boat"])) == ["2-Boat"]
    assert names(MVTDDataset(root, "train", held_out=["2-Boat"])) == ["1-Boat", "3-Boat", "4-Boat"]
    assert len(names(MVTDDataset(root, "train", held_out=[]))) == 4
    with pytest.raises(ConfigError, match="leaves nothing for the split 'val'"):
        MVTDDataset(root, "val", held_out=[])


# GOT-10k's lists


def test_got10k_sequences_are_left_out_by_list(mini):
    root = str(mini("got10k"))

    def left(known):
        return [int(name[-6:]) for name in names(FolderDataset(root, "train", exclude_known=known))]

    assert left(None) == [3, 4, 8624, 8628]
    assert left(["defective"]) == [3, 4]
    assert left(["vot"]) == [3, 8624]
    assert left(["defective", "vot"]) == [3]
    with pytest.raises(ConfigError, match="exclude_known names 'votes'.*The nearest name there is 'vot'"):
        FolderDataset(root, exclude_known=["votes"])


def test_a_folder_of_images_and_boxes_is_a_set_of_one(mini):
    root = mini("got10k") / "train" / "GOT-10k_Train_000003"
    (sequence,) = open_benchmark("folder", f"{root}/").sequences
    assert sequence.name == "GOT-10k_Train_000003" and len(sequence) == 2
    assert sequence.frames[0].endswith("GOT-10k_Train_000003/00000001.jpg")


def test_got10k_s_lists_have_their_lengths():
    lengths = {name: len(set(packaged_list(f"got10k_{name}"))) for name in EXCLUSIONS}
    assert lengths == {"defective": 20, "vot": 1000}


# COCO and ImageNet-VID


def test_coco_s_objects_are_sequences_of_one_frame(mini):
    first, last = COCODataset(str(mini("coco"))).sequences
    assert first.frames[0].endswith("train2017/000000000007.jpg") and len(first) == 1
    assert last.boxes_xywh.tolist() == [[1.5, 2, 12, 15]]
    assert first.visible.tolist() == [True] and first.is_still


def test_coco_leaves_out_what_is_smaller(mini):
    root = str(mini("coco"))
    assert len(COCODataset(root, smallest=0).sequences) == 3
    assert names(COCODataset(root, smallest=20)) == ["000000000007-1"]


@pytest.mark.parametrize("sampler", [CausalSampler(3), RandomIntervalSampler(3)])
def test_a_picture_is_drawn_as_a_clip(mini, sampler):
    root = mini("coco")
    for number in (7, 8):
        write_image(root / "train2017" / f"{number:012d}.jpg", 96, 96)
    dataset = COCODataset(str(root))
    assert len(usable_sequences(dataset)) == 2 and "fewer than two" not in dataset.describe()
    clips = ClipDataset(ClipData([dataset], sampler=sampler), Geometry(32, 64, 2.0, 4.0), 0, 0)
    sample = clips[0, 0]
    assert sample["search"].shape == (3, 3, 64, 64) and sample["gaps"].tolist() == [0, 0, 0]
    assert sample["source"].endswith("frames [1, 1, 1, 1]") and sample["rejected"] == []


def test_vid_has_a_sequence_for_each_track(mini):
    first, second = ImageNetVIDDataset(str(mini("vid"))).sequences
    assert first.visible.tolist() == [True, True, False, True]
    assert first.boxes_xywh[3].tolist() == [4, 10, 30, 30]
    assert second.visible.tolist() == [False, True, True]  # occluded first
    assert second.frames[0].endswith("ILSVRC2015_train_00000001/000001.JPEG")


def test_vid_s_val_has_no_groups(mini):
    assert names(ImageNetVIDDataset(str(mini("vid")), "val"))[0] == "ILSVRC2015_val_00000000-0"


# By name


def test_benchmarks_are_opened_by_name(mini):
    assert names(open_benchmark("lasot", str(mini("lasot")), "train")) == ["airplane-2", "bear-3"]
    assert isinstance(open_benchmark("folder", "x"), FolderDataset)
    assert open_benchmark("mvtd", "x").split == "test"
    with pytest.raises(ConfigError, match="--split test: nfs has no splits"):
        open_benchmark("nfs", "x", "test")
