"""The console command: every command under one name, and what starts without PyTorch."""

import importlib
import subprocess
import sys
from contextlib import suppress

import pytest

from hiptrack.cli import COMMANDS, benchmark, export, main, rank_hard
from hiptrack.config import REPO_ROOT
from hiptrack.errors import HiptrackError
from hiptrack.evaluation import rank
from hiptrack.extras.export import formats
from hiptrack.tracking import tracker


def hiptrack(*arguments):
    return python("-m", "hiptrack", *arguments)


def python(*words):
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=REPO_ROOT)


def test_help_lists_every_command():
    done = hiptrack("--help")
    assert done.returncode == 0
    assert {line.split()[0] for line in done.stdout.splitlines()[2:]} == set(COMMANDS)
    files = {path.stem for path in (REPO_ROOT / "hiptrack/cli").glob("*.py")} - {"__init__", "extras", "options"}
    assert {module for module, _ in COMMANDS.values()} == files


@pytest.mark.parametrize("module", [module for module, _ in COMMANDS.values()])
def test_each_command_has_a_main_and_says_what_it_is(module):
    command = importlib.import_module(f"hiptrack.cli.{module}")
    assert callable(command.main) and command.__doc__


def test_help_and_a_mistyped_option_are_answered_without_pytorch():
    program = """
import sys
from hiptrack.cli import COMMANDS, main
for name in COMMANDS:
    for option, code in (("--help", 0), ("--mistyped", 2)):
        sys.argv = ["hiptrack", name, option]
        try:
            main()
            sys.exit(f"{name} {option} went on")
        except SystemExit as end:
            assert end.code == code, (name, option, end.code)
        slow = {"torch", "accelerate", "timm", "matplotlib", "huggingface_hub"} & sys.modules.keys()
        assert not slow, (name, option, slow)
"""
    done = python("-c", program)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"usage: hiptrack {name} " in done.stdout and f"hiptrack {name}: error: " in done.stderr


def test_a_mistyped_gin_name_is_told_before_what_only_a_run_needs_is_imported():
    program = """
import sys
from hiptrack.cli import main
from hiptrack.errors import ConfigError
sys.argv = ["hiptrack", "train", "--gin", "experiments/two_stage.gin", "train.sed=1"]
try:
    main()
except ConfigError as error:
    print(error)
print({"timm", "matplotlib", "tensorboard", "torch._dynamo"} & sys.modules.keys())
"""
    done = python("-c", program)
    assert 'no parameter "sed"; the nearest is "seed"' in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"


def test_what_an_option_offers_is_what_there_is():
    assert export.FORMATS == tuple(formats.FORMATS)
    assert rank_hard.MEASURES == rank.MEASURES
    assert benchmark.PRECISIONS == tracker.PRECISIONS


def test_a_command_gets_its_arguments_and_gives_its_exit_code(tmp_path):
    done = hiptrack("submit-check", str(tmp_path / "none.zip"))
    assert done.returncode == 1 and f"not found: {tmp_path}/none.zip" in done.stderr
    shown = hiptrack("train", "--help")
    assert shown.returncode == 0 and shown.stdout.startswith("usage: hiptrack train")


def test_a_launcher_s_file_is_the_command_of_its_name():
    for name in ("train", "eval", "strip_cls", "track"):
        shown = python(f"tools/{name}.py", "--help")
        assert shown.returncode == 0 and shown.stdout.startswith(f"usage: {name}.py"), shown.stderr


def test_an_unknown_command_names_the_nearest():
    done = hiptrack("trian")
    assert done.returncode == 1 and 'Did you mean "train"?' in done.stderr and "Traceback" not in done.stderr
    assert hiptrack().returncode == 2


@pytest.mark.parametrize(
    "command",
    [
        ["eval", "--checkpoint", "none.safetensors", "--root", "."],
        ["track", "film.mp4", "--checkpoint", "none.safetensors", "--box", "1,2,3,4", "--jsonl", "a.jsonl"],
        ["rank-hard", "--checkpoint", "none.safetensors", "--root", "."],
        ["benchmark", "track", "--json", "a.json", "--model", "none.gin"],
        ["benchmark", "train", "train.sed=1"],
        ["catalogue", "--explain", "Tracker.margin", "Tracker.smoothing=0.5"],
    ],
    ids=" ".join,
)
def test_the_working_directory_does_not_decide_what_a_tool_reads_unasked(command, tmp_path, monkeypatch, clean_gin):
    """Its namesakes of the package's gin files are not read, and their imports do not run."""
    for path in [*(REPO_ROOT / "gin").rglob("*.gin"), *(REPO_ROOT / "experiments").rglob("*.gin")]:
        file = tmp_path / path.relative_to(REPO_ROOT)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("import planted\n")
    (tmp_path / "planted.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as under python -m
    monkeypatch.setattr(sys, "argv", ["hiptrack", *command])
    with suppress(HiptrackError):
        main()
    assert "planted" not in sys.modules
