"""One run folder, one run: a lock that the kernel gives up with the process that holds it."""

import fcntl
import os
import socket
from contextlib import contextmanager
from pathlib import Path

from hiptrack.errors import HiptrackError

LOCK = ".lock"


@contextmanager
def run_lock(folder):
    """Hold a run's folder, which is made where it is missing.

    A record lock (fcntl) of this process: it goes with the process, however that ends; loader workers do not inherit it; over
    NFS the server keeps it until a crashed machine is back or its lease is over. A folder that holds nothing but the lock afterwards is removed.

    Raises HiptrackError at once where another process has the folder, or where it cannot be made or locked.
    """
    path = Path(folder) / LOCK
    with _locked(path, folder) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            if [entry.name for entry in path.parent.iterdir()] == [LOCK]:
                path.unlink()
                path.parent.rmdir()


def _locked(path, folder):
    """The lock's file, opened and locked."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise HiptrackError(
                f"the run folder {folder} cannot be used: {error}; choose another with --run DIR."
            ) from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            with file:
                file.seek(0)
                holder = file.read().strip() or "a process that has not said its name yet"
            raise HiptrackError(
                f"the run folder {folder} is in use by {holder}. Wait for that run or stop it, or choose another folder "
                "with --run DIR."
            ) from None
        except OSError as error:
            file.close()
            raise HiptrackError(
                f"the run folder {folder} cannot be locked ({error}), so two runs could write it at once; choose a folder "
                "on another file system with --run DIR."
            ) from error
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()  # whoever had it before removed it in between
