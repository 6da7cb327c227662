"""Data sets of sequences in folders (GOT-10k layout)."""

import logging
import math
import os
import zlib

import gin
import numpy as np

from hiptrack.data.reading import (
    IMAGE_SUFFIXES,
    FramePaths,
    image_names,
    natural_key,
    nearest_name,
    read_boxes,
    read_image_rgb,
    read_lines,
    read_names,
    show,
    subfolders,
)
from hiptrack.data.sequence import FULL_COVER, GOT10K, Protocol, Sequence, SequenceDataset
from hiptrack.errors import ConfigError, DataError

__all__ = [
    "FULL_COVER",
    "IMAGE_SUFFIXES",
    "FolderDataset",
    "Sequence",
    "image_names",
    "natural_key",
    "read_boxes",
    "read_image_rgb",
    "read_sequence",
    "subfolders",
]

logger = logging.getLogger(__name__)


@gin.register
class FolderDataset(SequenceDataset):
    """Sequences in folders, in GOT-10k layout.

    `root/split` (or `root` itself where `split` is None) holds one folder a sequence, with its images,
    groundtruth.txt (`x,y,w,h` a line) and, optionally, absence.label, cover.label and cut_by_image.label.
    `list.txt` beside the folders names those that belong to the set; without it all do, in natural order.
    A folder with a groundtruth.txt of its own is the one sequence of the set.
    In the split "test" groundtruth.txt may hold the first box alone.

    `annotations`: folder of `<sequence>/<sequence>.jsonl` files with challenge labels; a sequence
    without such a file is unlabelled. `include`, `exclude`: names of the sequences to take, to leave out.
    `name`: what logs call the set, by default `<root's name>-<split>`.
    `exclude_known`: lists of GOT-10k's training sequences that are left out too where the set has them: 'defective'
    (images or boxes known to be wrong) and 'vot' (those that VOT's rules forbid); see got10k_exclusions.py.
    """

    LAYOUT = (
        "a folder of sequences (one for each, named in list.txt where there is one, with images and groundtruth.txt), "
        "one with the splits train, val and test, or a sequence"
    )
    SPLITS = None
    PROTOCOL = GOT10K
    IS_CACHED = True

    def __init__(
        self,
        root: str,
        split: str | None = None,
        annotations: str | None = None,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        name: str | None = None,
        exclude_known: list[str] | None = None,
    ):
        super().__init__(root, split, annotations, include, exclude, name)
        self.exclude_known = exclude_known
        self.is_handed_in = split == "test"
        for known in exclude_known or ():
            if known not in EXCLUSIONS:
                raise ConfigError(
                    f"{self._kind}.exclude_known names {known!r}, expected names of {', '.join(map(repr, EXCLUSIONS))}. "
                    f"{nearest_name(str(known), EXCLUSIONS)}"
                )

    def _folder(self):
        return self.root if self.split is None else os.path.join(self.root, self.split)

    def _folders(self):
        return [self._folder()]

    def _check_folders(self):
        if os.path.isdir(self.root) and not os.path.isdir(self._folder()):
            raise DataError(
                f"{self._folder()}: there is no such split folder. "
                f"{nearest_name(self.split, subfolders(self.root))} Set {self._kind}.split to a folder of the "
                "data root, or to None where the sequences lie in the root itself."
            )
        super()._check_folders()

    def _names(self):
        """Names of the set's sequences in order: the folder's own, those of list.txt, else every folder."""
        folder = self._folder()
        if self._is_sequence():
            return [os.path.basename(os.path.abspath(folder))]
        found = subfolders(folder)
        listing = os.path.join(folder, "list.txt")
        if os.path.lexists(listing):
            return _read_list(listing, found)
        logger.info("%s: no list.txt, taking all %d folders in natural order", folder, len(found))
        return found

    def _left_out(self, names):
        left_out = super()._left_out(names)
        for known in self.exclude_known or ():
            listed = EXCLUSIONS[known].intersection(names)
            logger.info("%s: exclude_known %r leaves out %d sequences", self.name, known, len(listed))
            left_out |= listed
        return left_out

    def _is_sequence(self):
        """Whether the folder is a sequence itself."""
        return os.path.isfile(os.path.join(self._folder(), "groundtruth.txt"))

    def _read_sequence(self, name):
        folder = self._folder() if self._is_sequence() else os.path.join(self._folder(), name)
        hint = ""
        if self.split is None:
            hint = f" Where the folder is a split that holds sequences, set {self._kind}.split."
        sequence = read_sequence(folder, name, self.split == "test", hint)
        if self.annotations is None:
            return sequence
        labels = self._labels(name, [os.path.basename(frame) for frame in sequence.frames])
        return Sequence(name, sequence.frames, sequence.boxes_xywh, sequence.visible, sequence.cover, labels)


