"""The loader's benchmark reads the same crops in both ways."""

import pytest

from hiptrack.extras.benchmark import loader


@pytest.mark.slow
def test_rows_of_a_small_run(monkeypatch):
    monkeypatch.setattr(loader, "SIZE", (960, 540))
    monkeypatch.setattr(loader, "PICTURES", 6)
    rows = loader.compare_loaders(samples=4, repetitions=1)
    assert len(rows) == 4
    assert all(row["plain samples/s"] > 0 and row["samples/s"] > 0 and row["ratio"] > 0 for row in rows)
    sizes = [row["kB a picture"] for row in rows]
    assert sizes == sorted(sizes)
    assert all(0 < row["mean difference"] < 3 for row in rows)
