"""What --dry-run says before a run, and when it fails."""

from types import SimpleNamespace

import gin
import psutil
import pytest
from accelerate.state import AcceleratorState
from training_runs import run_here, toy_stages

from hiptrack import config
from hiptrack.cli import train as command
from hiptrack.errors import CheckpointError, ConfigError
from hiptrack.models.heads import CenterHead
from hiptrack.models.weights import model_text, save_weights
from hiptrack.training.run_folder import TrainRequest
from hiptrack.training.train import Training

TOY = ["tests/support/toy.gin"]
VALIDATION = "train.validation=@Validation()"

pytestmark = pytest.mark.usefixtures("clean_gin")


@gin.register(denylist=["in_width"])
class OwnHead(CenterHead):
    """A head that no weights file can name, as it is none of hiptrack.models."""


@pytest.fixture
def dry_run(tmp_path, capsys, monkeypatch):
    """Overrides of a toy -> (exit code, what the dry run prints)."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def run(overrides, **request):
        AcceleratorState._reset_state(reset_partial_state=True)
        config.load(TOY, overrides, root="train")
        code = Training().run(TrainRequest(tmp_path / "run", dry_run=True, **request))
        assert not (tmp_path / "run").exists()
        return code, capsys.readouterr().out

    return run


def test_all_is_well(dry_run, synthetic):
    code, told = dry_run([*toy_stages(synthetic, tracker=1), VALIDATION])
    assert code == 0 and "warning" not in told
    assert "  jitter: 0.0% of the search frames do not show the target's centre\n" in told
    assert "  memory of a step: about " in told and " a step, " not in told
    assert "validation every 5 epochs, and at the end of each stage\n  data synthetic" in told
    assert "  tracked: world_val_0001" in told


def test_validation_on_test_data(dry_run, synthetic):
    code, told = dry_run([*toy_stages(synthetic, tracker=1), VALIDATION, "eval/FolderDataset.split=train"])
    assert code == 0
    assert "  warning: the validation is on test data (" in told and "its sequence world_train_0001 is in the" in told


RULE = ["Tracker.adaptation=@Adaptation()", "Adaptation.rules=[@Rule()]", "Rule.challenge='fogg'"]


@pytest.mark.parametrize(
    "words, settings, has_branch",
    [
        ("needs a model with a challenge branch", [], False),
        ("Rule.challenge = 'fogg' is no challenge class", [*RULE, "Rule.write_memory=False"], True),
    ],
)
def test_a_tracker_that_could_not_validate_stops_a_run_at_once(
    dry_run, synthetic, tmp_path, words, settings, has_branch
):
    overrides = [*toy_stages(synthetic, tracker=1), VALIDATION, "Tracker.branch='on'"]
    if not has_branch:
        overrides = [line for line in overrides if not line.startswith("ChallengeBranch.")]
        overrides.append("HIPTrack.challenge=None")
    code, told = dry_run([*overrides, *settings])
    missing = "1 thing is" if has_branch else "2 things are"  # the toy's loss wants a branch, too
    assert code == 1 and words in told and f"the run cannot start yet: {missing} missing or wrong" in told
    assert "In call to configurable" not in told
    with pytest.raises(ConfigError, match=words):
        run_here(TOY, [*overrides, *settings], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_jitter_of_another_crop(dry_run, synthetic):
    jitter = ["Augmentation.centre_jitter=4.5", "Augmentation.scale_jitter=0.5"]
    code, told = dry_run(
        [*toy_stages(synthetic, tracker=1, finetune=1), *jitter, "finetune/CausalSampler.search_frames=1"]
    )
    assert code == 0 and told.count("  warning: the jitter moves the target's centre out of the crop in 5") == 2
    assert "HIPTrack.search_factor (3 now)" in told


def test_nothing_chooses_the_best(dry_run, synthetic):
    code, told = dry_run(toy_stages(synthetic, tracker=1))
    assert code == 0
    assert "no validation (train.validation): the newest weights are kept, and nothing chooses the best of them" in told


def test_a_part_that_no_weights_file_could_name(dry_run, synthetic):
    overrides = [line.replace("CenterHead", "OwnHead") for line in toy_stages(synthetic, tracker=1)]
    code, told = dry_run([*overrides, "HIPTrack.head=@OwnHead"])
    assert code == 1
    assert 'no weights file could name this model: HIPTrack: head: hiptrack.models has nothing called "OwnHead"' in told
    assert "the run cannot start yet: 1 thing is missing or wrong above" in told


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory):
    """Weights of the toys' model, with its branch."""
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    config.load(TOY, toy_stages("nowhere", tracker=1), root="train")
    save_weights(path, Training().model(), model_text())
    return path


BRANCH = "TrackerWeights.branch = False leaves out the file's branch."


