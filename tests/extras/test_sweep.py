"""Sweeps: the grid, what is refused before anything runs, and runs that are killed, fail, wait and are scheduled."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from small_runs import SmallRun
from training_runs import run_here, same_log, same_tensors, toy_stages

from hiptrack import config
from hiptrack.cli import sweep as command
from hiptrack.config import REPO_ROOT
from hiptrack.errors import ConfigError, DataError, HiptrackError
from hiptrack.evaluation import evaluate  # noqa: F401  registers its names
from hiptrack.extras.sweep.compare import compare, read_runs
from hiptrack.extras.sweep.plan import PLAN, EvaluationData, check_runs, claim, make_plan, planned_runs, read_plan
from hiptrack.extras.sweep.sweep import _run as work_off
from hiptrack.extras.sweep.sweep import sweep
from hiptrack.models.weights import load_model, read_metadata, save_weights
from hiptrack.training.log import read_metrics
from hiptrack.training.run_folder import record, record_warnings, run_lock
from hiptrack.training.train import Training

FROM_SCRATCH = ["tests/support/toy.gin"]
WEIGHTS = "ChallengeLoss.weight=[0.5, 1.0]"

pytestmark = pytest.mark.usefixtures("clean_gin")


# The plan


def test_every_combination_is_a_run_with_its_own_name():
    fusions = "ChallengeBranch.fusion=[@ResidualFusion, None]"
    plan = make_plan(FROM_SCRATCH, ["train.workers=0"], [WEIGHTS, fusions], seeds=2)
    assert list(plan.runs) == [
        "weight=0.5,fusion=ResidualFusion,seed=0",
        "weight=0.5,fusion=ResidualFusion,seed=1",
        "weight=0.5,fusion=None,seed=0",
        "weight=0.5,fusion=None,seed=1",
        "weight=1.0,fusion=ResidualFusion,seed=0",
        "weight=1.0,fusion=ResidualFusion,seed=1",
        "weight=1.0,fusion=None,seed=0",
        "weight=1.0,fusion=None,seed=1",
    ]
    last = ["train.workers=0", "ChallengeLoss.weight=1.0", "ChallengeBranch.fusion=None", "train.seed=1"]
    assert plan.runs["weight=1.0,fusion=None,seed=1"] == last
    found = check_runs(plan)["weight=1.0,fusion=None,seed=1"].values
    assert (found["ChallengeLoss.weight"], found["ChallengeBranch.fusion"]) == ("1.0", "None")
    assert (found["train.seed"], found["train.workers"]) == ("1", "0")


@pytest.mark.parametrize(
    "axes, names",
    [
        (["branch/Stage.lr=[1e-3]", "finetune/Stage.lr=[-0.5]"], "branch.Stage.lr=0.001,finetune.Stage.lr=-0.5,seed=0"),
        (["branch/Stage.trainable=[['challenge', 'history.fuse']]"], "trainable=challenge+history.fuse,seed=0"),
        (["WEIGHTS=['weights/a b.pth', %ANNOTATIONS]"], "WEIGHTS=weights+ab.pth,seed=0 WEIGHTS=ANNOTATIONS,seed=0"),
        (["tracker/Stage.trainable=[{0: ['all']}]"], "trainable=0+all,seed=0"),
    ],
)
def test_names_are_short_and_fit_a_file_system(axes, names):
    assert list(make_plan(FROM_SCRATCH, [], axes, 1).runs) == names.split(" ")


def test_names_differ_where_values_do():
    long = "x" * 60
    axis = f"DATA_ROOT=['a/b', 'a:b', '', '@', '{long}1', '{long}2']"
    names = list(make_plan(FROM_SCRATCH, [], [axis], 1).runs)
    assert len(set(names)) == 6 and all(len(name) < 60 and "/" not in name for name in names)
    assert names == list(make_plan(FROM_SCRATCH, [], [axis], 1).runs)
    many = [f"{scope}/AdamW.weight_decay=[0.{'1' * 30}]" for scope in "abcdefgh"]
    assert all(len(name) <= 200 for name in make_plan(FROM_SCRATCH, [], many, 2).runs)


@pytest.mark.parametrize(
    "axes, overrides, words",
    [
        (["ChallengeLoss.wieght=[1.0]"], [], 'no parameter "wieght"; the nearest is "weight"'),
        (
            ["ChalengeLoss.weight=[1.0]"],
            [],
            'nothing is called "ChalengeLoss"; the nearest valid name is "ChallengeLoss"',
        ),
        (["ChallengeBranch.fusion=[@ResidalFusion]"], [], 'the nearest valid name is "ResidualFusion"'),
        (["ChallengeLoss.weight=0.5"], [], "stand in a list, as in ChallengeLoss.weight=[0.5, 1.0]"),
        (["ChallengeLoss.weight=(1, 2)"], [], "stand in a list"),
        (["ChallengeLoss.weight=[]"], [], "has no values"),
        (["ChallengeLoss.weight=[1, 2"], [], "a bracket or a quote is not closed"),
        (["ChallengeLoss.weight=[1, 2, 1.0]"], [], "two of its values are the same, 1 and 1.0"),
        (["ChallengeBranch.fusion=[None, None]"], [], "two of its values are the same, None and None"),
        (
            [WEIGHTS, "ChallengeLoss.weight=[3]"],
            [],
            'ChallengeLoss.weight is set already, by command line: "ChallengeLoss.weight=[0.5',
        ),
        ([WEIGHTS], ["losses.ChallengeLoss.weight=3"], 'set already, by command line: "losses.ChallengeLoss.weight=3"'),
        (["train.seed=[1, 2]"], [], "--seeds N sets train.seed to 0 ... N-1; remove the axis"),
        ([], ["train.seed=7"], "--seeds N sets train.seed to 0 ... N-1; remove the override"),
        (["ChallengeLoss.weight"], [], "expected NAME=VALUE"),
        ([f"train.pictures={list(range(500))}"], [], "would be 1500 runs; 1000 are the most"),
    ],
)
def test_axes_that_are_wrong(axes, overrides, words):
    with pytest.raises(ConfigError) as error:
        make_plan(FROM_SCRATCH, overrides, axes, seeds=3)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "axis, words",
    [
        ("ChallengeLoss.weight=[1.0, 'a']", "the run weight=a,seed=0 cannot be: .*expects float, not 'a'"),
        ("FUSOIN=[1]", "nothing uses the macro FUSOIN; the nearest used one is"),
        ("Stage.lr=[1e-3]", "has no effect on .*write tracker/Stage.lr=0.001 branch/"),
    ],
)
def test_a_combination_that_is_wrong_stops_the_sweep_before_anything_is_written(axis, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        sweep(make_plan(FROM_SCRATCH, [], [axis], 1), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_another_plan_is_refused_with_the_difference(tmp_path):
    plan = make_plan(FROM_SCRATCH, [], [WEIGHTS], 1)
    claim(plan, tmp_path, check_runs(plan))
    assert read_plan(tmp_path) == plan
    claim(plan, tmp_path, check_runs(plan))
    wider = make_plan(FROM_SCRATCH, ["train.workers=0"], ["ChallengeLoss.weight=[0.5, 2.0]"], 2)
    with pytest.raises(ConfigError) as error:
        claim(wider, tmp_path, check_runs(wider))
    for line in (
        "overrides: [] -> ['train.workers=0']",
        "--seeds: 1 -> 2",
        "--axis ChallengeLoss.weight: [0.5, 1.0] -> [0.5, 2.0]",
    ):
        assert f"\n  {line}" in str(error.value)
    assert read_plan(tmp_path) == plan
    (tmp_path / PLAN).write_text("{")
    with pytest.raises(DataError, match="cannot be read as the plan"):
        claim(plan, tmp_path, check_runs(plan))


def test_runs_of_another_configuration_are_never_taken_for_the_planned(tmp_path):
    """The gin file was changed between two calls of one command."""
    plan = make_plan(FROM_SCRATCH, [], [WEIGHTS], 1)
    bindings = check_runs(plan)
    changed = bindings["weight=1.0,seed=0"].values | {"Stage.batch": "64", "train.workers": "5"}
    (tmp_path / "weight=1.0,seed=0").mkdir()
    text = "\n".join(f"{name} = {value}" for name, value in changed.items())
    record(tmp_path / "weight=1.0,seed=0", text, ["train.py"])
    with pytest.raises(ConfigError, match=r"weight=1.0,seed=0 was trained with another .*\n  Stage.batch: 64 -> 32"):
        claim(plan, tmp_path, bindings)
    assert not (tmp_path / PLAN).exists()


def test_the_folder_of_a_single_run_is_no_place_for_a_sweep(tmp_path):
    (tmp_path / "config.gin").write_text("")
    plan = make_plan(FROM_SCRATCH, [], [], 1)
    with pytest.raises(HiptrackError, match="is the folder of a single run"):
        claim(plan, tmp_path, check_runs(plan))


def test_evaluation_tracks_as_the_validation_of_the_run_does(tmp_path, synthetic):
    plan = make_plan(["experiments/demo.gin"], ["Tracker.memory=@MemoryPolicy()", "MemoryPolicy.interval=7"], [], 1)
    data = EvaluationData(str(synthetic), "val", str(synthetic / "annotations"))
    (run,) = planned_runs(plan, tmp_path, check_runs(plan), data)
    assert run.evaluate[-4] == "evaluate.tracker=@Tracker"
    assert set(run.evaluate[-3:]) == {
        "MemoryPolicy.interval=7",
        "Tracker.branch='on'",
        "Tracker.memory=@MemoryPolicy()",
    }
    with pytest.raises(HiptrackError, match="not found: .*/vall .*--split"):
        sweep(plan, tmp_path / "sweep", data=replace(data, split="vall"))
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    "overrides, tracking",
    [
        (
            ["Validation.tracker=@wide/Tracker", "wide/Tracker.branch='on'"],
            ["evaluate.tracker=@wide/Tracker", "wide/Tracker.branch='on'"],
        ),
        (
            ["train.validation=@eval/Validation()", "eval/Tracker.branch='on'"],
            ["evaluate.tracker=@eval/Tracker", "eval/Tracker.branch='on'"],
        ),
        (
            [
                "Validation.tracker=%T",
                "T=@a/Tracker",
                "a/Tracker.memory=%M",
                "M=@b/MemoryPolicy()",
                "b/MemoryPolicy.capacity=3",
            ],
            ["evaluate.tracker=@a/Tracker", "M=@b/MemoryPolicy()", "b/MemoryPolicy.capacity=3", "a/Tracker.memory=%M"],
        ),
        (["train.validation=None"], []),
    ],
)
def test_evaluation_tracks_in_the_scope_of_the_validation(overrides, tracking):
    (found,) = check_runs(make_plan(FROM_SCRATCH, overrides, [], 1)).values()
    assert found.tracking == tracking
    config.load(["gin/eval/tracker.gin"], found.tracking, root="evaluate")  # hiptrack eval takes them


@pytest.mark.parametrize(
    "experiment, words",
    [
        ("demo", ["Tracker.branch='on'"]),
        ("smoothed", ["Tracker.branch='on'", "Tracker.smoothing=0.3"]),
        ("adaptive", ["Tracker.branch='on'", "Tracker.adaptation=@Adaptation()", "lost/Rule.search_scale=1.3"]),
    ],
)
def test_without_a_validation_it_tracks_as_the_experiment_says_all_the_same(experiment, words):
    """train.validation = None leaves the experiment's lines of Tracker without a reader."""
    plan = make_plan([f"experiments/{experiment}.gin"], ["train.validation=None"], [], 1)
    (found,) = check_runs(plan).values()
    assert not found.validates and set(words) <= set(found.tracking)
    assert len(found.tracking) == len(words) or experiment == "adaptive"
    config.load(["gin/eval/tracker.gin"], found.tracking, root="evaluate")  # hiptrack eval takes them