def read_sequence(folder: str, name: str, first_box_only: bool, hint: str = "") -> Sequence:
    """Reads one sequence folder without annotations; DataError names the file and line at fault.

    `first_box_only`: groundtruth.txt may hold the first frame's box alone. `hint`: what to say besides where there are no images.
    """
    images = image_names(folder, hint)
    truth = os.path.join(folder, "groundtruth.txt")
    boxes = read_boxes(truth, len(images), first_box_only)
    absence = _read_label(os.path.join(folder, "absence.label"), len(images), 1)
    cover = _read_label(os.path.join(folder, "cover.label"), len(images), FULL_COVER)
    _read_label(os.path.join(folder, "cut_by_image.label"), len(images), 1)

    present = np.ones(len(images), bool)
    if absence is not None:
        present &= absence == 0
    if cover is not None:
        present &= cover > 0
    has_marks = absence is not None or cover is not None
    _check_sizes(truth, boxes, present, has_marks)
    visible = np.zeros(len(images), bool)
    visible[: len(boxes)] = present[: len(boxes)] & (boxes[:, 2:] > 0).all(1)
    if cover is None:
        cover = np.full(len(images), FULL_COVER)
    return Sequence(name, FramePaths(folder, images), boxes, visible, cover)


def _check_sizes(path, boxes, present, has_marks):
    """A box without area stands for an absent target only where the label files do not contradict it."""
    flat = (boxes[:, 2:] <= 0).any(1)
    wrong = flat & present[: len(boxes)] if has_marks else (boxes[:, 2:] < 0).any(1)
    wrong[0] = flat[0]
    if wrong.any():
        index = int(wrong.argmax())
        why = "the first frame, where tracking starts" if index == 0 else "a frame that counts as visible"
        raise DataError(
            f"{path}:{index + 1}: the box {show(boxes[index])} has no area in {why}. Expected w and h above "
            "0; correct the line, mark the frame absent in absence.label (not the first), or leave the "
            "sequence out with `exclude`."
        )


def _read_label(path, frames, highest):
    """A GOT-10k label file, one whole number 0..highest a frame -> [frames] int; None where it is absent."""
    if not os.path.lexists(path):
        return None
    lines = read_lines(path)
    if len(lines) != frames:
        raise DataError(
            f"{path}: {len(lines)} labels for {frames} images in {os.path.dirname(path)}. Expected one line "
            "a frame; complete the file, or remove it to do without."
        )
    allowed = {str(value): value for value in range(highest + 1)}
    values = [allowed.get(line.strip()) for line in lines]
    if None in values:
        index = values.index(None)
        raise DataError(
            f"{path}:{index + 1}: {lines[index][:80]!r} is not a label. Expected a whole number in "
            f"0..{highest}; correct the line."
        )
    return np.array(values, np.int64)


def _read_list(path, found):
    """Names in list.txt, each of which must be one of the folders `found` beside it."""
    folders = set(found)
    line_of_name = read_names(path)
    for name, number in line_of_name.items():
        if name not in folders:
            raise DataError(
                f"{path}:{number}: names {name[:80]!r}, but there is no such folder beside list.txt. "
                f"{nearest_name(name, found)} Restore the folder or remove the line."
            )
    return list(line_of_name)


DEFECTIVE = (*range(8623, 8638), 9058, 9059, 1636, 1638, 7947)

