"""Files, command line, records and exit codes of the configuration."""

import argparse
import subprocess
import sys

import gin
import pytest
from toy_config import (
    TWO_STAGES,
    ToyData,
    error,
    load,
    repository,  # noqa: F401  an autouse fixture
    toy_train,
)

from hiptrack import config
from hiptrack.config.syntax import quoted
from hiptrack.errors import ConfigError, DataError, run_main

# Files


def test_includes_from_another_working_directory(repository, monkeypatch):
    for folder in ("gin/stage", "experiments", "elsewhere"):
        (repository / folder).mkdir(parents=True)
    (repository / "gin/stage/two.gin").write_text(TWO_STAGES)
    (repository / "experiments/a.gin").write_text("include 'gin/stage/two.gin'\nToyStage.epochs = 9\n")
    (repository / "experiments/bad.gin").write_text("\ninclude 'gin/stage/too.gin'\n")
    (repository / "elsewhere/mine.gin").write_text("include 'gin/stage/two.gin'\nToyStage.epoch = 9\n")
    monkeypatch.chdir(repository / "elsewhere")
    config.load(["experiments/a.gin"], [], "toy_train")
    assert [stage.epochs for stage in toy_train()] == [9, 9]
    with pytest.raises(ConfigError, match="mine.gin:2: ToyStage has no parameter"):
        config.load(["mine.gin"], [], "toy_train")
    with pytest.raises(ConfigError) as raised:
        config.load(["experiments/bad.gin"], [], "toy_train")
    assert str(raised.value) == (
        f'{repository}/experiments/bad.gin:2: there is no gin file "gin/stage/too.gin" in {repository}/elsewhere '
        f'or in {repository}; the nearest is "gin/stage/two.gin".'
    )
    with pytest.raises(ConfigError, match=r'no gin file "min.gin" .*the nearest is "mine.gin"\.'):
        config.load(["min.gin"], [], "toy_train")


def test_a_file_of_the_package_includes_the_package_s_own_though_the_working_directory_has_its_namesake(
    repository, monkeypatch
):
    for folder in ("gin/stage", "experiments", "elsewhere/gin/stage", "elsewhere/experiments"):
        (repository / folder).mkdir(parents=True)
    (repository / "gin/stage/two.gin").write_text(TWO_STAGES)
    (repository / "gin/stage/nine.gin").write_text("include 'gin/stage/two.gin'\nToyStage.epochs = 9\n")
    (repository / "experiments/a.gin").write_text("include 'gin/stage/nine.gin'\n")
    (repository / "elsewhere/gin/stage/two.gin").write_text("import planted\n")
    (repository / "elsewhere/gin/stage/nine.gin").write_text("import planted\n")
    (repository / "elsewhere/b.gin").write_text("include 'experiments/a.gin'\nToyStage.lr = 0.5\n")
    monkeypatch.chdir(repository / "elsewhere")
    for name in ("experiments/a.gin", "b.gin", config.packaged("experiments/a.gin")):
        config.load([name], [], "toy_train")
        assert [stage.epochs for stage in toy_train()] == [9, 9]
    (repository / "elsewhere/experiments/a.gin").write_text("include 'gin/stage/two.gin'\n")  # one's own, asked for
    with pytest.raises(ConfigError, match=r"^gin/stage/two.gin:1: cannot import planted"):
        config.load(["experiments/a.gin"], [], "toy_train")


def test_a_deleted_working_directory(repository, monkeypatch, capsys):
    (repository / "gone").mkdir()
    monkeypatch.chdir(repository / "gone")
    (repository / "gone").rmdir()
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: pytest.fail("it was run"))
    assert ended.value.code == 1 and capsys.readouterr().err.startswith("error: the working directory was deleted.")


def test_errors_in_included_files_and_cycles(repository):
    (repository / "part.gin").write_text("include 'exp.gin'\n")
    assert error("include 'part.gin'") == "part.gin:1: exp.gin includes itself."
    (repository / "part.gin").write_text("\nToyStage.epochs = 'x'\n")
    assert error("include 'part.gin'\ntoy_train.stages = [@ToyStage()]").startswith("part.gin:2: ToyStage.epochs")
    (repository / "part.gin").write_bytes(b"\xff\xfe\x00")
    assert error("include 'part.gin'").startswith("part.gin: cannot be read as a text file:")


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "\nToyStage.epochs 3",
            "exp.gin:2: Couldn't parse statement, expected ':' or '=', in ToyStage.epochs 3.",
        ),
        ("toy_train.name = vit", "exp.gin:1: cannot read the value vit; a string needs quotes."),
        (
            "ToyStage.size = (1,\n",
            "a bracket or a quote is not closed",
        ),
        ("import no_such_module_x", "exp.gin:1: cannot import no_such_module_x"),
        ("from __gin__ import dynamic_registration", "exp.gin:1: dynamic registration is not supported"),
        ("ToyData.ratio = {[1]: 2}", "exp.gin:1: unhashable type: 'list', as a key of a dict."),
    ],
)
def test_syntax(text, message):
    assert message in error(text)


# Command line


@pytest.mark.parametrize(
    "value, text",
    [
        ("vit_tiny_patch16_224", "'vit_tiny_patch16_224'"),
        ("/some/path", "'/some/path'"),
        ("it's", '"it\'s"'),
        ("a b", "'a b'"),
        ("10k", "'10k'"),
        ("1,2", "'1,2'"),
        ("2024-01-01", "'2024-01-01'"),
        ("true", "'true'"),
        ("-x", "'-x'"),
        ("7", "7"),
        ("-1e-3", "-1e-3"),
        ("None", "None"),
        ("True", "True"),
        ("[1, 'a']", "[1, 'a']"),
        ("{'a': 1}", "{'a': 1}"),
        ("(1, 2)", "(1, 2)"),
        ("@ToyAdam", "@ToyAdam"),
        ("[@a/ToyAdam()]", "[@a/ToyAdam()]"),
        ("%MACRO", "%MACRO"),
        ("'x'", "'x'"),
        ('"x"', '"x"'),
        ("[1", "[1"),
    ],
)
def test_quoting(value, text):
    assert quoted(value) == text


