"""Nothing from elsewhere is read or shown without bounds."""

import os
import zipfile

import numpy as np
import pytest

from hiptrack.files import check_archive, excerpt, read_bytes, read_text


def test_a_file_up_to_its_limit_is_read(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    assert read_bytes(path, 12) == b"\xef\xbb\xbfone\r\ntwo\n"
    assert read_text(path, 12) == "one\ntwo\n"
    for read in (read_bytes, read_text):
        with pytest.raises(OSError, match="it has 12 bytes, the most that is read is 11"):
            read(path, 11)


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file"):
            read_bytes(path, 100)


def test_bytes_that_are_no_text_are_told_apart(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"ab\xff")
    with pytest.raises(OSError, match="no UTF-8 text: .* at byte 2"):
        read_text(tmp_path / "a.txt", 100)


def test_an_archive_that_holds_what_it_unpacks_to_is_accepted(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(1000), b=np.arange(3))
    check_archive(tmp_path / "a.npz")


def test_an_archive_that_unpacks_to_more_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10**6))
    with pytest.raises(OSError, match="its entry 'a.npy' is compressed, which could unpack to any size"):
        check_archive(tmp_path / "a.npz")
    overlapping(tmp_path / "b.zip", np.zeros(10**4).tobytes(), 50)
    with pytest.raises(OSError, match="its entries overlap: they unpack to 4000000 bytes, the file has"):
        check_archive(tmp_path / "b.zip")


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(OSError, match="damaged zip file"):
        check_archive(tmp_path / "a.zip")


def overlapping(path, data, times):
    """A zip file with `times` entries that all lie at the same place."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("e", data)
        (entry,) = archive.infolist()
        archive.filelist.extend([entry] * (times - 1))


def test_an_excerpt_is_one_printable_line():
    assert excerpt("plain words, é") == "plain words, é"
    assert excerpt("a\nb\x1b[2J\udcff\u202e") == "a\\nb\\x1b[2J\\udcff\\u202e"
    assert excerpt("x" * 201) == "x" * 200 + "..."
    assert excerpt("x" * 30, 10) == "x" * 10 + "..."
