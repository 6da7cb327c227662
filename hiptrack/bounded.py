"""Files and texts that come from elsewhere: read in bounded size, shown in bounded length.

Whatever reads or checks a file raises OSError with the reason, which is the caller's to pass on with the file's name.
"""

import os
import stat
import zipfile


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
