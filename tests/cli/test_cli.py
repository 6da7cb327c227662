"""The console command: every tool under one name."""

import importlib
import subprocess
import sys

import pytest

from hiptrack.cli.__main__ import COMMANDS
from hiptrack.config import REPO_ROOT


def hiptrack(*arguments):
    command = [sys.executable, "-m", "hiptrack.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=REPO_ROOT)


def test_help_lists_every_command_and_each_is_a_tool():
    done = hiptrack("--help")
    assert done.returncode == 0
    assert {line.split()[0] for line in done.stdout.splitlines()[2:]} == set(COMMANDS)
    tools = {path.stem for path in (REPO_ROOT / "tools").glob("*.py")}
    assert {module for module, _ in COMMANDS.values()} == tools


@pytest.mark.parametrize("module", [module for module, _ in COMMANDS.values()])
def test_each_command_has_a_main_and_says_what_it_is(module):
    command = importlib.import_module(f"hiptrack.cli.{module}")
    assert callable(command.main) and command.__doc__


def test_a_command_gets_its_arguments_and_gives_its_exit_code(tmp_path):
    done = hiptrack("submit-check", str(tmp_path / "none.zip"))
    assert done.returncode == 1 and f"not found: {tmp_path}/none.zip" in done.stderr
    shown = hiptrack("train", "--help")
    assert shown.returncode == 0 and shown.stdout.startswith("usage: hiptrack train")


def test_an_unknown_command_names_the_nearest():
    done = hiptrack("trian")
    assert done.returncode == 1 and 'Did you mean "train"?' in done.stderr and "Traceback" not in done.stderr
    assert hiptrack().returncode == 2
