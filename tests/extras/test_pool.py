"""The pool of a sweep and the jobs of a scheduler: runs that fail, wait, are stopped, and are queued again."""

import os
import re
import signal
import subprocess
import sys

import pytest
from small_runs import DONE, UNTIL_SIGTERM, SmallRun

from hiptrack.config import REPO_ROOT
from hiptrack.errors import ConfigError
from hiptrack.extras.sweep import pool as pool_module
from hiptrack.extras.sweep import sweep as slurm
from hiptrack.extras.sweep.pool import Pool


def run_all(runs, jobs=1, stop=lambda: False):
    pool = Pool(runs, jobs)
    pool.run(stop)
    return pool


def test_a_failing_run_is_named_with_the_end_of_its_log_and_the_others_go_on(tmp_path, capsys):
    broken = "print('bar 1\\rbar 2\\r        \\rlast words', flush=True); sys.exit('error: no data')"
    killed = "os.kill(os.getpid(), 9)"
    runs = [
        SmallRun(tmp_path / name, lines)
        for name, lines in (("a", broken), ("b", DONE), ("c", killed), ("d", "pass"), ("e", DONE))
    ]
    pool = run_all(runs, jobs=2)
    assert pool.finished == 2 and sorted(pool.failed) == ["a", "c", "d"]
    told = capsys.readouterr().out
    assert re.search(r"a: training failed after \d+ s \(exit code 1\); the end of ", told)
    assert "\n    last words\n    error: no data\n" in told and "bar" not in told
    assert re.search(r"c: training failed after \d+ s \(killed by SIGKILL\)", told)
    assert re.search(r"d: training ended after \d+ s, but is not finished", told)
    assert run_all(runs, jobs=2).finished == 2  # b and e, which are not run again
    assert (tmp_path / "b.log").read_text().count("$ ") == 1 and (tmp_path / "a.log").read_text().count("$ ") == 2


def test_a_log_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "a.log").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError, match=r"a\.log is a link"):
        run_all([SmallRun(tmp_path / "a", DONE)])
    assert (tmp_path / "theirs").read_text() == "theirs"


def test_a_stop_lets_what_runs_save_and_starts_nothing_more(tmp_path):
    runs = [SmallRun(tmp_path / name, UNTIL_SIGTERM.format(then="")) for name in "abc"]
    pool = run_all(runs, jobs=2, stop=lambda: all((tmp_path / name / "begun").exists() for name in "ab"))
    assert sorted(pool.stopped) == ["a", "b"] and [run.name for run in pool.waiting] == ["c"] and not pool.failed
    assert {path.parent.name for path in tmp_path.glob("*/saved")} == {"a", "b"}


def test_no_process_is_left_where_the_pool_is_left_by_an_error(tmp_path):
    def stop():
        if (tmp_path / "a" / "begun").exists():
            raise KeyboardInterrupt  # Ctrl-C again

    pool = Pool([SmallRun(tmp_path / "a", UNTIL_SIGTERM.format(then=""))], 1)
    with pytest.raises(KeyboardInterrupt):
        pool.run(stop)
    (child,) = pool.running.values()
    assert child.process.wait(timeout=30) == -signal.SIGKILL and not (tmp_path / "a" / "saved").exists()


HOLDER = "import sys; from hiptrack.training.run_folder import run_lock\nwith run_lock(sys.argv[1]): print(flush=True); sys.stdin.read()"


@pytest.fixture
def held(tmp_path):
    """A folder `a` with the process that holds it until its standard input is closed."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").touch()
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "a")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPO_ROOT) as holder:
        holder.stdout.readline()
        yield holder


def test_what_a_killed_sweep_left_running_is_waited_for(tmp_path, held, capsys):
    runs = [SmallRun(tmp_path / "a"), SmallRun(tmp_path / "b")]

    def end_holder():
        told = capsys.readouterr().out
        if "a: waits" in told:
            assert f"in use by process {held.pid} on" in told
            held.stdin.close()

    assert run_all(runs, stop=end_holder).finished == 2 and held.stdin.closed


def test_a_run_that_stays_in_use_fails_and_the_others_go_on(tmp_path, held, capsys, monkeypatch):
    monkeypatch.setattr(pool_module, "PATIENCE", 0.0)
    pool = run_all([SmallRun(tmp_path / "a"), SmallRun(tmp_path / "b")])
    assert pool.failed == ["a"] and pool.finished == 1
    assert f"a: the run folder {tmp_path / 'a'} is in use by process {held.pid}" in capsys.readouterr().out


def test_jobs_share_the_cores_and_take_the_gpus_in_turn(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(pool_module.torch, "get_num_threads", lambda: 8)
    lines = "open(folder / 'done', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'] + ' ' + os.environ['OMP_NUM_THREADS'])"
    run_all([SmallRun(tmp_path / name, lines) for name in "abc"], jobs=3)
    assert [(tmp_path / name / "done").read_text() for name in "abc"] == ["4 2", "6 2", "4 2"]


@pytest.mark.slow
def test_jobs_of_a_scheduler_save_and_are_queued_again(tmp_path, monkeypatch):
    """submitit's local executor: the signal that comes before the time is up is sent by the first run itself."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(REPO_ROOT), str(REPO_ROOT / "tests" / "support"))))
    twice = "if (folder / 'saved').exists(): open(folder / 'done', 'w'); sys.exit(0)" + UNTIL_SIGTERM.format(
        then="os.kill(os.getppid(), signal.SIGUSR2)"
    )
    runs = [SmallRun(tmp_path / "a", twice), SmallRun(tmp_path / "b"), SmallRun(tmp_path / "c", "sys.exit(3)")]
    *jobs, failing = slurm.start(runs, tmp_path / "slurm", 2, "timeout_min=60,slurm_partition=gpu", cluster="local")
    assert [job.result() for job in jobs] == [None, None]
    assert "c is not finished; see " in str(failing.exception())
    assert all((tmp_path / name / "done").exists() for name in "ab") and (tmp_path / "a" / "saved").exists()


@pytest.mark.parametrize(
    "text, words",
    [
        ("timeout_min=60", "srun"),  # there is no SLURM here
        ("timeout_min", "NAME=VALUE,NAME=VALUE was expected"),
        ("", "NAME=VALUE,NAME=VALUE was expected"),
    ],
)
def test_without_slurm_or_with_wrong_parameters_nothing_is_submitted(tmp_path, monkeypatch, text, words):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=words):
        slurm.submit([SmallRun(tmp_path / "a")], tmp_path, None, text)


def test_a_wrong_parameter_of_slurm_is_named(tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(ConfigError, match="Unknown argument 'partitoin'.*Valid arguments: .*partition"):
        slurm.start([SmallRun(tmp_path / "a")], tmp_path, 1, "slurm_partitoin=gpu", cluster="local")


def test_slurm_without_submitit_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"pip install 'hiptrack\[slurm\]'"):
        slurm.submit([SmallRun(tmp_path / "a")], tmp_path, None, "timeout_min=60")
