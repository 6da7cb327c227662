"""Files: written so that a crash leaves the old content or the new, never half of it; read in bounded size; nothing else touched.

What is opened for writing where a folder may come from elsewhere goes through `open_own`, which follows no link. What is
deleted there has a name that only this package gives.
"""

import hashlib
import os
import re
import stat
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from hiptrack.screen import shown

UNFINISHED = re.compile(r"\.hiptrack-[0-9a-f]{32}\.tmp")  # the names that `write_atomically` makes
SMALL = 2**12
ANY_SIZE = 2**63  # the limit where a file's size is its own affair


def write_atomically(path, data):
    """Write bytes to `path` so that it holds all of them or stays as it was; missing folders are made.

    Raises OSError that names the path, after which nothing is left of the attempt.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another machine may write the same file. The name is short: `path` may have as long a name as there can be.
    unfinished = path.with_name(f".hiptrack-{uuid.uuid4().hex}.tmp")
    try:
        write_synced(unfinished, data)
        os.replace(unfinished, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is None:  # of `check_own`, which names the path
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # not the unfinished file, which nobody knows
    finally:
        with suppress(OSError):  # it went, or never was
            unfinished.unlink()


def remove_leftovers(folder, idle=0.0):
    """Delete what a process that was killed in `write_atomically` left in a folder.

    idle: for how many seconds nothing was written to it; 0 where the folder is ours alone.
    """
    for path in Path(folder).iterdir():
        if UNFINISHED.fullmatch(path.name):
            with suppress(FileNotFoundError):  # it may be finished just now
                if path.stat().st_mtime <= time.time() - idle:
                    path.unlink()


def write_synced(path, data):
    """Write bytes to a file and wait until they are on the disk."""
    with open_own(path) as file:
        file.truncate(0)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def open_own(path: str | os.PathLike) -> BinaryIO:
    """A file opened to be read and appended to; made where it is missing. Raises OSError as `check_own`, or for no file."""
    return open(path, "ab+", opener=_open_own)


def _open_own(path, flags):
    check_own(path)
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is not a regular file; remove it")
    return handle


def check_own(path: str | os.PathLike) -> None:
    """Raises OSError where to write to a file, or into a folder, would change something elsewhere: where it is a link."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode):
        raise OSError(f"{path} is a link, and what it leads to would be changed; remove the link")
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise OSError(f"{path} is a hard link, and its other name would be changed, too; put a copy in its place")


def sync_folder(path):
    """Wait until a folder's entries (names made, renamed, removed) are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_file(path: str | os.PathLike, limit: int) -> None:
    """Accepts a regular file of at most `limit` bytes; a pipe or a device would block or never end."""
    _check(os.stat(path), limit)


def _check(status, limit):
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    if status.st_size > limit:
        raise OSError(f"it has {status.st_size} bytes, the most that is read is {limit}")


def open_bounded(path: str | os.PathLike, limit: int, buffering: int = -1) -> BinaryIO:
    """A file that `check_file` accepts, opened to be read as bytes; a read that would wait gives None."""
    check_file(path, limit)  # first: the other end of a pipe would see that it is opened
    file = open(path, "rb", buffering, opener=_without_waiting)  # noqa: SIM115  the caller closes it
    try:
        _check(os.fstat(file.fileno()), limit)
    except OSError:
        file.close()
        raise
    return file


def _without_waiting(path, flags):
    return os.open(path, flags | os.O_NONBLOCK)


def read_bytes(path: str | os.PathLike, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes.

    They are counted as they are read: a file can grow, and those of the system (/proc) have no size. Raises OSError.
    """
    with open_bounded(path, limit, buffering=0) as file:
        content, wanted = b"", os.fstat(file.fileno()).st_size + 1
        while more := file.read(min(wanted, limit + 1 - len(content))):
            wanted = len(content) or SMALL
            content = content + more if content else more
    if more is None:
        raise OSError(ENDLESS)
    if len(content) > limit:
        raise OSError(f"it has more than {limit} bytes, the most that is read")
    return content


ENDLESS = "it does not end: a regular file was expected"


def read_text(path: str | os.PathLike, limit: int) -> str:
    """A UTF-8 text of at most `limit` bytes, every line end as a newline, without byte order mark."""
    try:
        text = read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OSError(f"it is no UTF-8 text: {error.reason} at byte {error.start}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def iter_lines(path: str | os.PathLike, limit: int, longest: int) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, bytes) of each line of a file of at most `limit` bytes, one at a time.

    None for the bytes of a line that has more than `longest` of them. Raises OSError.
    """
    with open_bounded(path, limit) as file:
        number, left = 0, limit
        while line := file.readline(longest + 1):
            number += 1
            left -= len(line)
            if len(line) > longest:
                while left >= 0 and line and not line.endswith(b"\n"):
                    line = file.readline(longest)
                    left -= len(line)
                line = None
            if left < 0:
                raise OSError(f"it has more than {limit} bytes, the most that is read")
            yield number, line
        if file.read(1) is None:
            raise OSError(ENDLESS)


def file_hash(path: str | os.PathLike) -> str:
    """SHA-256 of the bytes of a regular file, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with open_bounded(path, ANY_SIZE) as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


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
    return shown(text if len(text) <= most else f"{text[:most]}...")


def encodable(name: str) -> bool:
    """Whether a file's name is UTF-8; libraries that are not Python's own take no other."""
    return encoded(name).decode() == name


def encoded(text: str) -> bytes:
    """A text as UTF-8, to be written: bytes of a file's name that are none stand there as escapes."""
    return text.encode("utf-8", "backslashreplace")


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
