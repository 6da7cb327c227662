"""Which files and folders a reader of annotations read, and whether they have changed since."""

import contextlib
import contextvars
import os

ABSENT = (-1, -1, -1)

_noted = contextvars.ContextVar("noted", default=None)


@contextlib.contextmanager
def noting_sources():
    """Gives a dict {path: signature} that holds, at the end, everything `note_source` was told within the context."""
    noted = {}
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def note_source(path: str) -> None:
    """Say, before it is read or listed, that what is read now depends on a file or folder, which may be absent.

    A folder's time changes when an entry is added, removed or renamed.
    """
    noted = _noted.get()
    if noted is not None and path not in noted:
        noted[path] = signature(path)


def signature(path: str) -> tuple[int, int, int]:
    """(size in bytes, times of the last change of content and of status in ns) of a file or folder; ABSENT where it is not there.

    The time of the content can be set, and is by whatever copies a file with its time; that of the status cannot.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ABSENT
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
