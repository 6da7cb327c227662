"""Result files that are not as they were written are refused by name, and none can fill the memory."""

import io
import re
import resource
import struct
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from hiptrack.errors import DataError
from hiptrack.evaluation import results
from hiptrack.evaluation.results import SequenceResult, claim_folder, read_result, write_result
from hiptrack.evaluation.unfinished import Unfinished
from hiptrack.files import write_atomically
from hiptrack.taxonomy import TEN

FRAMES = 3
GIVEN = (1.0, 2.0, 10.0, 8.0)


@pytest.fixture
def details(tmp_path):
    """The details file of a written result in tmp_path."""
    boxes = np.array([GIVEN, (2, 2, 10, 8), (3, 2, 10, 8)])
    scores, challenges = np.array([1.0, 0.5, 0.25]), np.eye(FRAMES, 10)
    write_result(tmp_path, SequenceResult("a", boxes, np.full(FRAMES, 0.1), 0.5, scores, challenges, (120, 90)))
    return tmp_path / "a" / "a_details.npz"


def read(folder):
    return read_result(folder, "a", FRAMES, GIVEN, 10)


def failure(folder):
    with pytest.raises(DataError) as raised:
        read(folder)
    assert str(raised.value).isprintable()
    return str(raised.value)


def test_what_is_written_is_read(tmp_path, details):
    result = read(tmp_path)
    assert result.boxes_xywh.tolist() == [list(GIVEN), [2, 2, 10, 8], [3, 2, 10, 8]]
    assert (result.scores.tolist(), result.end_to_end_seconds, result.image_size) == ([1, 0.5, 0.25], 0.5, (120, 90))
    assert np.array_equal(result.challenges, np.eye(FRAMES, 10))


@pytest.mark.parametrize(
    "name, value",
    [
        ("scores", np.zeros(FRAMES + 1)),
        ("scores", np.array(["a", "b", "c"])),
        ("scores", None),
        ("challenges", np.zeros((FRAMES, 3))),
        ("image_size", np.array([120.0, 90.0])),
        ("image_size", np.array(120)),
        ("end_to_end_seconds", np.zeros(2)),
    ],
)
def test_an_array_of_another_form_is_named(tmp_path, details, name, value):
    arrays = dict(np.load(details)) | {name: value}
    np.savez(details, **{key: array for key, array in arrays.items() if array is not None})
    assert failure(tmp_path).startswith(f"{details}: holds no {name} of 3 frames. Move the sequence's")


@pytest.mark.parametrize("side, place", [(0, 1.0), (4, np.nan), (4, np.inf)])
def test_score_maps_without_size_or_place_are_refused(tmp_path, details, side, place):
    moments = {"moment_frames": np.array([2]), "moment_maps": np.zeros((1, side, side), np.float16)}
    np.savez(details, **np.load(details), **moments, moment_regions=np.full((1, 4), place))
    assert failure(tmp_path).startswith(f"{details}: holds score maps without size or place. Move the sequence's")


def test_pickled_objects_are_refused(tmp_path, details):
    np.savez(details, **(dict(np.load(details)) | {"scores": np.array([1, None, "x"], object)}))
    assert f"{details}: cannot be read (Object arrays cannot be loaded" in failure(tmp_path)


def test_compressed_arrays_are_refused(tmp_path, details):
    np.savez_compressed(details, **dict(np.load(details)))
    assert f"{details}: cannot be read (its entry 'scores.npy' is compressed" in failure(tmp_path)