VOT = """
4 13 15 20 24 34 38 48 51 59 77 81 89 93 94 96 104 107 108 120 132 170 186 212 213 222 223 240 246 249 266 268 287 293
305 316 319 322 331 334 354 361 368 382 401 417 448 454 458 466 475 484 488 501 510 512 519 539 544 555 564 568 583
587 593 621 624 625 638 648 654 669 701 709 712 731 734 737 744 746 748 762 764 765 766 767 775 783 790 829 857 859
867 872 880 884 909 915 922 928 933 941 961 966 968 971 972 995 1003 1010 1011 1019 1021 1035 1039 1047 1057 1069 1077
1079 1085 1088 1091 1104 1112 1113 1124 1128 1143 1145 1146 1148 1150 1154 1156 1157 1163 1181 1184 1189 1200 1225
1264 1288 1296 1298 1299 1314 1319 1329 1331 1340 1374 1384 1394 1407 1415 1430 1433 1453 1457 1471 1473 1480 1484
1489 1514 1537 1544 1545 1551 1558 1560 1562 1563 1570 1576 1604 1615 1617 1618 1619 1624 1650 1651 1663 1673 1685
1692 1700 1722 1731 1732 1738 1740 1742 1747 1759 1769 1781 1791 1794 1795 1818 1833 1836 1841 1852 1863 1865 1878
1898 1919 1923 1929 1935 1938 1942 1955 1964 1966 1982 2005 2009 2035 2068 2073 2076 2084 2112 2115 2116 2123 2125
2129 2139 2146 2166 2168 2176 2184 2190 2192 2211 2216 2233 2240 2247 2250 2252 2253 2261 2274 2276 2292 2302 2304
2305 2320 2345 2355 2359 2363 2374 2376 2389 2393 2400 2408 2418 2437 2440 2442 2454 2456 2465 2466 2474 2479 2484
2511 2514 2517 2523 2527 2534 2555 2587 2589 2612 2627 2639 2652 2693 2699 2716 2725 2727 2730 2755 2756 2760 2763
2837 2841 2856 2862 2863 2866 2877 2884 2886 2887 2907 2908 2909 2914 2920 2922 2936 2940 2944 2953 2961 2964 2996
3003 3004 3007 3012 3027 3028 3033 3034 3036 3044 3056 3069 3078 3079 3095 3096 3107 3108 3127 3128 3129 3132 3146
3155 3173 3208 3239 3245 3246 3262 3275 3283 3296 3308 3310 3313 3317 3318 3354 3379 3384 3396 3401 3423 3435 3438
3442 3444 3455 3456 3464 3466 3474 3482 3488 3502 3515 3520 3530 3551 3570 3571 3578 3583 3590 3593 3618 3626 3650
3652 3663 3690 3704 3709 3716 3721 3722 3724 3729 3756 3768 3782 3786 3788 3791 3820 3821 3827 3834 3835 3839 3843
3854 3856 3881 3899 3904 3906 3913 3937 3940 3943 3950 3972 3974 3978 3981 3982 4003 4004 4008 4012 4013 4030 4036
4040 4052 4054 4055 4057 4063 4068 4072 4075 4078 4082 4102 4103 4105 4111 4120 4122 4124 4142 4158 4170 4175 4181
4190 4193 4194 4199 4202 4217 4225 4229 4230 4234 4241 4246 4249 4255 4268 4276 4292 4293 4295 4296 4302 4324 4337
4342 4351 4356 4376 4380 4395 4398 4399 4408 4430 4439 4440 4462 4473 4476 4478 4481 4483 4484 4503 4513 4517 4533
4536 4594 4595 4607 4619 4626 4642 4646 4652 4658 4660 4661 4668 4673 4679 4694 4702 4709 4717 4757 4768 4824 4826
4833 4839 4843 4852 4862 4865 4878 4880 4881 4902 4906 4920 4950 4951 4952 4973 4983 4984 4990 4993 4995 5004 5007
5022 5024 5040 5046 5047 5058 5063 5072 5097 5098 5099 5108 5113 5119 5126 5146 5166 5191 5207 5255 5269 5280 5310
5317 5319 5334 5338 5339 5354 5364 5382 5385 5389 5390 5396 5398 5399 5401 5413 5415 5420 5457 5465 5488 5493 5510
5523 5538 5553 5556 5575 5577 5582 5594 5606 5611 5636 5639 5642 5651 5652 5653 5681 5686 5689 5701 5712 5716 5724
5731 5732 5734 5741 5764 5767 5788 5791 5800 5813 5816 5830 5852 5876 5877 5884 5910 5929 5943 5958 5995 6002 6010
6018 6021 6022 6040 6046 6057 6075 6087 6099 6115 6126 6129 6142 6161 6163 6193 6195 6204 6206 6215 6216 6220 6224
6232 6241 6247 6287 6300 6315 6318 6322 6337 6341 6344 6348 6349 6363 6366 6376 6378 6395 6402 6406 6412 6413 6427
6448 6459 6464 6474 6477 6482 6483 6496 6498 6499 6505 6506 6514 6533 6563 6569 6573 6584 6585 6587 6591 6592 6598
6605 6631 6633 6644 6651 6654 6672 6717 6728 6736 6740 6746 6754 6759 6766 6789 6796 6797 6817 6818 6849 6851 6855
6872 6879 6900 6912 6926 6936 6955 6968 6969 6979 6980 6984 6986 6991 7017 7032 7035 7048 7064 7065 7075 7077 7081
7083 7089 7106 7107 7131 7138 7144 7150 7168 7170 7177 7181 7183 7190 7208 7220 7223 7247 7273 7284 7289 7293 7294
7296 7316 7322 7355 7360 7362 7364 7388 7392 7403 7404 7426 7427 7443 7446 7461 7482 7489 7499 7503 7507 7515 7521
7523 7525 7535 7559 7566 7582 7586 7596 7616 7623 7634 7637 7643 7645 7653 7660 7661 7663 7672 7700 7710 7714 7717
7718 7737 7741 7746 7763 7769 7780 7803 7821 7825 7839 7848 7873 7877 7882 7894 7905 7908 7911 7914 7918 7929 7936
7938 7965 7969 7973 7987 7999 8001 8034 8050 8056 8068 8073 8089 8095 8101 8128 8139 8147 8154 8171 8180 8193 8194
8201 8212 8226 8230 8231 8236 8239 8241 8243 8249 8250 8273 8278 8291 8310 8311 8317 8319 8331 8332 8344 8369 8377
8386 8392 8396 8432 8438 8439 8440 8442 8443 8455 8471 8484 8490 8492 8499 8502 8507 8520 8525 8568 8587 8589 8591
8606 8612 8623 8628 8633 8634 8645 8656 8668 8670 8702 8714 8723 8731 8732 8734 8747 8787 8794 8805 8829 8837 8838
8853 8878 8879 8880 8891 8895 8907 8909 8922 8935 8939 8972 8975 8976 9002 9031 9040 9052 9056 9057 9066 9076 9103
9115 9117 9127 9137 9145 9150 9155 9156 9160 9179 9181 9196 9203 9216 9219 9222 9224 9229 9231 9235 9242 9263 9265
9280 9282 9300 9301 9329 9332 9334
"""