def test_overrides(repository):
    load(TWO_STAGES, "DATA_ROOT=/some/path", "toy_train.name = a=b", "warmup/ToyStage.epochs =2")
    assert gin.query_parameter("DATA_ROOT/gin.macro.value") == "/some/path"
    assert gin.query_parameter("toy_train.name") == "a=b"
    assert toy_train()[0].epochs == 2
    assert error(TWO_STAGES, "experiments/demo.gin") == (
        'command line: "experiments/demo.gin": expected NAME=VALUE, as in Stage.epochs=3; '
        "did you mean --gin experiments/demo.gin?"
    )
    assert error(TWO_STAGES, "DATA_ROOT=") == (
        'command line: "DATA_ROOT=": there is no value; write DATA_ROOT="\'\'" for an empty string.'
    )
    assert error(TWO_STAGES, "ToyStage.size=[1, 2").startswith('command line: "ToyStage.size=[1, 2": a bracket')
    assert error(TWO_STAGES, "toy_train.stages=[@ToyStge()]") == (
        'command line: "toy_train.stages=[@ToyStge()]": nothing is called "ToyStge"; the nearest valid name is "ToyStage".'
    )


def test_options_and_overrides_mix():
    parser = argparse.ArgumentParser()
    config.add_arguments(parser)
    parser.add_argument("--run")
    args = config.parse_args(parser, ["A.x=-1", "--gin", "a.gin", "B.y=2", "--run", "r", "--gin", "b.gin", "C=3"])
    assert (args.gin, args.overrides, args.run) == (["a.gin", "b.gin"], ["A.x=-1", "B.y=2", "C=3"], "r")
    empty = config.parse_args(parser, [])
    assert (empty.gin, empty.overrides) == ([], [])


# Records


def test_config_text_runs_again():
    text = TWO_STAGES + (
        "warmup/ToyStage.losses = [@ToyIoU(), @strong/ToyIoU()]\nstrong/ToyIoU.weight = 1e999\n"
        "ToyData.ratio = {'a b': 0.5, \"it's\": -1e999}\nToyStage.size = %SIZE\nSIZE = (3, %WIDTH)\nWIDTH = 4\n"
        "import colorsys\nwarmup/ToyAdam.params = (1,)\n"
        f"toy_train.name = '{'long ' * 50}'\n"
    )
    load(text)
    recorded = config.config_text()
    assert recorded.startswith(
        "import colorsys\n\nDATA_ROOT = 'data'\nSIZE = (3, %WIDTH)\nWIDTH = 4\n\nfinetune/ToyAdam"
    )
    before = {key: repr(value) for key, value in gin.config._CONFIG.items()}
    load(recorded)
    assert {key: repr(value) for key, value in gin.config._CONFIG.items()} == before
    assert config.config_text() == recorded
    assert (toy_train()[0].losses[1].weight, toy_train()[0].size) == (float("inf"), (3, 4))


def test_line_order_does_not_change_the_order_of_building():
    load(TWO_STAGES)
    first = [*gin.config._CONFIG]
    load("\n".join(reversed(TWO_STAGES.splitlines())))
    assert [*gin.config._CONFIG] == first


def test_operative_text_holds_what_was_used():
    load(TWO_STAGES)
    toy_train()
    assert "warmup/ToyStage.lr = 0.01" in config.operative_text()


# Exit codes


@pytest.mark.parametrize(
    "main, code, message",
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (lambda: raise_(KeyboardInterrupt()), 130, ""),
        (lambda: raise_(DataError("a.jpg: cannot be read.")), 1, "error: a.jpg: cannot be read.\n"),
    ],
)
def test_run_main(main, code, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    assert (stopped.value.code or 0, capsys.readouterr().err) == (code, message)


def test_packages_that_overwrite_each_other_are_told(tmp_path, monkeypatch, capsys):
    for name in ("opencv_python", "opencv_contrib_python"):
        folder = tmp_path / f"{name}-5.0.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: {name.replace('_', '-')}\nVersion: 5.0.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(SystemExit):
        run_main(lambda: 0)
    told = "warning: opencv-contrib-python and opencv-python overwrite each other. Run: pip uninstall -y opencv-"
    assert capsys.readouterr().err.startswith(told)


def raise_(exception):
    raise exception


def test_errors_that_pass_through_gin_stay_one_paragraph(capsys, monkeypatch):
    load(TWO_STAGES)
    monkeypatch.setattr(ToyData, "__init__", lambda self, root: raise_(DataError(f"{root}: no such folder.")))
    with pytest.raises(SystemExit):
        run_main(toy_train)
    assert capsys.readouterr().err == "error: data: no such folder.\n"


def test_a_tool_exits_with_an_error_and_no_traceback(repository):
    script = (
        "import gin\nfrom hiptrack.config import load\nfrom hiptrack.errors import run_main\n"
        "@gin.configurable\ndef train(epochs: int = 1): pass\n"
        "run_main(lambda: load([], ['train.epoch=3'], 'train'))\n"
    )
    (repository / "tool.py").write_text(script)
    done = subprocess.run([sys.executable, "tool.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        'error: command line: "train.epoch=3": train has no parameter "epoch"; the nearest is "epochs" (of epochs).\n'
    )
