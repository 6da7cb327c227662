"""What was read of a data set, and how to tell that it is still the same, without reading it again where possible."""

import contextlib
import contextvars
import hashlib
import os
import re
import stat
from collections.abc import Collection

from hiptrack.files import read_bytes

ABSENT = (-1, -1, -1, -1, -1)
MAX_BYTES = 2**29  # of a source that is digested
# What holds the times that its maker or its server chose. All others that are read-only have them, too, in whole seconds.
CHOOSES_TIMES = re.compile(r"fuse.*|squashfs|erofs|iso9660|udf|cramfs|romfs|vfat|exfat|msdos")
_SECOND, _MASK = 10**9, 2**63 - 1  # ns; of what an int64 holds


def identity(path: str, choosing: Collection[int]) -> tuple[int, int, int, int, int]:
    """Five numbers of a file or folder that change with what it holds; ABSENT where it is not there.

    Bytes, inode, the last change of content and that of status in ns, and a digest, which is 0 where the times tell. The
    time of the content can be set, and is by whatever copies a file with its time; that of the status cannot. But an
    image of a file system, and a server in user space, give any. Such times are mostly of whole seconds, which a system
    that takes its own practically never has. What has them, or lies on one of the devices `choosing` (`choosing_times`),
    is digested; that takes seven times as long.

    The device is no part: one file system has another number on each machine and after each start.
    """
    try:
        status = os.stat(path)
        tells = status.st_ctime_ns % _SECOND and status.st_dev not in choosing
        digest = 0 if tells else _digest(path, status)
    except OSError:
        return ABSENT
    return status.st_size, status.st_ino & _MASK, status.st_mtime_ns, status.st_ctime_ns, digest


def is_same(path: str, known: tuple[int, int, int, int, int]) -> bool:
    """Whether a file or folder still has the identity that was known."""
    try:
        status = os.stat(path)
        stamp = status.st_size, status.st_ino & _MASK, status.st_mtime_ns, status.st_ctime_ns
        return stamp == known[:4] and (not known[4] or _digest(path, status) == known[4])
    except OSError:
        return known == ABSENT


def _digest(path, status):
    """55 bits of a file's content, or of a folder's names and what they stand for; raises OSError."""
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(path) as found:
            names = sorted(f"{entry.name}\0{entry.is_dir(follow_symlinks=False)}" for entry in found)
        content = "\0".join(names).encode("utf-8", "surrogateescape")
    else:
        content = read_bytes(path, MAX_BYTES)
    return int.from_bytes(hashlib.blake2b(content, digest_size=7).digest(), "big") >> 1


def choosing_times() -> set[int]:
    """The devices (st_dev) that are mounted now and of which CHOOSES_TIMES speaks; those that the system tells of."""
    devices = set()
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:  # "36 35 98:0 /root /mounted/at options [tags] - type source options"
            left, _, right = line.partition(" - ")
            major, minor = map(int, left.split()[2].split(":"))
            if CHOOSES_TIMES.fullmatch(right.split()[0]):
                devices.add(os.makedev(major, minor))
    return devices


_noted = contextvars.ContextVar("noted", default=None)


@contextlib.contextmanager
def noting_sources():
    """Gives a dict {path: identity} that holds, at the end, everything `note_source` was told within the context."""
    noted = {}
    token = _noted.set((noted, choosing_times()))
    try:
        yield noted
    finally:
        _noted.reset(token)


def note_source(path: str) -> None:
    """Say, before it is read or listed, that what is read now depends on a file or folder, which may be absent.

    A folder's time changes when an entry is added, removed or renamed.
    """
    if _noted.get() is not None:
        noted, choosing = _noted.get()
        if path not in noted:
            noted[path] = identity(path, choosing)
