"""A loss or gradient that is not finite: every process stops, and the step can be run again."""

import json
from types import SimpleNamespace

import pytest
import torch
from training_runs import launch, run_here, tensorboard_scalars, toy_stages

from hiptrack.errors import HiptrackError
from hiptrack.training.checkpoint import Position, finished_checkpoints
from hiptrack.training.guard import Guard, NotFinite
from hiptrack.training.log import METRICS, RunLog, read_metrics

FROM_SCRATCH = ["tests/support/toy.gin"]
DIVERGES = ["tracker/Stage.lr=1e30", "tracker/Stage.grad_clip=None", "train.save_steps=1"]

pytestmark = pytest.mark.usefixtures("clean_gin")


@pytest.fixture(scope="module")
def failed(synthetic, tmp_path_factory):
    """A run over two processes whose second step is not finite: (its folder, the launch)."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = launch(["--gin", *FROM_SCRATCH, "--run", str(folder), *toy_stages(synthetic), *DIVERGES], 2)
    return folder, done


def test_every_process_stops_and_the_step_is_kept(failed):
    folder, done = failed
    assert done.returncode != 0
    assert done.stderr.count("became infinite or NaN in stage 'tracker'") == 2  # each with its own clips
    assert "Traceback (most recent call last)" not in done.stderr.split("ChildFailedError")[0].split("error: ")[0]
    (kept,) = folder.glob("fault-*")
    fault = json.loads((kept / "fault.json").read_text())
    newest = finished_checkpoints(folder / "checkpoints")[-1]
    assert fault["last_checkpoint"] == newest.name and newest.name in done.stderr
    assert fault["processes"] == 2 and {path.name for path in kept.glob("batch-*")} == {"batch-0.pt", "batch-1.pt"}
    assert f"hiptrack replay {kept}" in done.stderr
    assert not (folder / "model.safetensors").exists()


def test_replay_meets_the_fault_again(failed):
    (kept,) = failed[0].glob("fault-*")
    again = launch([str(kept)], command="replay")
    assert again.returncode == 1, again.stderr
    assert "step 2 of stage 'tracker', 2 passes of the batch" in again.stdout
    assert "the first output that is not finite is that of the module backbone" in again.stdout
    assert "not finite again (Loss/total" in again.stdout


def test_replay_says_when_all_is_finite(synthetic, tmp_path, monkeypatch):
    from hiptrack.training import train as module

    def broken(values):
        raise NotFinite("Loss/total")

    with monkeypatch.context() as patch:
        patch.setattr(module, "require_finite_scalars", broken)
        with pytest.raises(HiptrackError, match="the last checkpoint is none yet") as error:
            run_here(FROM_SCRATCH, toy_stages(synthetic), tmp_path / "run")
    assert "Run the step again with: hiptrack replay" in str(error.value)
    again = launch([str(tmp_path / "run" / "fault-step-00000001")], command="replay")
    assert again.returncode == 0, again.stderr
    assert "all is finite this time" in again.stdout


def test_replay_runs_the_very_step(synthetic, tmp_path, monkeypatch, capsys):
    """Weights, batch, random numbers (drop path) and settings: the numbers are those of the run."""
    from accelerate.state import AcceleratorState

    from hiptrack import config
    from hiptrack.training import train as module
    from hiptrack.training.replay import replay

    seen = []

    def refuse_third(values):
        seen.append(values)
        if len(seen) == 5:  # losses and gradient of two steps came before
            raise NotFinite("Loss/total")

    monkeypatch.setattr(module, "require_finite_scalars", refuse_third)
    with pytest.raises(HiptrackError):
        run_here(FROM_SCRATCH, toy_stages(synthetic), tmp_path / "run")
    kept = tmp_path / "run" / "fault-step-00000003"
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.rand(3)  # the generators stand elsewhere
    config.load([str(kept / "config.gin")], [], root="train")
    capsys.readouterr()
    assert replay(kept, module.Training()) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  Loss/"))
    assert printed == {name: f"{value:g}" for name, value in seen[4].items() if name.startswith("Loss/")}


@pytest.mark.parametrize("content", [None, "{}", "no json"])
def test_replay_of_something_else_is_a_clear_error(tmp_path, content):
    if content is not None:
        (tmp_path / "config.gin").write_text("include 'tests/support/toy.gin'\n")
        (tmp_path / "fault.json").write_text(content)
    done = launch([str(tmp_path)], command="replay")
    assert done.returncode == 1 and "error: " in done.stderr and "Traceback" not in done.stderr


def test_a_link_in_the_place_of_what_is_kept_is_not_followed(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.gin").write_text("theirs")
    folder = SimpleNamespace(path=tmp_path / "run", checkpoints=tmp_path / "run" / "checkpoints")
    folder.path.mkdir()
    (folder.path / "fault-step-00000001").symlink_to(tmp_path / "theirs")
    accelerator = SimpleNamespace(is_main_process=True, num_processes=1)
    guard = Guard(accelerator, None, folder, None, None, 1.0)
    share = {"batches": [{"source": ["a:1"]}]}
    with pytest.raises(HiptrackError, match="could not be kept: .*fault-step-00000001 is a link"):
        guard._keep_fault(SimpleNamespace(name="tracker"), Position(), share, 0.7, None, "", "Loss/total")
    assert [path.read_text() for path in (tmp_path / "theirs").iterdir()] == ["theirs"]


def test_a_log_with_a_skipped_step_is_json(tmp_path):
    """A loss scaler skips steps whose gradient is not finite: that is logged, and the run goes on."""

    def refuse(name):
        raise ValueError(f"{name} is no JSON")

    log = RunLog(tmp_path, 0, {})
    log.scalars(1, {"Loss/total": 3.0, "GradientNorm": float("inf")})
    sizes = log.sync()
    log.close()
    log = RunLog(tmp_path, 1, sizes)  # a run that goes on
    log.scalars(2, {"Loss/total": 2.0, "GradientNorm": 0.5})
    log.close()
    lines = (tmp_path / METRICS).read_text().splitlines()
    assert json.loads(lines[0], parse_constant=refuse) == {"step": 1, "Loss/total": 3.0, "GradientNorm": None}
    expected = {"Loss/total": [(1, 3.0), (2, 2.0)], "GradientNorm": [(2, 0.5)]}
    assert read_metrics(tmp_path) == tensorboard_scalars(tmp_path) == expected
