"""The list of what can be configured, and where a value comes from."""

import re

import pytest

import hiptrack.evaluation.evaluate
import hiptrack.training.train  # noqa: F401  both register their names
from hiptrack.config import REPO_ROOT
from hiptrack.config.catalogue import catalogue, explain
from hiptrack.config.meaning import parameters, registered
from hiptrack.errors import ConfigError

TWO_STAGE = ["experiments/two_stage.gin"]

pytestmark = pytest.mark.usefixtures("clean_gin")


def test_an_entry_has_parameters_defaults_meaning_and_files():
    text = catalogue("MemoryPolicy  (")
    assert "Which frames are remembered and when they are read" in text
    assert "    .interval: int = 20  (at least 1)\n" in text
    assert "    .early: tuple[int, ...] = (5, 10)  (each at least 1)\n" in text
    text = catalogue("Stage  (hiptrack.training.stage)")
    assert (
        "    .epochs: int = required  (at least 1)\n        length, base learning rate, and the *global* batch" in text
    )
    assert "        schedule of the keep ratio; None trains with the backbone's own.\n" in text
    assert "{epoch of the stage: modules}. All others are frozen: in eval mode" in text  # of two lines
    batch = text[text.index("    .batch: int = 32") : text.index("    .clips:")]
    assert {"        set in gin/stage/adamw.gin", "        set in experiments/from_scratch.gin"} <= set(
        batch.splitlines()
    )


def test_what_the_code_gives_itself_is_not_listed():
    assert ".parameters" not in catalogue("AdamW  (")


def test_a_word_without_an_entry_names_the_nearest():
    with pytest.raises(ConfigError, match='mentions "GIoULos5"; the nearest name is "GIoULoss"'):
        catalogue("GIoULos5")


def test_a_word_may_be_of_the_meaning_of_a_parameter():
    assert "StepSchedule" in catalogue("epochs at whose start it drops")


def test_explain_names_the_line_that_holds_and_what_it_replaced():
    told = explain("branch/Stage.batch", TWO_STAGE, ["Stage.batch=8"])
    first, second = told.splitlines()
    assert first == 'branch/Stage.batch = 8  from command line: "Stage.batch=8", as Stage.batch'
    assert second.startswith("    instead of 32  from gin/stage/adamw.gin:")


def test_explain_lists_the_scopes_that_differ():
    told = explain("Stage.lr", TWO_STAGE, [])
    assert "Stage.lr is required, and nothing sets it" in told
    assert "branch/Stage.lr = 0.001  from experiments/two_stage.gin:" in told
    assert "finetune/Stage.lr = 1e-05  from experiments/two_stage.gin:" in told


def test_explain_follows_macros_and_knows_defaults():
    told = explain("FolderDataset.root", TWO_STAGE, ["DATA_ROOT=/data"])
    assert "FolderDataset.root = %DATA_ROOT  from gin/data/got10k.gin:" in told
    assert "%DATA_ROOT = '/data'  from command line" in told
    assert "train.seed = 0, the default (hiptrack.training.train, line" in explain("train.seed", TWO_STAGE, [])
    assert "WEIGHTS = " in explain("WEIGHTS", TWO_STAGE, [])


@pytest.mark.parametrize(
    "name, near", [("Stage.bach", "batch"), ("Stge.batch", "Stage"), ("WEIGHT", "WEIGHTS"), ("Stage", "is no macro")]
)
def test_explain_of_a_name_that_does_not_exist_names_the_nearest(name, near):
    with pytest.raises(ConfigError, match=near):
        explain(name, TWO_STAGE, [])


def test_explain_of_a_scope_that_nothing_opens_names_the_nearest():
    with pytest.raises(ConfigError, match='no reference opens the scope "brnch" of brnch/Stage.lr; .* is "branch"'):
        explain("brnch/Stage.lr", TWO_STAGE, [])


@pytest.mark.parametrize(
    "override, words",
    [
        ("Stage.batch=many", "expects int, not 'many'"),
        ("Stage.lr=1e-4", "has no effect on .*; write branch/Stage.lr=0.0001 finetune/"),
        ("brnch/Stage.lr=1e-4", 'no reference opens the scope "brnch"'),
        ("SGD.momentum=0.5", "train reaches no SGD"),
    ],
)
def test_explain_refuses_what_training_refuses(override, words):
    with pytest.raises(ConfigError, match=words):
        explain(override.partition("=")[0], TWO_STAGE, [override])


def test_explain_takes_the_files_of_an_evaluation():
    told = explain("Tracker.branch", ["gin/eval/branch_on.gin"], ["Tracker.margin=5"])
    assert told.startswith("Tracker.branch = 'on'  from gin/eval/branch_on.gin:2")


def test_the_page_for_users_of_the_yaml_files_names_what_there_is():
    known = {entry.name: parameters(entry) for entry in registered()}
    page = (REPO_ROOT / "docs" / "from_yaml.md").read_text()
    code = "\n".join(re.findall("`([^`]+)`", page))
    named = {found for found in re.findall(r"(?<![/\w])(\w+)\.(\w+)", code) if found[0] in known}
    assert len(named) > 50
    assert {f"{part}.{name}" for part, name in named if name not in known[part]} == set()
    files = set(re.findall(r"(?:gin|experiments|tools)/\w+(?:/\w+)?\.\w+", page))
    assert len(files) > 5 and {file for file in files if not (REPO_ROOT / file).exists()} == set()