def test_an_array_that_claims_a_length_beyond_memory_is_refused(tmp_path, details):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }\n"
    with zipfile.ZipFile(details, "w") as archive:
        archive.writestr("scores.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    assert failure(tmp_path).startswith(f"{details}: cannot be read (")


@pytest.mark.parametrize("bit", [0, 5, 6])
def test_flags_of_an_encrypted_archive_are_an_error(tmp_path, details, bit):
    data = bytearray(details.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 8] |= 1 << bit
    details.write_bytes(data)
    assert failure(tmp_path).startswith(f"{details}: cannot be read (")


@pytest.mark.parametrize("name", ["a_001.txt", "a_time.txt", "a_details.npz"])
def test_files_of_any_size_are_not_read(tmp_path, details, monkeypatch, name):
    monkeypatch.setattr(results, "MAX_BYTES", 10_000)
    assert len(read(tmp_path).scores) == FRAMES
    with open(tmp_path / "a" / name, "ab") as file:
        file.write(b"\n" * 10_000)
    assert f"{name}: cannot be read (it has" in failure(tmp_path)


@pytest.mark.parametrize("name", ["a_001.txt", "a_time.txt"])
def test_a_file_of_many_rows_is_refused_by_their_number(tmp_path, details, name):
    (tmp_path / "a" / name).write_bytes(b"\n" * 2**26)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert f"{name}: has {2**26} lines, but the sequence has 3 frames" in failure(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB; its rows would take 4 GiB


@pytest.mark.parametrize(
    "name, words",
    [
        ("x" * 233, "xxx... is too long: 233 bytes, with which a file of results would have 256. At most 255"),
        ("é" * 117, "is too long: 234 bytes"),
        ("key.json", "The sequence key.json is called like a file of the results folder"),
        ("Report.html", "is called like a file"),
    ],
)
def test_a_name_that_no_result_can_have_is_told_before_anything_is_tracked(tmp_path, name, words):
    with pytest.raises(DataError, match=re.escape(words)):
        claim_folder(tmp_path / "results", "key", ["a", name], TEN)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["report.json", "report.html", "submission.zip"])
def test_a_folder_of_someone_else_is_not_taken_for_results(tmp_path, name):
    (tmp_path / name).write_text("theirs")
    with pytest.raises(DataError, match=f"is no folder of results .* its {re.escape(name)} would be overwritten"):
        claim_folder(tmp_path, "key", ["a"], TEN)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


def test_a_sequence_s_folder_that_is_a_link_is_not_written_through(tmp_path):
    theirs, folder = tmp_path / "theirs" / "a_001.txt", tmp_path / "out"
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    folder.mkdir()
    (folder / "a").symlink_to(theirs.parent)
    with pytest.raises(DataError, match="cannot be used: .*a is a link, and what it leads to would be changed"):
        claim_folder(folder, "key", ["a"], TEN)
    assert list(theirs.parent.iterdir()) == [theirs] and theirs.read_text() == "theirs"


def test_the_longest_name_is_written_and_read(tmp_path):
    name, boxes = "é" * 116, np.array([GIVEN])
    claim_folder(tmp_path, "key", [name], TEN)
    write_result(tmp_path, SequenceResult(name, boxes, np.full(1, 0.1), 0.5, np.ones(1), None, (120, 90)))
    assert read_result(tmp_path, name, 1, GIVEN, 10).name == name
    write_atomically(Unfinished(tmp_path, "key")._path(SimpleNamespace(name=name)), b"")


def test_an_endless_line_has_a_short_error(tmp_path, details):
    path = tmp_path / "a" / "a_time.txt"
    path.write_text("x" * 9000 + "\n1\n2\n")
    assert failure(tmp_path).startswith(f"{path}:1: is 'xxx") and len(failure(tmp_path)) < 500


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe", b"{}", b"[]"])
def test_a_key_file_of_another_form_is_refused(tmp_path, content):
    (tmp_path / "key.json").write_bytes(content)
    with pytest.raises(DataError, match="key.json is not of the form"):
        claim_folder(tmp_path, "abc", ["a"], TEN)
    assert (tmp_path / "key.json").read_bytes() == content


def test_the_archive_of_a_result_is_what_numpy_writes(details):
    buffer = io.BytesIO(details.read_bytes())
    assert set(np.load(buffer).files) == {"scores", "end_to_end_seconds", "image_size", "made_of", "challenges"}
