"""Dying in the midst of a write."""

import os
import signal
import stat


def die_in_sync(words, number, share):
    """Kill this process when the number-th file or folder whose path has these words is about to be synced.

    Only that share of the file is left, as if it had come while the file was written.
    """
    fsync, synced = os.fsync, 0

    def fsync_or_die(handle):
        nonlocal synced
        if words in os.readlink(f"/proc/self/fd/{handle}"):
            synced += 1
            if synced == number:
                status = os.fstat(handle)
                if stat.S_ISREG(status.st_mode):
                    os.ftruncate(handle, int(status.st_size * share))
                os.kill(os.getpid(), signal.SIGKILL)
        fsync(handle)

    os.fsync = fsync_or_die
