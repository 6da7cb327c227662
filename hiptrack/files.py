"""Writing files so that a crash, a full disk or a power cut leaves the old content or the new, never half of it."""

import os
import stat
import uuid
import zipfile
from pathlib import Path


def write_atomically(path, data):
    """Write bytes to `path` so that it holds all of them or stays as it was; missing folders are made.

    Raises OSError, after which nothing is left of the attempt.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # another machine may write the same file
    try:
        write_synced(unfinished, data)
        os.replace(unfinished, path)
        sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_leftovers(folder):
    """Delete what a process that was killed in `write_atomically` left in a folder that is now ours alone."""
    for path in Path(folder).glob(".*.tmp"):
        path.unlink()


def write_synced(path, data):
    """Write bytes to a file and wait until they are on the disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path):
    """Wait until a folder's entries (names made, renamed, removed) are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_file(path: str | os.PathLike, limit: int) -> None:
    """Accepts a regular file of at most `limit` bytes; a pipe or a device would block or never end."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    if status.st_size > limit:
        raise OSError(f"it has {status.st_size} bytes, the most that is read is {limit}")


def read_bytes(path: str | os.PathLike, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes."""
    check_file(path, limit)
    with open(path, "rb") as file:
        return file.read()


def read_text(path: str | os.PathLike, limit: int) -> str:
    """A UTF-8 text of at most `limit` bytes, every line end as a newline, without byte order mark."""
    check_file(path, limit)
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise OSError(f"it is no UTF-8 text: {error.reason} at byte {error.start}") from error


def check_archive(path: str | os.PathLike) -> None:
    """Accepts a zip file whose entries lie in it as they are, as PyTorch and NumPy write them.

    Compressed or overlapping entries could unpack to any multiple of the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise OSError(f"it is a damaged zip file: {error}") from error
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise OSError(f"its entry {entry.filename!r} is compressed, which could unpack to any size")
    total, size = sum(entry.file_size for entry in entries), os.path.getsize(path)
    if total > size:
        raise OSError(f"its entries overlap: they unpack to {total} bytes, the file has {size}")


def excerpt(text: str, most: int = 200) -> str:
    """A text as a message can hold it: one line of printable characters, cut after `most` of them."""
    shown = text if len(text) <= most else f"{text[:most]}..."
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in shown)


ABSENT = (-1, -1, -1)


def signature(path: str) -> tuple[int, int, int]:
    """(bytes, last change of content, last change of status, in ns) of a file or folder; ABSENT where it is not there.

    The time of the content can be set, and is by whatever copies a file with its time; that of the status cannot.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ABSENT
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
