"""A sweep from its plan to its end: worked off here, or handed to SLURM as one array, through submitit."""

import os
import shlex
from pathlib import Path

from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.extras.sweep.plan import (
    Bindings,
    EvaluationData,
    Plan,
    PlannedRun,
    check_runs,
    claim,
    command,
    planned_runs,
)
from hiptrack.extras.sweep.pool import Pool
from hiptrack.extras.sweep.records import is_on_test_data
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
    submission (see `parameters`), None to run here; dry_run: only print the commands.
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
    if data is None:
        _tell_unranked(bindings)
    with run_lock(out, "the sweep's folder", "--out DIR"):
        claim(plan, out, bindings)
        if slurm is not None:
            return submit(runs, out, jobs, slurm)
        return _run(runs, out, jobs or 1)


def _tell_unranked(bindings: dict[str, Bindings]) -> None:
    without = [name for name, found in bindings.items() if not found.validates]
    if without:
        print(
            f"{len(without)} of {len(bindings)} runs have no validation (train.validation), and --evaluate is not given: hiptrack "
            f"compare cannot rank them, their AO, SR and accuracy stay empty. The first is {without[0]}.",
            flush=True,
        )


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
    told += [f"validated on test data: {run.name}" for run in runs if is_on_test_data(run.folder)]
    if pool.finished < len(runs):
        told.append("the same command goes on")
    print("\n".join(told), flush=True)
    if pool.failed:
        return 1
    return 0 if pool.finished == len(runs) else os.EX_TEMPFAIL


# Unless said otherwise: a day, five minutes to save in, and requeued until it is done.
DEFAULTS = {"timeout_min": 24 * 60, "slurm_signal_delay_s": 300}
MOST_REQUEUES = 100


class Job:
    """One run as submitit runs it. Before its time is up the training saves, and the job is queued again."""

    def __init__(self, run: PlannedRun):
        self.run, self.pool = run, None

    def __call__(self):
        """Do what is left of the run. Raises HiptrackError where it fails, for submitit to keep."""
        self.pool = Pool([self.run], 1)
        self.pool.run()
        if not self.pool.finished:
            raise HiptrackError(f"{self.run.name} is not finished; see {self.run.log}.")

    def checkpoint(self):
        """What submitit calls at its signal, and queues again."""
        from submitit.helpers import DelayedSubmission

        if self.pool is not None:
            self.pool.stop()
        return DelayedSubmission(Job(self.run))


def submit(runs: list[PlannedRun], out: Path, jobs: int | None, text: str) -> int:
    """Submit what is not finished as an array of jobs, `jobs` of them at once at most; returns the exit code.

    text: see `parameters`. Raises ConfigError without submitit or SLURM, and for a parameter that submitit does not
    know.
    """
    waiting = [run for run in runs if run.next_step() is not None]
    print(f"{out}: {len(runs) - len(waiting)} of {len(runs)} runs finished before", flush=True)
    if waiting:
        for job, run in zip(start(waiting, out / "slurm", jobs or len(waiting), text), waiting):
            print(f"{job.job_id}: {run.name}")
        print(f"submitted; when all have ended, the same command submits what is left. Logs: {out}/*.log, {out}/slurm")
    return 0


def parameters(text: str) -> dict[str, int | str]:
    """`timeout_min=600,gpus_per_node=1,slurm_partition=gpu` as a dict, under submitit's names."""
    pairs = [part.partition("=") for part in text.split(",")]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise ConfigError(
                f'--slurm "{text}": NAME=VALUE,NAME=VALUE was expected, as in timeout_min=600,gpus_per_node=1.'
            )
    return {name: int(value) if value.isdecimal() else value for name, _, value in pairs}


def start(runs: list[PlannedRun], folder: Path, parallel: int, text: str, cluster: str = "slurm") -> list:
    """submitit's jobs of the runs, at most `parallel` at once, with submitit's files in `folder`; see `submit`."""
    given = {**DEFAULTS, "slurm_array_parallelism": parallel, **parameters(text)}
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("--slurm needs the package submitit: pip install 'hiptrack[slurm]' (or submitit).") from error
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=MOST_REQUEUES)
        executor.update_parameters(**given)
        return executor.submit_array([Job(run) for run in runs])
    except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
        raise ConfigError(f'--slurm "{text}": {error}') from error
