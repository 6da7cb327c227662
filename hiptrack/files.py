"""Writing files so that a crash, a full disk or a power cut leaves the old content or the new, never half of it."""

import os
import uuid
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
