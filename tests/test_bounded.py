"""Nothing from elsewhere is read or shown without bounds, and nothing of others is written or deleted."""

import os
import zipfile

import numpy as np
import pytest

from hiptrack import files
from hiptrack.files import (
    check_archive,
    excerpt,
    file_hash,
    iter_lines,
    open_own,
    read_bytes,
    read_text,
    remove_leftovers,
    write_atomically,
)

READERS = [read_bytes, read_text, lambda path, limit: list(iter_lines(path, limit, 10))]


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
        for read in (*READERS, lambda path, _: file_hash(path)):
            with pytest.raises(OSError, match="not a regular file"):
                read(path, 100)


@pytest.mark.parametrize("read", READERS, ids=["bytes", "text", "lines"])
def test_what_has_no_size_is_counted_as_it_is_read(read):
    """A regular file of the system says that it has no bytes."""
    assert os.stat("/proc/self/status").st_size == 0
    assert len(read("/proc/self/status", 10**6)) > 10
    with pytest.raises(OSError, match="it has more than 100 bytes, the most that is read"):
        read("/proc/self/status", 100)


@pytest.mark.parametrize("read", READERS, ids=["bytes", "text", "lines"])
def test_what_does_not_end_is_not_waited_for(read, tmp_path, monkeypatch):
    """As /proc/kmsg: regular by its mode, and a read waits for the next message."""
    near, far = os.pipe()
    os.write(far, b"one\n")
    (tmp_path / "a").write_bytes(b"")
    opened = os.open

    def reader(path, flags, *mode):
        if path != str(tmp_path / "a"):
            return opened(path, flags, *mode)
        return opened(f"/proc/self/fd/{near}", flags)

    regular = os.stat(tmp_path / "a")
    monkeypatch.setattr(files.os, "open", reader)
    monkeypatch.setattr(files.os, "fstat", lambda _: regular)
    with pytest.raises(OSError, match="it does not end"):
        read(tmp_path / "a", 100)
    os.close(far)
    os.close(near)


def test_lines_come_one_by_one_and_a_long_one_is_left_out(tmp_path):
    (tmp_path / "a").write_bytes(b"one\r\n" + b"x" * 5000 + b"\n\nlast")
    assert list(iter_lines(tmp_path / "a", 10**4, 10)) == [(1, b"one\r\n"), (2, None), (3, b"\n"), (4, b"last")]


def test_a_file_that_is_written_meanwhile_is_read_to_its_limit(tmp_path):
    (tmp_path / "a").write_bytes(b"one\n")
    lines = iter_lines(tmp_path / "a", 10, 10)
    assert next(lines) == (1, b"one\n")
    with open(tmp_path / "a", "ab") as file:
        file.write(b"two\n" * 5)
    with pytest.raises(OSError, match="it has more than 10 bytes"):
        list(lines)


def test_a_link_is_not_written_through(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    os.symlink(tmp_path / "theirs", tmp_path / "link")
    os.symlink(tmp_path / "nowhere", tmp_path / "hanging")
    os.link(tmp_path / "theirs", tmp_path / "hard")
    os.mkfifo(tmp_path / "pipe")
    for name, words in {"link": "a link", "hanging": "a link", "hard": "a hard link", "pipe": "not a regular"}.items():
        with pytest.raises(OSError, match=f"{name} is {words}"):
            open_own(tmp_path / name)
    assert (tmp_path / "theirs").read_text() == "theirs" and not (tmp_path / "nowhere").exists()
    write_atomically(tmp_path / "link", b"ours")  # which puts a file in the place of the link
    assert (tmp_path / "link").read_bytes() == b"ours" and (tmp_path / "theirs").read_text() == "theirs"


def test_a_name_may_be_as_long_as_a_name_can_be(tmp_path):
    path = tmp_path / ("é" * 127 + "x")
    write_atomically(path, b"one")
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]


def test_only_what_a_killed_write_left_is_deleted(tmp_path, monkeypatch):
    theirs = [".notes.tmp", ".a.0123456789abcdef0123456789abcdef.tmp.tmp", f".hiptrack-{'0' * 31}.tmp", "a.tmp"]
    for name in theirs:
        (tmp_path / name).write_text("theirs")
    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "unlink", lambda *_, **__: None)
        patch.setattr(files.os, "replace", lambda *_: None)  # as if it was killed here
        write_atomically(tmp_path / "report.json", b"{}")
    assert len(list(tmp_path.iterdir())) == 5
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(theirs)


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
