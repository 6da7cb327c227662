"""tools/train.py to which a signal is sent before the optimiser step whose number stands in SIGNAL_AT_STEP.

SIGNAL names it; SIGNAL_TO is "self" (each process its own) or "launcher" (from the main process to its parent).
"""

import os
import runpy
import signal

from hiptrack.config import REPO_ROOT
from hiptrack.training.stage_run import StageRun

optimize = StageRun._optimize


def signal_then_optimize(self, batches):
    if self.run.position.step == int(os.environ["SIGNAL_AT_STEP"]):
        number = signal.Signals[os.environ["SIGNAL"]]
        if os.environ.get("SIGNAL_TO") != "launcher":
            os.kill(os.getpid(), number)
        elif self.run.is_main:
            os.kill(os.getppid(), number)
    return optimize(self, batches)


StageRun._optimize = signal_then_optimize
runpy.run_path(str(REPO_ROOT / "tools" / "train.py"), run_name="__main__")
