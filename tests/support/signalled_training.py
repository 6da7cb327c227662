"""tools/train.py to which a signal is sent before the optimiser step whose number stands in SIGNAL_AT_STEP.

SIGNAL names it; SIGNAL_TO is "launcher" (from the main process to its parent), the number of one process, or nothing: each
process then gets its own.
"""

import os
import runpy
import signal

from hiptrack.config import REPO_ROOT
from hiptrack.training.train import Training

take_step = Training.take_step


def signal_then_step(self, *given):
    if self.at.step == int(os.environ["SIGNAL_AT_STEP"]):
        number = signal.Signals[os.environ["SIGNAL"]]
        to = os.environ.get("SIGNAL_TO")
        if to == "launcher":
            if self.accelerator.is_main_process:
                os.kill(os.getppid(), number)
        elif to in (None, os.environ.get("RANK", "0")):
            os.kill(os.getpid(), number)
    return take_step(self, *given)


Training.take_step = signal_then_step
runpy.run_path(str(REPO_ROOT / "tools" / "train.py"), run_name="__main__")
