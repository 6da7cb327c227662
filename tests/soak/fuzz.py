"""Every fuzz by its name: each takes (count, seed), returns a Tally, and raises AssertionError with the failing case."""

from soak.fuzz_annotations import fuzz_annotations
from soak.fuzz_checkpoints import fuzz_checkpoints
from soak.fuzz_config import fuzz_configurations, fuzz_overrides
from soak.fuzz_core import Tally
from soak.fuzz_disks import fuzz_disks
from soak.fuzz_folders import fuzz_results, fuzz_sequences
from soak.fuzz_foreign import fuzz_foreign
from soak.fuzz_geometry import fuzz_boxes, fuzz_crops
from soak.fuzz_images import fuzz_images
from soak.fuzz_names import fuzz_names
from soak.fuzz_streams import fuzz_streams
from soak.fuzz_weights import fuzz_weights
from soak.fuzz_zips import fuzz_zips

__all__ = [
    "Tally", "fuzz_annotations", "fuzz_boxes", "fuzz_checkpoints", "fuzz_configurations", "fuzz_crops", "fuzz_disks", "fuzz_foreign", "fuzz_images",
    "fuzz_names", "fuzz_overrides", "fuzz_results", "fuzz_sequences", "fuzz_streams", "fuzz_weights", "fuzz_zips",
]  # fmt: skip
