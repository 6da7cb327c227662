"""Works off the runs of a sweep on this machine, so many at a time, each command in a process of its own."""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from hiptrack.errors import HiptrackError
from hiptrack.extras.sweep.plan import PlannedRun
from hiptrack.files import encoded, open_own
from hiptrack.screen import shown
from hiptrack.signals import PR_SET_PDEATHSIG
from hiptrack.training.cost import duration
from hiptrack.training.run_folder import run_lock

TICK = 0.1  # seconds between two looks at the processes
PATIENCE = 60.0  # seconds in which what a killed sweep left over ends its step and saves
TAIL_LINES = 15


@dataclass
class _Child:
    run: PlannedRun
    step: str
    process: subprocess.Popen
    log_start: int  # bytes of the log that were there before it printed
    began: float

    def tail(self) -> str:
        """The end of what it printed; of a progress bar's states the last."""
        with open(self.run.log, "rb") as log:
            log.seek(self.log_start)
            text = log.read().decode(errors="replace")
        lines = [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]
        return "\n".join([f"    {shown(line)}" for line in lines if line][-TAIL_LINES:])


class Pool:
    """Runs that wait, run and have failed.

    Args:
        runs: in the order in which they are started.
        jobs: so many run at once, on the GPUs in turn and with an equal share of the cores.
    """

    def __init__(self, runs: Sequence[PlannedRun], jobs: int):
        self.total = len(runs)
        self.jobs = jobs
        self.waiting = [run for run in runs if run.next_step() is not None]
        self.held: set[str] = set()  # names of those among them whose folder another process uses
        self.finished = self.total - len(self.waiting)
        self.failed: list[str] = []
        self.stopped: list[str] = []
        self.running: dict[int, _Child] = {}  # by the place they take

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Returns when nothing is left to do, or, once `stop` says so, when what is running has saved and ended."""
        deadline, asked = time.monotonic() + PATIENCE, False
        try:
            while self.running or self.waiting and not asked:
                if not asked and (asked := stop()):
                    self._signal(signal.SIGTERM)
                if not asked:
                    self._start(time.monotonic() > deadline)
                for place in [place for place, child in self.running.items() if child.process.poll() is not None]:
                    self._end(place, asked)
                time.sleep(TICK)
        finally:
            self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """End what is running, which saves first, from within a signal handler."""
        self._signal(signal.SIGTERM)
        for child in self.running.values():
            with suppress(ChildProcessError):  # not Popen.wait: `run` may have been interrupted within it
                os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)

    def _signal(self, number):
        for child in self.running.values():
            child.process.send_signal(number)

    def _start(self, late):
        """Start what waits and may run, while there are places."""
        for run in list(self.waiting):
            places = set(range(self.jobs)) - self.running.keys()
            if not places:
                return
            user = _user_of(run.folder)
            if user is None:
                self.waiting.remove(run)
                self._begin(run, min(places))
            elif late:
                self.waiting.remove(run)
                self._fail(run, user)
            elif run.name not in self.held:
                self.held.add(run.name)
                self._say(run, f"waits, {user}")

    def _begin(self, run, place):
        step, command = run.next_step()
        run.log.parent.mkdir(parents=True, exist_ok=True)
        with open_own(run.log) as log:
            log.write(encoded(f"$ {shlex.join(command)}\n"))
            log.flush()
            size = log.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(place),
                start_new_session=True,  # Ctrl-C is for the sweep, which passes it on
                # of the few things that may be done there; the sweep has one thread
                preexec_fn=_end_with(os.getpid()) if sys.platform == "linux" else None,  # noqa: PLW1509
            )
        self.running[place] = _Child(run, step, process, size, time.monotonic())
        self._say(run, step)

    def _environment(self, place):
        environment = dict(os.environ)
        environment.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // self.jobs)))
        devices = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
        if devices:
            names = devices.split(",")
            environment["CUDA_VISIBLE_DEVICES"] = names[place % len(names)]
        return environment

    def _end(self, place, asked):
        """Take note of how a command ended; go on with the next one of its run."""
        child = self.running.pop(place)
        run, step, code = child.run, child.step, child.process.returncode
        after = f"after {duration(time.monotonic() - child.began)}"
        if code == 0:
            run.end_step(step)
            following = run.next_step()
            if following is None:
                self.finished += 1
                self._say(run, f"finished, {step} {after}")
            elif following[0] == step:
                self._fail(run, f"{step} ended {after}, but is not finished:\n{child.tail()}")
            elif asked:
                self.stopped.append(run.name)
            else:
                self._begin(run, place)
        elif code == os.EX_TEMPFAIL or asked and code == -signal.SIGTERM:
            self.stopped.append(run.name)
            self._say(run, f"{step} stopped {after}")
        else:
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            self._fail(run, f"{step} failed {after} ({how}); the end of {run.log}:\n{child.tail()}")

    def _fail(self, run, reason):
        self.failed.append(run.name)
        self._say(run, reason)

    def _say(self, run, text):
        done = self.finished + len(self.failed) + len(self.stopped)
        print(f"[{done}/{self.total}] {run.name}: {text}", flush=True)


def _end_with(parent):
    """What a new process does first: have the kernel send it SIGTERM when its parent dies, however that ends."""
    prctl = ctypes.CDLL(None).prctl

    def arrange():
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it is dead already
            os._exit(os.EX_TEMPFAIL)

    return arrange


def _user_of(folder):
    """Who uses a run's folder now, as a sentence; None where nobody does."""
    if not folder.exists():
        return None
    try:
        with run_lock(folder):
            return None
    except HiptrackError as error:
        return str(error)
