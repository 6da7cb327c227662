"""A run that was interrupted goes on as if it had not been."""

import json
import os

import pytest
from training_runs import launch, run_here, same_log, same_tensors, tensorboard_scalars, toy_stages

from hiptrack.errors import CheckpointError, ConfigError, HiptrackError
from hiptrack.models.weights import read_tensors
from hiptrack.training.checkpoint import Checkpoint, best_checkpoint, finished_checkpoints, newest_sound
from hiptrack.training.log import read_metrics
from hiptrack.training.validation import Validation

FROM_SCRATCH = ["tests/support/toy.gin"]
EVERY_STEP = "train.save_steps=1"

pytestmark = pytest.mark.usefixtures("clean_gin")


def validated(root, **epochs):
    return [override for override in toy_stages(root, **epochs) if not override.startswith("train.validation")]


def run_whole(overrides, folder, processes):
    if processes == 1:
        assert run_here(FROM_SCRATCH, overrides, folder) == 0
    else:
        done = launch(["--gin", *FROM_SCRATCH, "--run", str(folder), *overrides], processes)
        assert done.returncode == 0, done.stderr


def require_same_run(whole, cut):
    assert same_tensors(whole / "model.safetensors", cut / "model.safetensors")
    assert same_log(whole, cut)
    shown, expected = tensorboard_scalars(cut), tensorboard_scalars(whole)
    assert shown.keys() == expected.keys()
    assert all(shown[name] == expected[name] for name in shown if not name.startswith("Time/"))


