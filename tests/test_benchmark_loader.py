"""The loader's benchmark reads the same crops in both ways."""

import pytest

from hiptrack.benchmark import loader


def test_rows_of_a_small_run(monkeypatch):
    monkeypatch.setattr(loader, "SIZE", (960, 540))
    monkeypatch.setattr(loader, "PICTURES", 6)
    rows = loader.compare_loaders(samples=4, repetitions=1)
    assert [row["target side"] for row in rows] == ["40 to 130", "130 to 220", "220 to 310", "310 to 400", "40 to 400"]
    assert all(row["plain samples/s"] > 0 and row["samples/s"] > 0 and row["ratio"] > 0 for row in rows)
    differences = [row["mean difference"] for row in rows]
    assert differences[0] < 0.01 < differences[3] < 3  # small targets are decoded whole, large ones reduced
    assert differences[4] == pytest.approx(sum(differences[:4]) / 4)
