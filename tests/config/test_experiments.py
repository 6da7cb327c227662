"""Every experiment file parses, is checked, round-trips and builds at toy size."""

from pathlib import Path

import gin
import pytest
import torch
from training_runs import TOY_BRANCH, TOY_MODEL, launch, run_here

from hiptrack import config
from hiptrack.config import REPO_ROOT
from hiptrack.config.portable import build_component, component_text
from hiptrack.models.weights import PARTS
from hiptrack.tracking.tracker import Tracker
from hiptrack.training import train  # noqa: F401  registers everything
from hiptrack.training.log import read_metrics
from hiptrack.training.schedules import StepSchedule

EXPERIMENTS = sorted(path.relative_to(REPO_ROOT).as_posix() for path in (REPO_ROOT / "experiments").rglob("*.gin"))

pytestmark = pytest.mark.usefixtures("clean_gin")


def bound(experiment):
    """The names that an experiment binds."""
    config.load([experiment], [], root="train")
    return config.bound_values().keys()


def narrow(experiment):
    kept = ("Backbone.name", "Backbone.depth", "Backbone.elimination_blocks")
    return [override for override in toy(experiment) if not override.startswith(kept)]


def toy(experiment):
    names = bound(experiment)
    bottleneck = ["HIPTrack.neck_width=8"] if "HIPTrack.neck_width" in names else []
    return TOY_MODEL + bottleneck + (TOY_BRANCH if "ChallengeBranch.hidden_width" in names else [])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_builds_and_its_record_is_the_same_experiment(experiment, tmp_path):
    config.load([experiment], toy(experiment), root="train")
    text = config.config_text()
    model_text = component_text("HIPTrack")
    model = gin.get_configurable("HIPTrack")()
    rebuilt = build_component(model_text, "HIPTrack", PARTS)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in rebuilt.state_dict().items()}
    record = tmp_path / "config.gin"
    record.write_text(text)
    config.load([str(record)], [], root="train")
    assert config.config_text() == text


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_stage_fits_the_model_of_its_experiment(experiment):
    """At full size: the modules it trains, the rates it gives them, and its optimiser."""
    config.load([experiment], [], root="train")
    with torch.device("meta"):
        model = gin.get_configurable("HIPTrack")()
    for stage in gin.get_bindings("train")["stages"]:
        stage.check(model, processes=1)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_trains_and_validates(experiment, synthetic, tmp_path):
    """Narrow, but with all blocks, stages and freeze phases; two steps an epoch."""
    overrides = [*narrow(experiment), f"DATA_ROOT={synthetic}", "train.initial_weights=[]", "Validation.sequences=1"]
    overrides += ["train.log_every=1", "train.workers=0", "train.pictures=0"]
    if "ANNOTATIONS" in bound(experiment):
        overrides.append(f"ANNOTATIONS={synthetic}/annotations")
    config.load([experiment], overrides, root="train")
    stages = gin.get_bindings("train")["stages"]
    for stage in stages:
        overrides.append(f"{stage.scope}/Stage.epochs={stage.phases[-1].first + 1}")
        overrides += [f"{stage.scope}/Stage.batch=2", f"{stage.scope}/Stage.clips=4"]
        if isinstance(stage.schedule, StepSchedule):  # its milestones and starts lie beyond so few epochs
            overrides.append(f"{stage.scope}/StepSchedule.milestones=(0,)")
        if stage.keep_ratio is not None:
            overrides.append(f"{stage.scope}/KeepRatioSchedule.start=0")
    assert run_here([experiment], overrides, tmp_path / "run") == 0
    curves = read_metrics(tmp_path / "run")
    assert len(curves["Loss/total"]) == sum(2 * (stage.phases[-1].first + 1) for stage in stages)
    assert len(curves["Validation/AO"]) >= len(stages)
    Tracker.from_checkpoint(tmp_path / "run" / "model.safetensors", device="cpu")


@pytest.mark.parametrize("variant", [path for path in EXPERIMENTS if path.startswith("experiments/ablate/")])
def test_variants_are_a_base_and_at_most_three_lines(variant):
    lines = [line for line in (REPO_ROOT / variant).read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0].startswith("include 'experiments/") and 2 <= len(lines) <= 4


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_begins_with_what_it_is_and_its_command(experiment):
    lines = (REPO_ROOT / experiment).read_text().splitlines()
    header = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    assert sum(f"tools/train.py --gin {experiment}" in line for line in header[1:]) == 1, header
    assert header[0].startswith("# ")


def test_every_gin_file_is_used_by_an_experiment():
    included = "".join((REPO_ROOT / path).read_text() for path in EXPERIMENTS)
    on_its_own = {"gin/eval/tracker.gin"}  # what hiptrack eval begins with
    unused = {path.relative_to(REPO_ROOT).as_posix() for path in (REPO_ROOT / "gin").rglob("*.gin")} - on_its_own
    assert {path for path in unused if f"'{path}'" not in included} == set()


def test_axis_files_include_nothing():
    assert not [path for path in (REPO_ROOT / "gin").rglob("*.gin") if "include" in path.read_text()]


def test_dry_run_prints_the_pipeline_and_what_is_absent(tmp_path):
    done = launch(
        ["--gin", "experiments/two_stage.gin", "--run", str(tmp_path / "run"), "--dry-run", "DATA_ROOT=nowhere"]
    )
    assert done.returncode == 1
    for words in (
        "challenge branch: 530,186 parameters",
        "stage 1: branch",
        "30 epochs x 1875 steps",
        "trainable: 727,562 parameters in challenge",
        "stage 2: finetune",
        "learning rate 1e-05",
        "global batch 32 = 1 processes x 1 passes x 32 clips",
        "not found: nowhere",
        "not found: weights/hiptrack_got10k.pth.tar",
    ):
        assert words in done.stdout, done.stdout
    assert not (tmp_path / "run").exists()


def test_dry_run_counts_sequences_and_succeeds_where_nothing_is_absent(synthetic, tmp_path):
    data = [f"DATA_ROOT={synthetic}", f"ANNOTATIONS={synthetic}/annotations"]
    done = launch(["--gin", "tests/support/toy.gin", "--run", str(tmp_path / "run"), "--dry-run", *data])
    assert done.returncode == 0, done.stderr
    assert "train: 5 sequences, 70 frames, 70 labelled" in done.stdout


def test_a_typo_names_the_line_and_the_right_word(tmp_path):
    experiment = tmp_path / "typo.gin"
    experiment.write_text("include 'tests/support/toy.gin'\nChallengeLoss.wieght = 0.5\n")
    done = launch(["--gin", str(experiment), "--run", str(tmp_path / "run")])
    assert done.returncode == 1
    assert f"{experiment}:2" in done.stderr and '"weight"' in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_package_ships_no_python_below_gin():
    assert not list(Path(REPO_ROOT / "gin").rglob("*.py"))
