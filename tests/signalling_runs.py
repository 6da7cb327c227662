"""What a gin file imports so that a training sends a signal to the process that started it, as SIGNAL_PARENT says.

SIGNAL_PARENT="RUN STEP SIGNAL": the run whose folder has this name sends this signal before this step, which it does not
begin before it has got a signal itself.
"""

import os
import signal

from hiptrack.training.train import StageRun

optimize = StageRun._optimize


def signal_then_optimize(self, batches):
    name, step, number = os.environ.get("SIGNAL_PARENT", "- 0 SIGTERM").split()
    if (self.run.folder.name, self.run.position.step) == (name, int(step)):
        answer, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end)
        os.kill(os.getppid(), signal.Signals[number])
        os.read(answer, 1)
        signal.set_wakeup_fd(-1)
    return optimize(self, batches)


StageRun._optimize = signal_then_optimize
