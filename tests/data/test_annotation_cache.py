"""Annotations kept in one memory-mapped file: the same sequences, as long as nothing that was read has changed."""

import builtins
import io
import logging
import multiprocessing
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers_data import annotation, write_annotations, write_image, write_lines, write_sequence, write_split
from reader_table import READERS, TABLE, write

from hiptrack.data import cache as annotation_cache
from hiptrack.data import sources as annotation_sources
from hiptrack.data.cache import cache_folder
from hiptrack.data.folders import FolderDataset
from hiptrack.data.sources import choosing_times, noting_sources
from hiptrack.errors import DataError

BOXES = [(1, 2, 10, 8), (2, 2, 10, 8), (3, 2, 10.5, 8)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of the cache, in which small data sets are kept, too, and those that were just written."""
    monkeypatch.setenv("HIPTRACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(annotation_cache, "FEWEST_SOURCES", 0)
    monkeypatch.setattr(annotation_cache, "SETTLED", -10.0)
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    """A data set of three sequences with label files, and annotations of one of them."""
    write_split(tmp_path / "data" / "train", {"c": BOXES, "a": BOXES})
    write_sequence(tmp_path / "data" / "train" / "b", BOXES, absence=[0, 0, 1], cover=[8, 4, 0])
    write_lines(tmp_path / "data" / "train" / "list.txt", ["c", "a", "b"])
    write_annotations(tmp_path / "data" / "labels", "a", [annotation("a", 2, ["occlusion"])])
    return tmp_path / "data"


def dataset(root, **options):
    return FolderDataset(str(root), "train", str(root / "labels"), **options)


def content(sequences):
    """Everything that sequences hold."""
    arrays = [
        (s.boxes_xywh, s.visible, s.cover, *((s.labels.flags, s.labels.annotated) if s.labels else ()))
        for s in sequences
    ]
    return [
        (s.name, list(s.frames), s.is_still, s.image_size, [(a.dtype, a.tolist()) for a in own])
        for s, own in zip(sequences, arrays)
    ]


def is_read(dataset, caplog):
    """Whether the source files are read, not the cache."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        _ = dataset.sequences
    return "annotations from" not in caplog.text


@pytest.mark.parametrize("reader", TABLE)
def test_every_reader_gives_the_same_sequences_from_the_cache_and_names_all_that_it_reads(
    reader, tmp_path, monkeypatch, caplog
):
    kind, arguments, _ = TABLE[reader]
    write(kind, tmp_path / "data")
    touched, scan = set(), os.scandir

    def make():
        return READERS[reader](str(tmp_path / "data"), **arguments)

    with monkeypatch.context() as patch, noting_sources() as sources:
        opened = builtins.open
        patch.setattr(builtins, "open", lambda path, *mode, **more: touched.add(path) or opened(path, *mode, **more))
        patch.setattr(os, "scandir", lambda path: touched.add(path) or scan(path))
        plain = make()._read()
    assert touched and touched <= set(sources)
    assert is_read(make(), caplog)
    kept = make()
    assert not is_read(kept, caplog)
    assert content(kept.sequences) == content(plain)


def test_labels_and_whole_text_are_kept_too(root, caplog):
    first = dataset(root)
    assert is_read(first, caplog)
    second = dataset(root)
    assert not is_read(second, caplog)
    assert "2 of 3 sequences have no annotation file" in caplog.text  # told at every start
    assert content(second.sequences) == content(first.sequences)
    assert second.describe() == first.describe() and second.labelled_frames == 1


def test_what_is_kept_is_mapped_and_a_change_stays_in_the_process(root, cache):
    _ = dataset(root).sequences
    (file,) = cache.iterdir()
    before, kept = file.read_bytes(), dataset(root).sequences
    with open("/proc/self/maps") as maps:
        assert str(file) in maps.read()
    kept[0].boxes_xywh[:] = 7
    assert file.read_bytes() == before and dataset(root).sequences[0].boxes_xywh[0, 0] == 1


def rewritten(path, text):
    """A file with another content and another time: tests are faster than some clocks."""
    old = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(old + 10**9, old + 10**9))


def same_size_and_time(root):
    """As by a copy that keeps the time; that of the status is another, whatever the clock."""
    truth = root / "train" / "a" / "groundtruth.txt"
    times = truth.stat()
    text = truth.read_text().replace("1,2,10,8", "5,2,10,8")
    while truth.stat().st_ctime_ns == times.st_ctime_ns:
        truth.write_text(text)
        os.utime(truth, ns=(times.st_atime_ns, times.st_mtime_ns))


