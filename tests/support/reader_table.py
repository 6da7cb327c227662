"""The readers, a miniature of each one's data, and other values of its parameters."""

import inspect

import miniatures

from hiptrack.data.benchmarks import BENCHMARKS
from hiptrack.data.detection import COCODataset, ImageNetVIDDataset

READERS = {reader.__name__: reader for reader in (*BENCHMARKS.values(), COCODataset, ImageNetVIDDataset)}
# {reader: (its miniature, arguments, {parameter: another value})}; of what all have, `common` has the other values.
TABLE = {
    "FolderDataset": ("got10k", {"split": "train"}, {"exclude_known": ["defective"]}),
    "LaSOTDataset": ("lasot", {}, {"split": "train"}),
    "LaSOTExtensionDataset": ("lasot_ext", {}, {}),
    "TrackingNetDataset": ("trackingnet", {"split": "train", "chunks": [0]}, {"split": "test", "chunks": [0, 1]}),
    "UAV123Dataset": ("uav123", {}, {}),
    "OTBDataset": ("otb", {}, {}),
    "NfSDataset": ("nfs", {}, {}),
    "TNL2KDataset": ("tnl2k_pair", {"split": "TNL2K_test_subset"}, {"split": "TNL2K_train_subset"}),
    "MVTDDataset": ("mvtd", {"split": "train"}, {"split": "val", "held_out": ["3-Boat"]}),
    "COCODataset": ("coco", {}, {"split": "val2017", "smallest": 1.0}),
    "ImageNetVIDDataset": ("vid", {}, {"split": "val"}),
}
CASES = [
    (reader, parameter)
    for reader in TABLE
    for parameter in inspect.signature(READERS[reader]).parameters
    if reader != "FolderDataset" or parameter == "exclude_known"  # the others: test_every_parameter.py
]
READER_PARAMETERS = set(CASES)


def write(kind, root):
    """Write the miniature `kind` below a folder."""
    if kind == "coco":
        miniatures.coco(root, split="val2017")
    if kind == "tnl2k_pair":
        for name in ("Boat-1", "Boat-2"):
            miniatures.tnl2k_sequence(root / "TNL2K_test_subset" / name)
        kind = "tnl2k"
    getattr(miniatures, kind)(root)
