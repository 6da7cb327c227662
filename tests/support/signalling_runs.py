"""What a gin file imports so that a training sends a signal to the process that started it, as SIGNAL_PARENT says.

SIGNAL_PARENT="RUN STEP SIGNAL": the run whose folder has this name sends this signal before this step, which it does not
begin before it has got a signal itself.
"""

import os
import signal

from hiptrack.training.train import Training

take_step = Training.take_step


def signal_then_step(self, *given):
    name, step, number = os.environ.get("SIGNAL_PARENT", "- 0 SIGTERM").split()
    if (self.folder.path.name, self.at.step) == (name, int(step)):
        answer, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end)
        os.kill(os.getppid(), signal.Signals[number])
        os.read(answer, 1)
        signal.set_wakeup_fd(-1)
    return take_step(self, *given)


Training.take_step = signal_then_step
