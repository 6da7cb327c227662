"""tools/train.py of which a loader worker of process 1 dies (WORKER=dies) or hangs (WORKER=hangs) at its tenth image."""

import itertools
import os
import runpy
import signal

from torch.utils.data import get_worker_info

from hiptrack.config import REPO_ROOT
from hiptrack.data import clips

read, reads = clips.read_crops, itertools.count(1)


def read_or_fail(*what):
    if get_worker_info() and os.environ["RANK"] == "1" and next(reads) == 10:
        if os.environ["WORKER"] == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        while True:
            signal.pause()
    return read(*what)


clips.read_crops = read_or_fail
runpy.run_path(str(REPO_ROOT / "tools" / "train.py"), run_name="__main__")
