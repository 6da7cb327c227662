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

    A record lock (fcntl) of this process: neither a crash nor a reboot leaves it behind, loader workers do not inherit it,
    and it holds over NFS. A folder that holds nothing but the lock afterwards is removed.

    Raises HiptrackError at once where another process has the folder, or where it cannot be made or locked.
    """
    path = Path(folder) / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise HiptrackError(
            f"the run folder {folder} cannot be used: {error}; choose another with --run DIR."
        ) from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "a process that has not said its name yet"
            raise HiptrackError(
                f"the run folder {folder} is in use by {holder}. Wait for that run or stop it, or choose another folder "
                "with --run DIR."
            ) from None
        except OSError as error:
            raise HiptrackError(
                f"the run folder {folder} cannot be locked ({error}), so two runs could write it at once; choose a folder "
                "on another file system with --run DIR."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            if [entry.name for entry in path.parent.iterdir()] == [LOCK]:
                path.unlink()
                path.parent.rmdir()
