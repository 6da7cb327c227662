"""UAV123."""

import os

import gin

from hiptrack.data.reading import FramePaths, entries, nearest_name, parse_boxes, text_files
from hiptrack.data.sequence import Protocol, SequenceDataset
from hiptrack.errors import DataError


@gin.register
class UAV123Dataset(SequenceDataset):
    """UAV123 (Mueller et al., ECCV 2016): 123 sequences from the air.

    `root/data_seq/UAV123/bike1/000001.jpg` and so on, and `root/anno/UAV123/bike1.txt` (`x,y,w,h` a line, four NaN where the
    target is out of sight). Several sequences may share a folder of images: bird1_1, bird1_2 and bird1_3 are parts of
    bird1 (hiptrack/data/uav123.py). Read are the sequences with a file in anno/UAV123.

    A frame without target counts as missed in the success and as met in the precision, as pytracking does
    (pytracking/analysis/extract_results.py); UAV123's own toolkit we have not read.

    Args:
        root: the folder of data_seq and anno.
        annotations: folder of `<sequence>/<sequence>.jsonl` files with challenge labels, if any.
        include, exclude: names of the sequences to take, to leave out.
        name: what logs call the set.
    """

    LAYOUT = "the folders data_seq/UAV123 (a folder of images for each video) and anno/UAV123 (a text file for each sequence)"
    PROTOCOL = Protocol(("AUC", "P"), counts_absent=True, absent_is_near=True)
    IS_CACHED = True

    def __init__(
        self,
        root: str,
        annotations: str | None = None,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(root, None, annotations, include, exclude, name)
        self._images = {}

    def _folders(self):
        return [os.path.join(self.root, "anno", "UAV123"), os.path.join(self.root, "data_seq", "UAV123")]

    def _names(self):
        anno = self._folders()[0]
        found = text_files(anno)
        for name in found:
            if name not in SEQUENCES:
                raise DataError(
                    f"{os.path.join(anno, name)}.txt: UAV123 has no sequence of this name. {nearest_name(name, SEQUENCES)} "
                    "Rename the file or move it away."
                )
        return found

    def _read_sequence(self, name):
        video, first, last = SEQUENCES[name]
        anno, data = self._folders()
        truth, folder = os.path.join(anno, f"{name}.txt"), os.path.join(data, video)
        boxes = parse_boxes(truth, nan_is_absent=True)
        if len(boxes) != last - first + 1:
            raise DataError(
                f"{truth}: {len(boxes)} boxes, but the sequence {name} has {last - first + 1} (images {first} to {last} of "
                f"{video}). Expected one line a frame; restore the file."
            )
        if folder not in self._images:
            self._images[folder] = {entry.name for entry in entries(folder)}
        frames = [f"{number:06d}.jpg" for number in range(first, last + 1)]
        absent = [frame for frame in frames if frame not in self._images[folder]]
        if absent:
            raise DataError(
                f"{os.path.join(folder, absent[0])}: not found, as are {len(absent) - 1} more of the images {first} to {last} of "
                f"the sequence {name}. Restore them, or leave the sequence out with UAV123Dataset.exclude."
            )
        return self._make_sequence(name, FramePaths(folder, frames), boxes, truth)


_TABLE = """
bike1 3085
bike2 553
bike3 433
bird1_1 bird1 1 253
bird1_2 bird1 775 1477
bird1_3 bird1 1573 2437
boat1 901
boat2 799
boat3 901
boat4 553
boat5 505
boat6 805
boat7 535
boat8 685
boat9 1399
building1 469
building2 577
building3 829
building4 787
building5 481
car1_1 car1 1 751
car1_2 car1 751 1627
car1_3 car1 1627 2629
car10 1405
car11 337
car12 499
car13 415
car14 1327
car15 469
car16_1 car16 1 415
car16_2 car16 415 1993
car17 1057
car18 1207
car1_s 1475
car2 1321
car2_s 320
car3 1717
car3_s 1300
car4 1345
car4_s 830
car5 745
car6_1 car6 1 487
car6_2 car6 487 1807
car6_3 car6 1807 2953
car6_4 car6 2953 3925
car6_5 car6 3925 4861
car7 1033
car8_1 car8 1 1357
car8_2 car8 1357 2575
car9 1879
group1_1 group1 1 1333
group1_2 group1 1333 2515
group1_3 group1 2515 3925
group1_4 group1 3925 4873
group2_1 group2 1 907
group2_2 group2 907 1771
group2_3 group2 1771 2683
group3_1 group3 1 1567
group3_2 group3 1567 2827
group3_3 group3 2827 4369
group3_4 group3 4369 5527
person1 799
person10 1021
person11 721
person12_1 person12 1 601
person12_2 person12 601 1621
person13 883
person14_1 person14 1 847
person14_2 person14 847 1813
person14_3 person14 1813 2923
person15 1339
person16 1147
person17_1 person17 1 1501
person17_2 person17 1501 2347
person18 1393
person19_1 person19 1 1243
person19_2 person19 1243 2791
person19_3 person19 2791 4357
person1_s 1600
person2_1 person2 1 1189
person2_2 person2 1189 2623
person20 1783
person21 487
person22 199
person23 397
person2_s 250
person3 643
person3_s 505
person4_1 person4 1 1501
person4_2 person4 1501 2743
person5_1 person5 1 877
person5_2 person5 877 2101
person6 901
person7_1 person7 1 1249
person7_2 person7 1249 2065
person8_1 person8 1 1075
person8_2 person8 1075 1525
person9 661
truck1 463
truck2 385
truck3 535
truck4_1 truck4 1 577
truck4_2 truck4 577 1261
uav1_1 uav1 1 1555
uav1_2 uav1 1555 2377
uav1_3 uav1 2473 3469
uav2 133
uav3 265
uav4 157
uav5 139
uav6 109
uav7 373
uav8 301
wakeboard1 421
wakeboard10 469
wakeboard2 733
wakeboard3 823
wakeboard4 697
wakeboard5 1675
wakeboard6 1165
wakeboard7 199
wakeboard8 1543
wakeboard9 355
"""


def _parse(line):
    name, *place = line.split()
    folder, first, last = place if len(place) == 3 else (name, 1, *place)
    return name, (folder, int(first), int(last))


SEQUENCES: dict[str, tuple[str, int, int]] = dict(map(_parse, _TABLE.split("\n")[1:-1]))
