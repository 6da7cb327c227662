"""Every fuzz by its name: each takes (count, seed), returns a Tally, and raises AssertionError with the failing case."""

from soak.fuzz_annotations import fuzz_annotations
from soak.fuzz_checkpoints import fuzz_checkpoints
from soak.fuzz_config import fuzz_configurations, fuzz_overrides
from soak.fuzz_core import Tally
from soak.fuzz_folders import fuzz_results, fuzz_sequences
from soak.fuzz_geometry import fuzz_boxes, fuzz_crops
from soak.fuzz_weights import fuzz_weights

__all__ = [
    "Tally", "fuzz_annotations", "fuzz_boxes", "fuzz_checkpoints", "fuzz_configurations", "fuzz_crops", "fuzz_overrides", "fuzz_results",
    "fuzz_sequences", "fuzz_weights",
]  # fmt: skip