def in_a_folder(change):
    """`change(folder of a)`, after which the folder's time is another, whatever the clock."""

    def changed(root):
        folder = root / "train" / "a"
        old = folder.stat().st_mtime_ns
        change(folder)
        os.utime(folder, ns=(old + 10**9, old + 10**9))

    return changed


def one_more(folder):
    write_image(folder / "00000004.jpg")
    rewritten(folder / "groundtruth.txt", "1,2,3,4\n" * 4)


CHANGES = {
    "boxes of the same size and time": same_size_and_time,
    "an image renamed": in_a_folder(lambda folder: (folder / "00000003.jpg").rename(folder / "00000009.jpg")),
    "an image more": in_a_folder(one_more),
    "a label file more": in_a_folder(lambda folder: write_lines(folder / "absence.label", [0, 1, 0])),
    "the list": lambda root: rewritten(root / "train" / "list.txt", "c\na\n"),
    "annotations": lambda root: rewritten(root / "labels" / "a" / "a.jsonl", ""),
    "annotations where there were none": lambda root: write_annotations(root / "labels", "c", [annotation("c", 1)]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_change_of_the_sources_is_noticed(root, caplog, change):
    before = content(dataset(root).sequences)
    change(root)
    changed = dataset(root)
    assert is_read(changed, caplog) and "has changed" in caplog.text
    assert content(changed.sequences) != before
    assert content(changed.sequences) == content(dataset(root)._read())
    assert not is_read(dataset(root), caplog)


def other_boxes(root):
    with open(root / "train" / "b" / "groundtruth.txt", "r+") as file:
        file.write("7,2,10,8")


def a_folder_for_an_image(root):
    (root / "train" / "a" / "00000003.jpg").unlink()
    (root / "train" / "a" / "00000003.jpg").mkdir()


@pytest.mark.parametrize("fraction", [0, 5], ids=["times of whole seconds", "a device that chooses its times"])
@pytest.mark.parametrize("change", [other_boxes, a_folder_for_an_image])
def test_where_times_tell_nothing_the_content_does(root, caplog, monkeypatch, change, fraction):
    def in_an_image(path):
        """As of a mounted image, whose maker gave all the same time; inodes and sizes may be those of another image."""
        status, second = os.stat(path), 1_700_000_000
        times = dict.fromkeys(("st_mtime_ns", "st_ctime_ns"), second * 10**9 + fraction)
        return os.stat_result((status.st_mode, 7, status.st_dev, 1, 0, 0, status.st_size, *[second] * 3), times)

    devices = {os.stat(root).st_dev} if fraction else set()
    monkeypatch.setattr(annotation_sources, "choosing_times", lambda: devices)
    monkeypatch.setattr(annotation_sources, "os", SimpleNamespace(stat=in_an_image, scandir=os.scandir))
    _ = dataset(root).sequences
    assert not is_read(dataset(root), caplog)
    change(root)
    if change is other_boxes:
        assert is_read(dataset(root), caplog) and "groundtruth.txt has changed" in caplog.text
        assert dataset(root).sequences[2].boxes_xywh[0, 0] == 7
    else:
        with pytest.raises(DataError, match="3 boxes for 2 images"):
            _ = dataset(root).sequences


def test_a_mounted_file_system_is_known_by_its_kind(monkeypatch):
    mounts = """22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 / /mnt/a\\040b ro,noatime master:1 - squashfs /dev/loop0 ro
37 35 0:33 / /mnt/c rw shared:2 propagate_from:3 - fuse.sshfs host:/ rw
38 35 254:1 / / rw - ext4 /dev/vda rw
"""
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.StringIO(mounts))
    assert choosing_times() == {os.makedev(98, 0), os.makedev(0, 33)}


def test_an_image_that_is_gone_is_the_error_that_it_was(root):
    _ = dataset(root).sequences
    in_a_folder(lambda folder: (folder / "00000003.jpg").unlink())(root)
    with pytest.raises(DataError, match="3 boxes for 2 images"):
        _ = dataset(root).sequences


def test_another_version_of_the_code_or_of_its_lists_reads_anew(root, tmp_path, caplog, monkeypatch):
    package = tmp_path / "package"
    shutil.copytree(Path(annotation_cache.__file__).parent, package)
    monkeypatch.setattr(annotation_cache, "__file__", str(package / "cache.py"))
    _ = dataset(root).sequences
    assert not is_read(dataset(root), caplog)
    for file, line in (("folders.py", "# another\n"), ("lists/uav123.txt", "boat10 boat10 1 5\n")):
        with open(package / file, "a") as opened:
            opened.write(line)
        assert is_read(dataset(root), caplog) and "the code that reads them has changed" in caplog.text
        assert not is_read(dataset(root), caplog)


def test_other_settings_and_another_folder_of_the_same_name_have_their_own(root, tmp_path, caplog, monkeypatch):
    _ = dataset(root).sequences
    assert [s.name for s in dataset(root, exclude=["a"]).sequences] == ["c", "b"]
    for place in ("one", "two"):
        write_split(tmp_path / place / "data" / "train", {place: BOXES})
        monkeypatch.chdir(tmp_path / place)
        relative = FolderDataset("data", "train")
        assert is_read(relative, caplog) and relative.sequences[0].frames[0] == f"data/train/{place}/00000001.jpg"


def test_what_was_written_just_now_is_not_kept_yet(root, cache, caplog, monkeypatch):
    monkeypatch.setattr(annotation_cache, "SETTLED", 2.0)
    now = max(path.stat().st_ctime for path in root.rglob("*"))
    monkeypatch.setattr("time.time", lambda: now + 1)
    assert is_read(dataset(root), caplog) and is_read(dataset(root), caplog) and not cache.exists()
    monkeypatch.setattr("time.time", lambda: now + 3)
    assert is_read(dataset(root), caplog) and not is_read(dataset(root), caplog)


def test_a_malformed_source_is_no_start_of_a_cache(root, cache):
    write_lines(root / "train" / "a" / "groundtruth.txt", ["1,2,3,4", "oops", "1,2,3,4"])
    for _ in range(2):
        with pytest.raises(DataError, match="groundtruth.txt:2: 'oops' is not a box"):
            _ = dataset(root).sequences
    assert not cache.exists()


def test_any_damage_is_noticed_and_told_and_repaired(root, cache, caplog):
    expected = content(dataset(root).sequences)
    (file,) = cache.iterdir()
    sound, rng = file.read_bytes(), np.random.default_rng(0)
    damages = [b"", b"x", sound[:-1], sound[: len(sound) // 2], sound + b"\0", bytes(len(sound))]
    for place in [0, 9, 25, 40, 60, *rng.integers(0, len(sound), 30)]:  # the header's length, the header, anywhere
        damages.append(sound[:place] + bytes([sound[place] ^ 16]) + sound[place + 1 :])
    for damage in damages:
        file.write_bytes(damage)
        again = dataset(root)
        assert is_read(again, caplog) and "is damaged" in caplog.text
        assert content(again.sequences) == expected
        assert not is_read(dataset(root), caplog)


def test_a_folder_or_a_pipe_in_its_place_does_not_stop_the_reading(root, cache, caplog):
    expected = content(dataset(root).sequences)
    (file,) = cache.iterdir()
    file.unlink()
    os.mkfifo(file)
    assert content(dataset(root).sequences) == expected
    file.unlink()
    file.mkdir()
    again = dataset(root)
    assert is_read(again, caplog) and "cannot be kept" in caplog.text
    assert content(again.sequences) == expected


def test_a_cache_that_cannot_be_written_is_a_warning(root, tmp_path, caplog, monkeypatch):
    write_lines(tmp_path / "file", ["no folder"])
    monkeypatch.setenv("HIPTRACK_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        assert is_read(dataset(root), caplog)
        assert "the annotations cannot be kept in" in caplog.text and "set HIPTRACK_CACHE" in caplog.text


def test_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HIPTRACK_CACHE", "~/here")
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("HIPTRACK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "hiptrack"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "hiptrack"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where nobody has a home
    assert cache_folder() is None


def test_an_empty_variable_and_a_small_data_set_keep_nothing(root, cache, caplog, monkeypatch):
    monkeypatch.setattr(annotation_cache, "FEWEST_SOURCES", 100)
    assert is_read(dataset(root), caplog) and is_read(dataset(root), caplog)
    monkeypatch.setattr(annotation_cache, "FEWEST_SOURCES", 0)
    monkeypatch.setenv("HIPTRACK_CACHE", "")
    assert is_read(dataset(root), caplog) and is_read(dataset(root), caplog)
    assert not cache.exists()


def read_in_process(root, start, queue):
    start.wait()
    queue.put(content(dataset(root).sequences))


def test_processes_that_start_at_once_all_get_the_sequences_and_leave_one_sound_file(root, cache, caplog):
    context = multiprocessing.get_context("fork")
    start, queue = context.Event(), context.Queue()
    processes = [context.Process(target=read_in_process, args=(root, start, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == [content(dataset(root)._read())] * 4
    assert len(list(cache.iterdir())) == 1 and not is_read(dataset(root), caplog)