EXCLUSIONS = {
    name: frozenset(f"GOT-10k_Train_{int(number):06d}" for number in numbers)
    for name, numbers in (("defective", DEFECTIVE), ("vot", VOT.split()))
}


HELD_OUT = 0.1  # share of the training sequences that validate where no names are given


@gin.register
class MVTDDataset(FolderDataset):
    """MVTD (Bakht et al., arXiv 2506.02866): 182 maritime videos, in GOT-10k layout with the parts train/ and test/.

    One folder a sequence, with frames of any name in natural order and groundtruth.txt; in train also the three label files.
    The paper has two protocols: I, trackers as they are on test; II, trackers fine-tuned on train, again on test. There is no
    part for validation, so that some sequences of train are held out by their names.

    Args:
        root: the folder of train and test.
        split: 'train' without the sequences held out, 'val' (those), 'train_full' (both) or 'test'.
        held_out: names of the sequences of train that validate; None takes the tenth of them whose names have the lowest
            CRC-32, which is the same tenth whatever other sequences there are, but for its rounding; [] holds out none.
        annotations: folder of `<sequence>/<sequence>.jsonl` files with challenge labels, if any.
        include, exclude: names of the sequences to take, to leave out.
        name: what logs call the set.
    """

    LAYOUT = "the folders train and test with a folder for each sequence (images and groundtruth.txt)"
    SPLITS = ("train", "val", "train_full", "test")
    # Which normalised precision the paper means it does not say in what we could read of it: both are reported.
    PROTOCOL = Protocol(("AUC", "OP50", "OP75", "P", "P_norm", "P_norm0.2"))

    def __init__(
        self,
        root: str,
        split: str = "test",
        annotations: str | None = None,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        name: str | None = None,
        held_out: list[str] | None = None,
    ):
        super().__init__(root, split, annotations, include, exclude, name)
        self.held_out = held_out
        if split == "val" and held_out == []:
            raise ConfigError(
                "MVTDDataset.held_out = [] leaves nothing for the split 'val'; name sequences of train, or None."
            )

    def _folder(self):
        return os.path.join(self.root, "test" if self.split == "test" else "train")

    def _names(self):
        names = super()._names()
        if self.split in ("test", "train_full"):
            return names
        held_out = set(_tenth(names) if self.held_out is None else self.held_out)
        self._require_names("held_out", held_out, names)
        return [name for name in names if (name in held_out) == (self.split == "val")]


def _tenth(names):
    """The tenth of some names (one at least) with the lowest CRC-32."""
    return sorted(names, key=lambda name: zlib.crc32(name.encode()))[: math.ceil(HELD_OUT * len(names))]
