"""A sweep from its plan to its end."""

import os
import shlex
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.extras.sweep.plan import EvaluationData, Plan, PlannedRun, check_runs, claim, command, planned_runs
from hiptrack.extras.sweep.pool import Pool
from hiptrack.extras.sweep.slurm import submit
from hiptrack.signals import Preemption
from hiptrack.training.run_folder import run_lock


def sweep(
    plan: Plan,
    out: Path,
    jobs: int | None = None,
    data: EvaluationData | None = None,
    slurm: str | None = None,
    dry_run: bool = False,
) -> int:
    """Train, and with `data` evaluate, every run of a plan that is not finished yet; returns the exit code.

    jobs: so many runs at once, by default one on this machine and all of them on SLURM; slurm: parameters of the
    submission (`slurm.parameters`), None to run here; dry_run: only print the commands.
    Raises HiptrackError, before anything is run, for whatever the user can mend.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs {jobs}: at least 1 was expected.")
    if data is not None:
        data.check()
    bindings = check_runs(plan)
    runs = planned_runs(plan, out, bindings, data)
    if dry_run:
        print(*(shlex.join(command("train", run.train)) for run in runs), sep="\n")
        return 0
    with _held(out):
        claim(plan, out, bindings)
        if slurm is not None:
            return submit(runs, out, jobs, slurm)
        return _run(runs, out, jobs or 1)


def _run(runs: list[PlannedRun], out: Path, jobs: int) -> int:
    pool = Pool(runs, jobs)
    print(f"{out}: {pool.finished} of {len(runs)} runs finished before", flush=True)
    with Preemption() as preemption:
        try:
            pool.run(lambda: preemption.requested)
        except OSError as error:
            raise HiptrackError(
                f"{out} cannot be written: {error}. Make room, then start the same command again."
            ) from error
    told = [f"{pool.finished} of {len(runs)} runs are finished"]
    told += [f"failed: {name}" for name in pool.failed]
    told += [f"stopped: {name}" for name in pool.stopped]
    if pool.finished < len(runs):
        told.append("the same command goes on")
    print("\n".join(told), flush=True)
    if pool.failed:
        return 1
    return 0 if pool.finished == len(runs) else os.EX_TEMPFAIL


@contextmanager
def _held(out: Path):
    """A sweep's folder is locked as a run's is; what is said of that names the sweep's option."""
    with ExitStack() as stack:
        try:
            stack.enter_context(run_lock(out))
        except HiptrackError as error:
            raise HiptrackError(
                str(error).replace("--run DIR", "--out DIR").replace("the run folder", "the sweep's folder")
            ) from error
        yield
