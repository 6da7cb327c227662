"""Hands the runs of a sweep to SLURM, as one array, through submitit."""

from pathlib import Path

from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.extras.sweep.plan import PlannedRun
from hiptrack.extras.sweep.pool import Pool

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
