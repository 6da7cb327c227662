"""Kills: a training or an evaluation that is killed at random moments and started again ends as if it never had been.

Each function takes the folder that `jobs.prepare` filled, the number of kills, a seed, and a time (time.monotonic()) after
which it begins no more of them. What was killed is removed in the end, or kept and told of where something is wrong.
"""

import functools
import glob
import math
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from random import Random

from soak.fuzz_core import Tally
from soak.jobs import Evaluation, Training
from soak.processes import choose, end, processes_of, send

EPOCHS = {"tracker": 2, "branch": 2, "finetune": 2}
START_UP = 6.0  # seconds
GONE_WITHIN = 90.0  # seconds after a kill; a launcher gives its processes 30
SYNCS = 15  # files and folders synced in three checkpoints
KEEPS = 150  # of the sequences of an evaluation that keeps them after every frame


@dataclass
class Kills(Tally):
    """moments: what the killed were doing."""

    moments: Counter = field(default_factory=Counter)


def kill_training(folder, processes, count, seed, until=math.inf, epochs=EPOCHS):
    """SIGKILL or SIGTERM to all processes of a run or to one of them."""
    name = f"training over {processes} process{'es' if processes > 1 else ''}"
    make = functools.partial(Training, folder, processes=processes, epochs=epochs)
    return _kill_often(name, make, _strike, count, seed, until)


def kill_saves(folder, count, seed, until=math.inf, epochs=EPOCHS):
    """SIGKILL in the midst of writing a checkpoint."""
    make = functools.partial(Training, folder, processes=1, epochs=epochs)
    return _kill_often("writing a checkpoint", make, _strike_in_save, count, seed, until)


def kill_evaluation(folder, count, seed, until=math.inf):
    """SIGKILL or SIGTERM to an evaluation."""
    return _kill_often("evaluation", functools.partial(Evaluation, folder), _strike, count, seed, until)


def kill_keeps(folder, count, seed, until=math.inf):
    """SIGKILL to an evaluation in the midst of writing what it has of a sequence so far."""
    return _kill_often("keeping a sequence", functools.partial(Evaluation, folder), _strike_in_keep, count, seed, until)


def _kill_often(name, make_job, strike, count, seed, until):
    """Jobs one after the other, each struck until it ends by itself or the kills suffice; then it is checked."""
    random, tally, number = Random(f"{name} {seed}"), Kills(f"kills: {name}"), 0
    while tally.tried < count and time.monotonic() < until:
        job, moments, done = make_job(name=f"{name.replace(' ', '-')}-{number:03}"), [], None
        try:
            while done is None:
                go_on = tally.tried + len(moments) < count and time.monotonic() < until
                done = strike(job, random, moments) if go_on else job.start()
            assert done.returncode == 0, f"it ended by itself with {done.returncode}: {done.stderr[-2000:]}"
            job.check()
        except (AssertionError, subprocess.TimeoutExpired) as error:
            print(
                f"kills: {name}, seed {seed}: {job.folder}, killed at {moments}: {error}", file=sys.stderr, flush=True
            )
            tally.tried += max(1, len(moments))
        else:
            shutil.rmtree(job.folder)
            tally.tried += len(moments)
            tally.right += len(moments)
        finally:
            end(processes_of(job.folder))
        tally.moments.update(moments)
        number += 1
    assert tally.tried >= count, f"{tally}: there was no time for {count}"
    return tally


def _strike(job, random, moments):
    """Start a job and kill it at a random moment, noted unless it was finished; None, or how it ended before."""
    changes, delay = random.randint(1, job.changes), random.uniform(0, 0.2)
    if random.random() < 1 / 6:
        changes, delay = 0, random.uniform(0, START_UP)
    whom, number = random.choice(job.whom), random.choice([signal.SIGKILL] * 3 + [signal.SIGTERM])
    before = _entries(job.folder)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(job.start)
        try:
            _wait_for_changes(job.folder, changes, running)
            wait([running], delay)
            finished = job.is_finished()
            moment = "start-up" if _entries(job.folder) == before else job.moment()
            victims = choose(processes_of(job.folder), whom, random)
            if running.done():
                return running.result()
            send(number, victims)
            if not finished:
                moments.append(moment)
            wait([running], GONE_WITHIN)
            left = [process.pid for process in processes_of(job.folder)]
            assert not left, f"processes {left} outlive {number.name} to {whom} by {GONE_WITHIN:g} s"
        finally:
            end(processes_of(job.folder))


def _strike_in_save(job, random, moments):
    """Start a job that kills itself in a save, noted if that is still to be seen; None, or how it ended before."""
    number, share = random.randint(1, SYNCS), random.choice((0, random.random(), 1))
    done = job.start("tests/soak/killed_saving.py", (str(number), str(share)), ["train.workers=0"])
    if done.returncode != -signal.SIGKILL:
        return done
    for unfinished in job.folder.glob("checkpoints/tmp-*"):
        written = sorted(unfinished.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        moments.append(written[-1].name if written else "empty folder")
    return None


def _strike_in_keep(job, random, moments):
    """Start an evaluation that kills itself when it keeps a sequence, noted; None, or how it ended before."""
    number, share = random.randint(1, KEEPS), random.choice((0, random.random(), 1))
    done = job.start("tests/soak/killed_keeping.py", (str(number), str(share)))
    if done.returncode != -signal.SIGKILL:
        return done
    moments.append("sequence under way")
    return None


def _entries(folder):
    return set(glob.glob("**", root_dir=folder, recursive=True))


def _wait_for_changes(folder, number, running):
    """Wait until the names below a folder have changed so often, or the job is over."""
    seen, changes = _entries(folder), 0
    while changes < number and not running.done():
        time.sleep(0.005)
        now = _entries(folder)
        changes, seen = changes + (now != seen), now
