"""Each parameter of each reader does something: another value of it reads other sequences, labels or names."""

import inspect

import miniatures
import pytest
from helpers_data import annotation, write_annotations

from hiptrack.data.benchmarks import BENCHMARKS, FOR_TRAINING
from hiptrack.data.folders import FolderDataset

READERS = {reader.__name__: reader for reader in (*BENCHMARKS.values(), *FOR_TRAINING)}
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


def read(reader, arguments):
    """What a reader makes of some arguments."""
    dataset = READERS[reader](**arguments)
    sequences = [(s.name, tuple(s.frames), s.boxes_xywh.tolist(), s.visible.tolist()) for s in dataset.sequences]
    return dataset.name, dataset.labelled_frames, sequences


def write(kind, root):
    if kind == "coco":
        miniatures.coco(root, split="val2017")
    if kind == "tnl2k_pair":
        for name in ("Boat-1", "Boat-2"):
            miniatures.tnl2k_sequence(root / "TNL2K_test_subset" / name)
        kind = "tnl2k"
    getattr(miniatures, kind)(root)


def test_every_reader_stands_in_the_table():
    assert set(TABLE) == set(READERS)
    assert {reader.__name__ for reader in (FolderDataset, *FOR_TRAINING)} <= set(TABLE)


@pytest.mark.parametrize(("reader", "parameter"), CASES)
def test_another_value_reads_something_else(reader, parameter, tmp_path):
    kind, arguments, others = TABLE[reader]
    for root in ("a", "b") if parameter == "root" else ("a",):
        write(kind, tmp_path / root)
    arguments = {"root": str(tmp_path / "a"), **arguments}
    before = read(reader, arguments)
    assert read(reader, arguments) == before
    names = [sequence[0] for sequence in before[2]]
    write_annotations(tmp_path / "labels", names[0], [annotation(names[0], 1)])
    labels = {"annotations": str(tmp_path / "labels")}
    common = {"root": str(tmp_path / "b"), "include": names[:1], "exclude": names[:1], "name": "sea", **labels}
    changed = {parameter: {**common, **others}[parameter]}
    if parameter == "split":
        arguments.pop("chunks", None)
    assert read(reader, arguments | changed) != before