@pytest.mark.parametrize("processes, step", [(1, 1), (1, 5), (2, 4), (3, 2)])
def test_killed_run_resumes_to_the_same_weights(synthetic, tmp_path, monkeypatch, processes, step):
    """SIGKILL in mid-epoch (1: of the first stage, before any checkpoint of an epoch), then --resume auto."""
    overrides = [
        *toy_stages(synthetic, tracker=2, branch=2),
        "train.workers=1",
        EVERY_STEP,
        f"Stage.batch={2 * processes}",
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_whole(overrides, whole, processes)
    monkeypatch.setenv("SIGNAL_AT_STEP", str(step))
    monkeypatch.setenv("SIGNAL", "SIGKILL")
    killed = launch(
        ["--gin", *FROM_SCRATCH, "--run", str(cut), *overrides], processes, "tests/support/signalled_training.py"
    )
    assert killed.returncode != 0 and not (cut / "model.safetensors").exists()
    resumed = launch(["--gin", *FROM_SCRATCH, "--run", str(cut), *overrides], processes)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from" in resumed.stdout + resumed.stderr
    assert Checkpoint.open(finished_checkpoints(cut / "checkpoints")[-1]).processes == processes
    require_same_run(whole, cut)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
def test_a_signal_ends_the_step_and_leaves_a_checkpoint(synthetic, tmp_path, monkeypatch, name):
    overrides = [*toy_stages(synthetic, tracker=2), "train.workers=1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_here(FROM_SCRATCH, overrides, whole) == 0
    monkeypatch.setenv("SIGNAL_AT_STEP", "4")
    monkeypatch.setenv("SIGNAL", name)
    stopped = launch(
        ["--gin", *FROM_SCRATCH, "--run", str(cut), *overrides], script="tests/support/signalled_training.py"
    )
    assert stopped.returncode == os.EX_TEMPFAIL, stopped.stderr
    assert "step 5" in (cut / "PREEMPTED").read_text() and name in (cut / "PREEMPTED").read_text()
    assert finished_checkpoints(cut / "checkpoints")[-1].name == "step-00000005"
    assert run_here(FROM_SCRATCH, overrides, cut) == 0
    assert not (cut / "PREEMPTED").exists()
    require_same_run(whole, cut)


@pytest.mark.parametrize("processes, accelerate", [(2, None), (1, ("--cpu",))])
def test_sigterm_to_the_launcher_leaves_a_checkpoint_to_go_on_from(
    synthetic, tmp_path, monkeypatch, processes, accelerate
):
    overrides = [*toy_stages(synthetic, tracker=2), "train.workers=1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = {"accelerate": accelerate} if accelerate else {}
    run_whole(overrides, whole, processes)
    monkeypatch.setenv("SIGNAL_AT_STEP", "2")
    monkeypatch.setenv("SIGNAL", "SIGTERM")
    monkeypatch.setenv("SIGNAL_TO", "launcher")
    launch(
        ["--gin", *FROM_SCRATCH, "--run", str(cut), *overrides],
        processes,
        "tests/support/signalled_training.py",
        **options,
    )
    assert not (cut / "model.safetensors").exists()
    # the launcher may be gone before its processes have saved: the lock says when they have
    resumed = launch(["--gin", *FROM_SCRATCH, "--run", str(cut), *overrides], processes, **options)
    while "is in use by" in resumed.stderr:
        resumed = launch(["--gin", *FROM_SCRATCH, "--run", str(cut), *overrides], processes, **options)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from" in resumed.stdout + resumed.stderr
    require_same_run(whole, cut)


def test_a_signal_during_validation_loses_nothing(synthetic, tmp_path, monkeypatch):
    overrides = validated(synthetic, tracker=1, branch=1)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_here(FROM_SCRATCH, overrides, whole) == 0
    call = Validation.__call__

    def signalled(self, *arguments):
        os.kill(os.getpid(), 15)
        return call(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "__call__", signalled)
        assert run_here(FROM_SCRATCH, overrides, cut) == os.EX_TEMPFAIL
    assert finished_checkpoints(cut / "checkpoints")[-1].name == "step-00000003"  # trained, not validated
    assert "Validation/AO" not in read_metrics(cut)
    assert run_here(FROM_SCRATCH, overrides, cut) == 0
    require_same_run(whole, cut)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_signal_to_one_process_before_validation_stops_both(synthetic, tmp_path, monkeypatch, rank):
    overrides = [*validated(synthetic, tracker=1), "train.workers=1"]
    monkeypatch.setenv("SIGNAL_AT_STEP", "2")  # the last step of the epoch
    monkeypatch.setenv("SIGNAL", "SIGUSR1")
    monkeypatch.setenv("SIGNAL_TO", rank)
    folder = tmp_path / "run"
    done = launch(["--gin", *FROM_SCRATCH, "--run", str(folder), *overrides], 2, "tests/support/signalled_training.py")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert (folder / "PREEMPTED").exists()
    assert finished_checkpoints(folder / "checkpoints")[-1].name == "step-00000003"


def test_a_crash_right_after_validation_logs_it_once(synthetic, tmp_path, monkeypatch):
    from hiptrack.training.run_folder import RunFolder

    overrides = validated(synthetic, tracker=1, branch=1)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_here(FROM_SCRATCH, overrides, whole) == 0
    tell = RunFolder.log_validation

    def then_crash(self, *told):
        tell(self, *told)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log_validation", then_crash)
        with pytest.raises(KeyboardInterrupt):
            run_here(FROM_SCRATCH, overrides, cut)
    assert run_here(FROM_SCRATCH, overrides, cut) == 0
    require_same_run(whole, cut)


def test_other_numbers_of_processes_go_on_with_the_same_batches(synthetic, tmp_path):
    """Where neither dropout nor batch norm is trained, which work on one process's rows, the losses are the same."""
    plain = ["Backbone.drop_path=0.0", "tracker/Stage.trainable=['backbone.blocks']", EVERY_STEP]
    overrides = [*toy_stages(synthetic, tracker=2), *plain, "train.keep_checkpoints=20"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert run_here(FROM_SCRATCH, overrides, one) == 0
    done = launch(["--gin", *FROM_SCRATCH, "--run", str(two), *overrides], 2)
    assert done.returncode == 0, done.stderr
    assert run_here(FROM_SCRATCH, overrides, two, resume=str(two / "checkpoints" / "step-00000002")) == 0
    losses, expected = read_metrics(two)["Loss/total"], read_metrics(one)["Loss/total"]
    assert [step for step, _ in losses] == [step for step, _ in expected] == list(range(1, 7))
    assert [value for _, value in losses] == pytest.approx([value for _, value in expected], abs=1e-4)


def test_resume_never_refuses_a_used_folder(synthetic, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(HiptrackError, match="not empty"):
        run_here(FROM_SCRATCH, toy_stages(synthetic), tmp_path, resume="never")


@pytest.fixture(scope="module")
def finished(synthetic, tmp_path_factory):
    """A finished run that kept the checkpoint of every step."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    overrides = [*toy_stages(synthetic, tracker=1, branch=1), EVERY_STEP, "train.keep_checkpoints=20"]
    assert run_here(FROM_SCRATCH, overrides, folder) == 0
    return folder, overrides


def copy_of(finished, tmp_path):
    import shutil

    folder, overrides = finished
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    return tmp_path / "run", overrides


def test_resume_refuses_another_configuration_and_says_which(finished, tmp_path):
    folder, overrides = copy_of(finished, tmp_path)
    change = ["branch/Stage.lr=0.5", "train.log_every=3"]
    with pytest.raises(ConfigError, match=r"branch/Stage\.lr: 0\.002 -> 0\.5$") as error:
        run_here(FROM_SCRATCH, [*overrides, *change], folder)
    assert "log_every" not in str(error.value)  # changes no result
    assert not (folder / "model.safetensors").exists()
    assert run_here(FROM_SCRATCH, [*overrides, *change], folder, allow_change=True) == 0
    assert "branch/Stage.lr = 0.5" in (folder / "config-2.gin").read_text()


@pytest.mark.parametrize(
    "change, words",
    [
        (["tracker/Stage.epochs=2"], "stages that are over cannot change"),
        (["train.stages=[@tracker/Stage()]"], "its stage 'branch' is missing"),
        (["branch/Stage.clips=16"], "number of steps cannot change there"),
    ],
)
def test_a_position_that_does_not_exist_any_more_is_an_error(finished, tmp_path, change, words):
    folder, overrides = copy_of(finished, tmp_path)
    middle = folder / "checkpoints" / "step-00000005"
    kept = [o for o in overrides if o.partition("=")[0] not in {c.partition("=")[0] for c in change}]
    if "stages" in change[0]:
        kept = [o for o in kept if not o.startswith("branch/")]
    with pytest.raises(ConfigError, match=words):
        run_here(FROM_SCRATCH, [*kept, *change], folder, resume=str(middle), allow_change=True)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt", "rng-0.pt", "state.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(finished, tmp_path, capsys, name, damage):
    folder, overrides = copy_of(finished, tmp_path)
    *_, before, newest = finished_checkpoints(folder / "checkpoints")
    content = bytearray((newest / name).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / name).write_bytes(content[: len(content) // 3] if damage == "truncate" else content)
    assert run_here(FROM_SCRATCH, overrides, folder) == 0
    told = capsys.readouterr().out
    assert f"passed over: {newest}" in told and name in told and f"resuming from {before}" in told
    assert same_tensors(folder / "model.safetensors", finished[0] / "model.safetensors")
    assert (folder / "checkpoints" / f"abandoned-{newest.name}").is_dir()  # kept, and never taken up again


@pytest.mark.parametrize("name", ["weights.safetensors", "rng-0.pt", "state.json"])
def test_a_pipe_in_a_checkpoint_is_not_waited_for(finished, tmp_path, name):
    folder, _ = copy_of(finished, tmp_path)
    *_, before, newest = finished_checkpoints(folder / "checkpoints")
    (newest / name).unlink()
    os.mkfifo(newest / name)
    path, (reason,) = newest_sound(folder / "checkpoints")
    assert path == before and f"{newest} is" in reason and name in reason and "not a regular file" in reason


def test_a_run_of_damaged_checkpoints_does_not_start_anew_by_itself(finished, tmp_path):
    folder, overrides = copy_of(finished, tmp_path)
    for path in finished_checkpoints(folder / "checkpoints"):
        (path / "optimizer.pt").write_bytes(b"")
    before = sorted(folder.rglob("*"))
    with pytest.raises(CheckpointError, match="every checkpoint in .* is damaged"):
        run_here(FROM_SCRATCH, overrides, folder)
    assert sorted(folder.rglob("*")) == before


def test_going_back_to_an_earlier_checkpoint_sets_the_later_ones_aside(finished, tmp_path):
    folder, overrides = copy_of(finished, tmp_path)
    first, *_, last = finished_checkpoints(folder / "checkpoints")
    assert run_here(FROM_SCRATCH, overrides, folder, resume=str(first)) == 0
    assert (folder / "checkpoints" / f"abandoned-{last.name}").is_dir()
    require_same_run(finished[0], folder)


def test_a_checkpoint_of_another_run_starts_an_empty_folder_only(finished, tmp_path):
    folder, overrides = finished
    other = str(folder / "checkpoints" / "step-00000004")
    new, used = tmp_path / "new", tmp_path / "used"
    assert run_here(FROM_SCRATCH, overrides, new, resume=other) == 0
    assert same_tensors(new / "model.safetensors", folder / "model.safetensors")
    assert [step for step, _ in read_metrics(new)["Loss/total"]] == [5, 6]
    assert run_here(FROM_SCRATCH, overrides, new) == 0  # and goes on from its own
    used.mkdir()
    (used / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(HiptrackError, match="is no checkpoint of the run folder"):
        run_here(FROM_SCRATCH, overrides, used, resume=other)
    assert (used / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_finished_run_without_checkpoints_is_not_overwritten(finished, tmp_path):
    import shutil

    folder, overrides = copy_of(finished, tmp_path)
    shutil.rmtree(folder / "checkpoints")
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(HiptrackError, match="no checkpoint to go on from"):
        run_here(FROM_SCRATCH, overrides, folder)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_folder_without_state_does_not_block_the_run(finished, tmp_path):
    folder, overrides = copy_of(finished, tmp_path)
    (folder / "checkpoints" / "step-00000005" / "state.json").unlink()
    assert run_here(FROM_SCRATCH, overrides, folder, resume=str(folder / "checkpoints" / "step-00000004")) == 0
    assert same_tensors(folder / "model.safetensors", finished[0] / "model.safetensors")


def test_the_newest_and_the_best_are_kept(synthetic, tmp_path, monkeypatch):
    overrides = [*validated(synthetic, tracker=4), "train.keep_checkpoints=2", "Validation.every=1"]
    scores = iter((0.3, 0.7, 0.5, 0.7))
    monkeypatch.setattr(Validation, "__call__", lambda *_: {"AO": next(scores)})
    assert run_here(FROM_SCRATCH, overrides, tmp_path / "run") == 0
    folder = tmp_path / "run" / "checkpoints"
    names = [path.name for path in finished_checkpoints(folder)]
    assert names == ["step-00000006-end", "step-00000012", "step-00000012-end"]
    assert best_checkpoint(folder).name == "step-00000006-end"
    assert same_tensors(tmp_path / "run" / "best.safetensors", folder / "step-00000006-end" / "weights.safetensors")


def test_a_full_disk_is_an_error_and_costs_no_checkpoint(synthetic, tmp_path, monkeypatch):
    import errno

    from hiptrack.training import checkpoint as module

    overrides = [*toy_stages(synthetic, tracker=2), EVERY_STEP]
    save, calls = module.save_tensors, []

    def full(path, content):
        calls.append(path)
        if len(calls) > 7:  # two files a checkpoint: the fourth one fails half way
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_tensors", full)
        with pytest.raises(HiptrackError, match="No space left on device"):
            run_here(FROM_SCRATCH, overrides, tmp_path / "run")
    names = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert sorted(names) == ["step-00000001", "step-00000002", "step-00000003-end"]
    assert run_here(FROM_SCRATCH, overrides, tmp_path / "run") == 0
    whole = tmp_path / "whole"
    assert run_here(FROM_SCRATCH, overrides, whole) == 0
    require_same_run(whole, tmp_path / "run")


def test_a_full_disk_under_the_log_is_an_error(synthetic, tmp_path, monkeypatch):
    from hiptrack.training.log import Journal

    add = Journal.add

    def full(self, entry):
        if entry["step"] == 2:
            raise OSError(28, "No space left on device")
        add(self, entry)

    monkeypatch.setattr(Journal, "add", full)
    with pytest.raises(HiptrackError, match="the log in .* cannot be written .*No space left"):
        run_here(FROM_SCRATCH, toy_stages(synthetic, tracker=2), tmp_path / "run")


def test_two_runs_cannot_share_a_folder(synthetic, tmp_path):
    """The first is met while it holds the folder: its own process starts the second."""
    from hiptrack.training.run_folder import run_lock

    folder = tmp_path / "run"
    with run_lock(folder):
        (folder / "config.gin").write_text("")  # as of a run that has just begun
        second = launch(["--gin", *FROM_SCRATCH, "--run", str(folder), *toy_stages(synthetic)])
    assert second.returncode == 1
    assert f"the run folder {folder} is in use by process {os.getpid()} on" in second.stderr
    assert "Traceback" not in second.stderr
    assert {path.name for path in folder.iterdir()} == {".lock", "config.gin"}
    assert run_here(FROM_SCRATCH, toy_stages(synthetic, tracker=1), folder) == 0  # the lock went with its process


def test_two_launches_on_one_folder(synthetic, tmp_path, monkeypatch):
    """The second of two launches over two processes stops at once on all its processes."""
    from hiptrack.training.run_folder import run_lock

    with run_lock(tmp_path / "run"):
        second = launch(["--gin", *FROM_SCRATCH, "--run", str(tmp_path / "run"), *toy_stages(synthetic)], 2)
    assert second.returncode != 0
    assert second.stderr.count("error: the run folder") == 1 and "is in use by process" in second.stderr


def test_optimiser_files_run_nothing(finished, tmp_path):
    """A pickled object in place of the optimiser, even with a fitting digest, is refused and its command does not run."""
    import pickle

    from hiptrack.models.weights import content_hash
    from hiptrack.training import checkpoint as module

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    folder, overrides = copy_of(finished, tmp_path)
    newest = folder / "checkpoints" / "step-00000005"
    (newest / "optimizer.pt").write_bytes(pickle.dumps({"optimizer": Evil(), "scaler": None}))
    state = json.loads((newest / "state.json").read_text())["state"]
    state["files"]["optimizer.pt"] = content_hash(newest / "optimizer.pt")
    (newest / "state.json").write_text(json.dumps({"state": state, "sha256": module._digest(state)}))
    with pytest.raises(CheckpointError, match="optimizer.pt is refused or damaged"):
        run_here(FROM_SCRATCH, overrides, folder, resume=str(newest))
    assert not (tmp_path / "ran").exists()
    assert read_tensors(newest / "weights.safetensors")


def test_a_line_that_says_the_default_is_no_other_configuration(finished, tmp_path):
    folder, overrides = copy_of(finished, tmp_path)
    defaults = ["train.seed=0", "HIPTrack.neck_width=None", "Augmentation.grey=0.05"]
    assert run_here(FROM_SCRATCH, [*overrides, *defaults], folder) == 0
    with pytest.raises(ConfigError, match=r"Augmentation\.grey: not bound -> 0\.5$") as error:
        run_here(FROM_SCRATCH, [*overrides, *defaults[:2], "Augmentation.grey=0.5"], folder)
    assert "neck_width" not in str(error.value)
