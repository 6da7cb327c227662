"""tools/train.py that is killed while it writes a checkpoint: `killed_saving.py NUMBER SHARE ARGUMENT...`.

The kill comes when the NUMBER-th file or folder of unfinished checkpoints is about to be synced. Only that SHARE of the
file is left, as if it had come while the file was written.
"""

import os
import runpy
import signal
import stat
import sys

from hiptrack.config import REPO_ROOT

number, share = int(sys.argv.pop(1)), float(sys.argv.pop(1))
fsync = os.fsync
synced = 0


def fsync_or_die(handle):
    global synced
    if "/checkpoints/tmp-" in os.readlink(f"/proc/self/fd/{handle}"):
        synced += 1
        if synced == number:
            status = os.fstat(handle)
            if stat.S_ISREG(status.st_mode):
                os.ftruncate(handle, int(status.st_size * share))
            os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)


os.fsync = fsync_or_die
runpy.run_path(str(REPO_ROOT / "tools" / "train.py"), run_name="__main__")