def test_it_evaluates_on_other_benchmarks(tmp_path):
    data = EvaluationData("data/mvtd", "test", dataset="mvtd")
    plan = make_plan(FROM_SCRATCH, [], [], 1)
    (run,) = planned_runs(plan, tmp_path, check_runs(plan), data)
    place = run.evaluate.index("--dataset")
    assert run.evaluate[place : place + 6] == ("--dataset", "mvtd", "--root", "data/mvtd", "--split", "test")
    with pytest.raises(ConfigError, match="--split val: uav123 has no splits"):
        EvaluationData("data/uav123", "val", dataset="uav123").check()
    with pytest.raises(ConfigError, match="MVTDDataset.split = 'tset': expected one of 'train'"):
        EvaluationData("data/mvtd", "tset", dataset="mvtd").check()
    with pytest.raises(HiptrackError, match="not found: data/nowhere"):
        EvaluationData("data/nowhere", "val", dataset="mvtd").check()


def test_what_is_evaluated_on_needs_evaluate(monkeypatch):
    monkeypatch.setattr("sys.argv", ["hiptrack sweep", "--gin", *FROM_SCRATCH, "--dataset", "mvtd"])
    with pytest.raises(ConfigError, match="--evaluate is missing"):
        command.main()


@pytest.mark.parametrize(
    "overrides, axes, words",
    [
        ([], [], None),
        (["train.validation=None"], [WEIGHTS], "2 of 2 runs have no validation"),
        ([], ["train.validation=[None, @Validation()]"], "1 of 2 runs have no validation"),
    ],
)
def test_runs_that_cannot_be_ranked_are_told_before_they_are_trained(
    tmp_path, monkeypatch, capsys, overrides, axes, words
):
    monkeypatch.setattr("hiptrack.extras.sweep.sweep._run", lambda runs, out, jobs: print("trains") or 0)
    plan = make_plan(FROM_SCRATCH, overrides, axes, 1)
    assert sweep(plan, tmp_path / "sweep") == 0
    told = capsys.readouterr().out
    if words is None:
        assert told == "trains\n"
    else:
        assert told.startswith(words) and "hiptrack compare cannot rank them" in told and told.endswith("trains\n")
    assert sweep(plan, tmp_path / "sweep", data=EvaluationData(str(tmp_path), None)) == 0
    assert capsys.readouterr().out == "trains\n"


