"""Configurations that name an extra without importing it, as runs of before wrote them."""

import json
import subprocess
import sys

import pytest

from hiptrack import config
from hiptrack.cli.extras import MODULES, with_extras
from hiptrack.config import REPO_ROOT
from hiptrack.config.meaning import matching
from hiptrack.config.syntax import read_override
from hiptrack.errors import UnknownNameError

OLD = REPO_ROOT / "tests" / "support" / "old_nano.gin"  # config.gin of a run of experiments/nano.gin


@pytest.fixture
def run(tmp_path):
    """The folder of an old run with a line in its log."""
    (tmp_path / "config.gin").write_text(OLD.read_text())
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "Validation/AO": 0.625}) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("train", ["--gin", "{run}/config.gin", "--dry-run"], "10000000 procedural scenes"),
        (
            "train",
            ["--gin", "experiments/two_stage.gin", "ClipData.datasets=[@World()]", "--dry-run"],
            "procedural scenes",
        ),
        ("sweep", ["--gin", "{run}/config.gin", "--axis", "easy/World.blur=[0.1, 0.3]", "--dry-run"], "blur=0.3"),
        ("compare", ["{run}"], "0.625"),
        ("replay", ["{run}"], "fault.json"),  # which is missing, and read after the configuration
    ],
)
def test_an_extra_that_is_not_imported_is_found(command, arguments, words, run):
    assert "World" in OLD.read_text() and "import" not in OLD.read_text()
    words_of = [argument.format(run=run) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "hiptrack", command, *words_of],
        capture_output=True, text=True, check=False, timeout=300, cwd=run,
    )  # fmt: skip
    assert words in done.stdout + done.stderr and "Traceback" not in done.stderr, done.stdout + done.stderr


def test_a_name_that_stands_nowhere_is_an_error_as_before():
    with pytest.raises(UnknownNameError, match='nothing is called "Nowhere"'):
        with_extras(config.load, [], ["Nowhere.seed=3"], "train")


@pytest.mark.parametrize("name", MODULES)
def test_a_name_of_the_table_is_registered_by_its_module(name, clean_gin):
    with_extras(read_override, f"{name}.seed=3")
    (entry,) = matching(name)
    assert entry.wrapped.__module__ == MODULES[name]
