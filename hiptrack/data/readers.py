"""The readers of benchmarks by the names that tools/eval.py has for them. Importing this registers every reader with gin."""

from hiptrack.data.coco import COCODataset
from hiptrack.data.dataset import SequenceDataset
from hiptrack.data.imagenet_vid import ImageNetVIDDataset
from hiptrack.data.lasot import LaSOTDataset, LaSOTExtensionDataset
from hiptrack.data.mvtd import MVTDDataset
from hiptrack.data.nfs import NfSDataset
from hiptrack.data.otb import OTBDataset
from hiptrack.data.sequences import FolderDataset
from hiptrack.data.tnl2k import TNL2KDataset
from hiptrack.data.trackingnet import TrackingNetDataset
from hiptrack.data.uav123 import UAV123Dataset
from hiptrack.errors import ConfigError

BENCHMARKS = {
    "got10k": FolderDataset,
    "lasot": LaSOTDataset,
    "lasot_ext": LaSOTExtensionDataset,
    "trackingnet": TrackingNetDataset,
    "uav123": UAV123Dataset,
    "otb": OTBDataset,
    "nfs": NfSDataset,
    "tnl2k": TNL2KDataset,
    "mvtd": MVTDDataset,
    "folder": FolderDataset,
}
FOR_TRAINING = (COCODataset, ImageNetVIDDataset)


def open_benchmark(
    benchmark: str, root: str, split: str | None = None, annotations: str | None = None
) -> SequenceDataset:
    """The reader of a benchmark, a key of BENCHMARKS; without `split` its own choice.

    Raises ConfigError for a split where the benchmark has none.
    """
    reader = BENCHMARKS[benchmark]
    if split is None:
        return reader(root, annotations=annotations)
    if reader.SPLITS == ():
        raise ConfigError(f"--split {split}: {benchmark} has no splits; leave it out.")
    return reader(root, split=split, annotations=annotations)