def test_runs_that_validated_on_test_data_are_told_at_the_end(tmp_path, capsys):
    runs = [SmallRun(tmp_path / name) for name in ("a", "b")]
    for run, warnings in zip(runs, ({"selection": "on test data"}, {"jitter, branch": "lost"})):
        run.folder.mkdir()
        record_warnings(run.folder, warnings)
    assert work_off(runs, tmp_path, 1) == 0
    told = capsys.readouterr().out
    assert "2 of 2 runs are finished\nvalidated on test data: a\n" in told and "data: b" not in told


# The whole


def start(*arguments, signal_parent="- 0 SIGTERM"):
    """hiptrack sweep as a user calls it, on one thread."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(REPO_ROOT), str(REPO_ROOT / "tests" / "support"))),
        "SIGNAL_PARENT": signal_parent,
    }
    command = [sys.executable, "-m", "hiptrack", "sweep", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_a_sweep_that_runs_is_not_started_twice(tmp_path):
    with run_lock(tmp_path):
        second = start("--gin", *FROM_SCRATCH, "--out", tmp_path)
        assert second.returncode == 1 and "Traceback" not in second.stderr
        assert f"error: the sweep's folder {tmp_path} is in use by process {os.getpid()} on" in second.stderr
        assert "--out DIR" in second.stderr and not (tmp_path / PLAN).exists()


def written(out):
    """{file of a run: when it was written}"""
    return {path: path.stat().st_mtime_ns for path in out.glob("*/**/*") if path.is_file()}


def test_a_sweep_that_is_killed_twice_ends_as_if_it_had_not_been(synthetic, tmp_path, monkeypatch, capsys):
    """Four runs; the second kills the sweep, when it goes on the third asks it to stop; then it ends, and is called again."""
    monkeypatch.setattr(Training, "take_step", Training.take_step)  # what base.gin imports replaces it
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    base, out = tmp_path / "base.gin", tmp_path / "sweep"
    base.write_text("import signalling_runs\ninclude 'tests/support/toy.gin'\n")
    overrides = [o for o in toy_stages(synthetic, tracker=1, branch=1) if not o.startswith("train.validation")]
    arguments = ["--gin", base, "--axis", WEIGHTS, "--seeds", 2, "--out", out, *overrides]

    killed = start(*arguments, signal_parent="weight=0.5,seed=1 4 SIGKILL")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "[1/4] weight=0.5,seed=0: finished" in killed.stdout
    stopped = start(*arguments, signal_parent="weight=1.0,seed=0 2 SIGTERM")
    assert stopped.returncode == os.EX_TEMPFAIL, stopped.stdout + stopped.stderr
    assert f"{out}: 1 of 4 runs finished before" in stopped.stdout
    assert "weight=1.0,seed=0: training stopped" in stopped.stdout
    assert "stopped by SIGTERM at step 3" in (out / "weight=1.0,seed=0/PREEMPTED").read_text()
    # the training did not go on beside the second sweep: the kernel told it that the first was gone, and it saved
    left_over = (out / "weight=0.5,seed=1.log").read_text()
    assert "stopped by SIGTERM at step 5" in left_over and "resuming from" in left_over
    assert not (out / "weight=1.0,seed=1").exists()

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(REPO_ROOT), str(REPO_ROOT / "tests" / "support"))))
    plan = make_plan([str(base)], overrides, [WEIGHTS], 2)
    assert sweep(plan, out, jobs=2) == 0
    assert "4 of 4 runs are finished" in capsys.readouterr().out
    before = written(out)
    assert sweep(plan, out, jobs=2) == 0
    assert f"{out}: 4 of 4 runs finished before" in capsys.readouterr().out
    assert written(out) == before

    for name in ("weight=0.5,seed=1", "weight=1.0,seed=0"):
        weight, seed = (part.partition("=")[2] for part in name.split(","))
        whole = tmp_path / "whole" / name
        assert run_here(FROM_SCRATCH, [*overrides, f"ChallengeLoss.weight={weight}", f"train.seed={seed}"], whole) == 0
        assert same_tensors(whole / "model.safetensors", out / name / "model.safetensors")
        assert same_log(whole, out / name)

    comparison = compare(*read_runs([out]))
    assert comparison.bindings == ["ChallengeLoss.weight"] and not comparison.notes
    for variant in comparison.variants:
        runs = [out / f"weight={variant.values['ChallengeLoss.weight']},seed={seed}" for seed in (0, 1)]
        first, second = (read_metrics(run)["Validation/AO"][-1][1] for run in runs)
        assert variant.mean("AO") == pytest.approx((first + second) / 2)
        assert variant.spread("AO") == pytest.approx(abs(first - second) / 2**0.5)


def test_finished_runs_are_evaluated_once(synthetic, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    overrides = [*toy_stages(synthetic, tracker=1), "train.validation=@Validation()", "Tracker.branch='on'"]
    assert run_here(FROM_SCRATCH, [*overrides, "train.seed=0"], tmp_path / "seed=0") == 0
    plan = make_plan(FROM_SCRATCH, overrides, [], 1)
    data = EvaluationData(str(synthetic), "val", str(synthetic / "annotations"))
    assert sweep(plan, tmp_path, data=data) == 0
    assert "seed=0: evaluation\n" in capsys.readouterr().out
    (run,), _, _ = read_runs([tmp_path])
    report = json.loads((tmp_path / "seed=0/evaluation/report.json").read_text())
    data_digest = report["made_with"]["data"][:8]
    assert run.source == f"evaluation (2 sequences, 28 frames, data {data_digest})" and not run.state
    assert (run.tracking["Tracker.branch"], run.tracking["Tracker.margin"]) == ("'on'", "10")  # bound, and a default
    assert run.numbers["AO"] == report["overall"]["AO"] == read_metrics(tmp_path / "seed=0")["Validation/AO"][-1][1]
    assert run.numbers["balanced accuracy"] == report["classification"]["balanced_accuracy"]
    assert run.numbers["frames/s"] == report["speed"]["fps_model"]
    assert sweep(plan, tmp_path, data=data) == 0
    assert "1 of 1 runs finished before" in capsys.readouterr().out
    (run,) = planned_runs(plan, tmp_path, check_runs(plan), data)
    assert run.next_step() is None
    assert sweep(plan, tmp_path, data=replace(data, split="train")) == 0
    (other,), _, _ = read_runs([tmp_path])
    assert data_digest not in other.source and not other.state  # the report is of the other data alone
    assert sweep(plan, tmp_path, data=data) == 0
    weights = tmp_path / "seed=0/model.safetensors"
    model, text = load_model(weights), read_metadata(weights)["model"]
    save_weights(weights, model, text, step=3, note="the same tensors")
    assert run.next_step() is None
    with torch.no_grad():
        next(model.parameters()).add_(1)
    save_weights(weights, model, text, step=3, note="trained on")
    assert run.next_step()[0] == "evaluation"
