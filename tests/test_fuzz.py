"""A sample of every fuzz: each case ends in a right value or a clear error, and both happen."""

import pytest
from soak import fuzz

COUNTS = {
    fuzz.fuzz_annotations: 300,
    fuzz.fuzz_overrides: 300,
    fuzz.fuzz_configurations: 100,
    fuzz.fuzz_boxes: 150,
    fuzz.fuzz_crops: 300,
    fuzz.fuzz_sequences: 300,
    fuzz.fuzz_results: 300,
    fuzz.fuzz_weights: 100,
    fuzz.fuzz_checkpoints: 60,
    fuzz.fuzz_images: 300,
    fuzz.fuzz_names: 100,
    fuzz.fuzz_zips: 150,
    fuzz.fuzz_disks: 60,
    fuzz.fuzz_foreign: 30,
    fuzz.fuzz_streams: 30,
}


@pytest.mark.parametrize("fuzz_one, count", COUNTS.items(), ids=lambda value: getattr(value, "__name__", str(value)))
def test_sample(clean_gin, fuzz_one, count):
    tally = fuzz_one(count, seed=0)
    assert tally.tried == count == tally.right + tally.clear_errors
    assert tally.right > 0 and (tally.clear_errors > 0 or fuzz_one is fuzz.fuzz_boxes)
