"""Miniatures of the benchmarks in their real layouts. The images are empty files: readers do not open them."""

import json
from pathlib import Path

from helpers_data import write_lines

from hiptrack.data.benchmarks import uav123_sequences

BOX = (10, 20, 30, 40)


def boxes(count, x=1):
    """Lines of `count` boxes, each one pixel further to the right."""
    return [f"{x + number},2,10,8" for number in range(count)]


def touch(folder, names):
    """Empty files."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (Path(folder) / name).touch()


def numbered(first, last, digits=8, suffix=".jpg"):
    return [f"{number:0{digits}d}{suffix}" for number in range(first, last + 1)]


def lasot_sequence(root, name, frames=3, occluded=(), outside=()):
    folder = Path(root) / name.rpartition("-")[0] / name
    touch(folder / "img", numbered(1, frames))
    write_lines(folder / "groundtruth.txt", boxes(frames))
    for mark, places in (("full_occlusion", occluded), ("out_of_view", outside)):
        write_lines(folder / f"{mark}.txt", [",".join(str(int(place in places)) for place in range(frames))])


def lasot(root):
    for name in ("airplane-1", "airplane-2", "airplane-13", "bear-2", "bear-3"):
        lasot_sequence(root, name)
    lasot_sequence(root, "rubicCube-1", 5, occluded=(1,), outside=(3,))


def lasot_ext(root):
    for number in (1, 2, 10):
        lasot_sequence(root, f"atv-{number}")
    lasot_sequence(root, "dancingshoe-1")


def trackingnet(root):
    for chunk, names in (("TRAIN_0", ("a_0", "b_1")), ("TRAIN_1", ("c_0",)), ("TEST", ("t_0",))):
        for name in names:
            touch(Path(root) / chunk / "frames" / name, [f"{number}.jpg" for number in range(11)])
            write_lines(Path(root) / chunk / "anno" / f"{name}.txt", boxes(1 if chunk == "TEST" else 11))


def uav123(root, names=("bird1_1", "uav6")):
    for name in names:
        video, first, last = uav123_sequences()[name]
        touch(Path(root) / "data_seq" / "UAV123" / video, numbered(first, last, 6))
        lines = boxes(last - first + 1)
        lines[4] = "NaN,NaN,NaN,NaN"
        write_lines(Path(root) / "anno" / "UAV123" / f"{name}.txt", lines)
    (Path(root) / "anno" / "UAV123" / "att").mkdir()


def otb(root, whole=False):
    """`whole`: with the longer ones of the sequences of which a part is annotated."""
    root = Path(root)
    for name, images, count, separator in (
        ("Football1", numbered(1, 80, 4), 74, ","),
        ("Basketball", numbered(1, 3, 4), 3, ","),
        ("BlurCar1", numbered(247, 249, 4), 3, "\t"),
        ("Board", numbered(1, 3, 5), 3, " "),
        ("KiteSurf", numbered(1, 3, 4, ".png"), 3, ","),
        ("Tiger1", numbered(1, 9, 4), 9, ","),
        ("David", numbered(1, 775, 4), 471, ","),
        ("Diving", numbered(1, 231, 4), 215, ","),
        ("Freeman3", numbered(1, 463, 4), 460, ","),
        ("Freeman4", numbered(1, 297, 4), 283, ","),
    )[: None if whole else 6]:
        touch(root / name / "img", images)
        write_lines(root / name / "groundtruth_rect.txt", [line.replace(",", separator) for line in boxes(count)])
    for name, lines in (("Jogging", (boxes(3), boxes(3, 50))), ("Human4", ([], boxes(3)))):
        touch(root / name / "img", numbered(1, 3, 4))
        for number, of_target in enumerate(lines, 1):
            write_lines(root / name / f"groundtruth_rect.{number}.txt", of_target)


def vatic(frames, lost=()):
    """Lines of NfS: xmin grows by one pixel a line; frames count from 1."""
    return [f'0 {n} 2 {n + 10} 10 {n + 1} {int(n in lost)} 0 1 "the ball"' for n in range(frames)]


def nfs_sequence(root, name, images, lines):
    folder = Path(root) / name / "30"
    touch(folder / name, numbered(1, images, 5))
    write_lines(folder / f"{name}.txt", lines)


def nfs(root):
    nfs_sequence(root, "ball", 4, vatic(30))
    nfs_sequence(root, "car_2", 3, vatic(17, lost=(8,)))
    nfs_sequence(root, "plain", 3, vatic(3))
    nfs_sequence(root, "longer", 5, vatic(4))


def tnl2k_sequence(folder):
    touch(folder / "imgs", ["frame1.png", "frame2.png", "frame10.jpg"])
    write_lines(folder / "groundtruth.txt", [*boxes(2), "0,0,0,0"])
    write_lines(folder / "language.txt", ["the arrow"])


def tnl2k(root):
    for split, name in (("TNL2K_train_subset", "Arrow-1"), ("TNL2K_test_subset", "Fight_video_6-Done")):
        tnl2k_sequence(Path(root) / split / name)


def mvtd(root, count=20):
    for number in range(1, count + 1):
        for part in ("train", "test"):
            folder = Path(root) / part / f"{number}-{'Boat' if part == 'train' else 'Ship'}"
            touch(folder, ["frame0001.jpg", "frame0002.jpg", "frame0010.jpg"])
            write_lines(folder / "groundtruth.txt", boxes(3))
            for label, value in (("absence", 0), ("cover", 8), ("cut_by_image", 0)):
                if part == "train":
                    write_lines(folder / f"{label}.label", [value] * 3)


def got10k(root):
    for name in ("GOT-10k_Train_000003", "GOT-10k_Train_000004", "GOT-10k_Train_008624", "GOT-10k_Train_008628"):
        folder = Path(root) / "train" / name
        touch(folder, numbered(1, 2))
        write_lines(folder / "groundtruth.txt", boxes(2))


def coco_annotation(number, picture=7, box=BOX, iscrowd=0):
    outline = [[1, 2, 3, 4, 5, 6]]
    return {
        "id": number,
        "image_id": picture,
        "bbox": box,
        "iscrowd": iscrowd,
        "segmentation": outline,
        "category_id": 1,
    }


def coco(root, annotations=None, split="train2017"):
    if annotations is None:
        annotations = [coco_annotation(1), coco_annotation(2, 8, (0, 0, 5, 40)), coco_annotation(3, iscrowd=1)]
        annotations.append(coco_annotation(4, 8, (1.5, 2, 12, 15)))
    pictures = [{"id": number, "file_name": f"{number:012d}.jpg", "width": 96, "height": 96} for number in (7, 8)]
    touch(Path(root) / split, [picture["file_name"] for picture in pictures])
    path = Path(root) / "annotations" / f"instances_{split}.json"
    write_lines(path, [json.dumps({"info": {}, "images": pictures, "annotations": annotations})])
    return path


def vid_frame(*tracks):
    """The XML of a frame with tracks of (id, x, occluded)."""
    bodies = "".join(
        f"<object><trackid>{track}</trackid><name>n02958343</name><bndbox><xmax>{x + 30}</xmax><xmin>{x}</xmin><ymax>40</ymax>"
        f"<ymin>10</ymin></bndbox><occluded>{occluded}</occluded><generated>0</generated></object>"
        for track, x, occluded in tracks
    )
    return f"<annotation><size><width>64</width><height>48</height></size>{bodies}</annotation>"


def vid(root):
    frames = [
        vid_frame((0, 1, 0)),
        vid_frame((0, 2, 0), (1, 20, 1)),
        vid_frame((1, 21, 0)),
        vid_frame((0, 4, 0), (1, 22, 0)),
        vid_frame(),
    ]
    for split, video in (
        ("train", "ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000001"),
        ("val", "ILSVRC2015_val_00000000"),
    ):
        touch(Path(root) / "Data" / "VID" / split / video, numbered(0, 4, 6, ".JPEG"))
        for number, text in enumerate(frames):
            write_lines(Path(root) / "Annotations" / "VID" / split / video / f"{number:06d}.xml", [text])
