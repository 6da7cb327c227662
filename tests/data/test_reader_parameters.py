"""Each parameter of each reader does something: another value of it reads other sequences, labels or names."""

import pytest
from helpers_data import annotation, write_annotations
from reader_table import CASES, READERS, TABLE, write


def read(reader, arguments):
    """What a reader makes of some arguments."""
    dataset = READERS[reader](**arguments)
    sequences = [(s.name, tuple(s.frames), s.boxes_xywh.tolist(), s.visible.tolist()) for s in dataset.sequences]
    return dataset.name, dataset.labelled_frames, sequences


def test_every_reader_stands_in_the_table():
    assert set(TABLE) == set(READERS)


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