@pytest.mark.parametrize(
    "override, words",
    [
        ("ChallengeBranch.hidden_width=24", ("of another shape: challenge.projection.0.weight [16, 32]", BRANCH)),
        ("Taxonomy.classes=['hidden', 'glare', 'easy']", ("its branch has the classes occlusion, ", BRANCH)),
        ("Backbone.depth=3", ("missing: backbone.blocks.2.", "do not fit the model")),
    ],
)
def test_first_weights_that_do_not_fit_are_refused_in_the_words_of_the_training(
    dry_run, synthetic, toy_file, tmp_path, override, words
):
    flags = (
        ["Taxonomy.vlm={'occlusion': 'hidden'}", "Taxonomy.cv={'low_res': 'glare'}"] if "Taxonomy" in override else []
    )
    weights = ["train.initial_weights=[@TrackerWeights()]", f"TrackerWeights.path={toy_file}"]
    overrides = [*toy_stages(synthetic, tracker=1), *weights, *flags]
    overrides = [line for line in overrides if line.partition("=")[0] != override.partition("=")[0]] + [override]
    code, told = dry_run(overrides)
    assert code == 1 and all(part in told for part in words), told
    AcceleratorState._reset_state(reset_partial_state=True)
    config.load(TOY, overrides, root="train")
    with pytest.raises(CheckpointError) as raised:
        Training().run(TrainRequest(tmp_path / "run"))
    assert f"\n  {raised.value}\n" in told


def test_first_weights_that_fit(dry_run, synthetic, toy_file):
    weights = ["train.initial_weights=[@TrackerWeights()]", f"TrackerWeights.path={toy_file}"]
    other = [line for line in toy_stages(synthetic, tracker=1) if not line.startswith("ChallengeBranch.hidden_width")]
    code, told = dry_run([*toy_stages(synthetic, tracker=1), *weights])
    assert code == 0 and f"initial weights: tracker <- {toy_file}\n\n" in told
    code, _ = dry_run([*other, *weights, "TrackerWeights.branch=False", "ChallengeBranch.hidden_width=24"])
    assert code == 0


def test_data_that_are_absent_hide_nothing_else(dry_run, tmp_path):
    """Memory is told without data, and a split is called test whether it is there or not."""
    code, told = dry_run([*toy_stages(tmp_path / "nowhere", tracker=1), VALIDATION, "eval/FolderDataset.split=test"])
    assert code == 1 and told.count("not found: ") == 4
    assert told.endswith("the run cannot start yet: 2 things are missing or wrong above (in 4 lines)\n")
    assert "  memory of a step: about " in told and "  jitter" not in told
    assert "the validation is on test data (nowhere-test): its split is called 'test'" in told


def test_the_time_of_all(dry_run, synthetic):
    phases = "finetune/Stage.trainable={0: ['challenge'], 2: ['all']}"
    code, told = dry_run([*toy_stages(synthetic, tracker=2, finetune=3), phases], timed=True)
    assert code == 0
    for words in (
        "  tracker: ",
        "  finetune from epoch 0 on: ",
        "  finetune from epoch 2 on: ",
        " s a step, ",
        " the stage",
    ):
        assert words in told, told
    assert told.rstrip().endswith("data loading, validation and checkpoints are not in it")


def test_a_time_at_the_largest_keep_ratio_is_an_upper_bound(dry_run, synthetic):
    keep_ratio = ["finetune/Stage.keep_ratio=@KeepRatioSchedule()", "KeepRatioSchedule.start=1"]
    code, told = dry_run([*toy_stages(synthetic, tracker=1, finetune=2), *keep_ratio], timed=True)
    assert code == 0
    assert "  finetune: at most " in told and "the whole run: at most " in told and "  tracker: at most " not in told


def test_a_part_that_is_half_frozen_is_named_twice(dry_run, synthetic):
    half = "tracker/Stage.trainable=['box_head', 'backbone.norm']"
    code, told = dry_run([*toy_stages(synthetic, tracker=1), half])
    assert code == 0
    assert " parameters in backbone (in part), box_head\n" in told
    assert " parameters in backbone (in part), history, challenge\n" in told


def test_time_needs_dry_run(monkeypatch):
    monkeypatch.setattr("sys.argv", ["hiptrack train", "--gin", *TOY, "--time"])
    with pytest.raises(command.ConfigError, match="--dry-run is missing"):
        command.main()


def test_a_model_that_is_too_large_is_told(dry_run, synthetic):
    large = [line for line in toy_stages(synthetic, tracker=1) if not line.startswith("Stage.")]
    code, told = dry_run([*large, "Stage.batch=1000000", "Stage.clips=1000000"], timed=True)
    assert code == 0 and "lower Stage.largest_pass, or set Stage.activation_checkpointing = True" in told
    assert "  tracker: not timed, for a step takes more memory than there is" in told and " s a step" not in told
    assert told.rstrip().endswith("the whole run: not known, for not all of it was timed")


@pytest.mark.parametrize("processes, free, warned", [(1, 200, False), (2, 200, True), (2, 400, False), (1, 50, True)])
def test_memory_is_compared_with_what_the_processes_of_the_machine_share(
    dry_run, synthetic, monkeypatch, processes, free, warned
):
    """A step of the toy takes 100 to 200 MB beside what the process holds already; free: in MB."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free * 10**6))
    code, told = dry_run(toy_stages(synthetic, tracker=1))
    assert code == 0 and ("lower Stage.largest_pass" in told) == warned
    assert ("for the 2 of this machine: " in told) == (warned and processes == 2)
