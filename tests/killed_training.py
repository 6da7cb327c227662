"""tools/train.py that is killed (SIGKILL) before the optimiser step whose number stands in KILL_AT_STEP."""

import os
import runpy
import signal

from hiptrack.config import REPO_ROOT
from hiptrack.training.stage_run import StageRun

optimize = StageRun._optimize


def optimize_or_die(self, batches):
    if self.run.position.step == int(os.environ["KILL_AT_STEP"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return optimize(self, batches)


StageRun._optimize = optimize_or_die
runpy.run_path(str(REPO_ROOT / "tools" / "train.py"), run_name="__main__")
