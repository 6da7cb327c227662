"""gin files and overrides: what is accepted, what each mistake is answered with, what is recorded."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import gin
import pytest

from hiptrack import config, config_parse
from hiptrack.config_checks import fits
from hiptrack.config_parse import quoted
from hiptrack.errors import ConfigError, DataError


@gin.register
class ToySampler:
    def __init__(self, max_gap: int = 10):
        self.max_gap = max_gap


@gin.register
class ToyAdam:
    def __init__(self, params: Sequence = (), weight_decay: float = 0.0):
        self.weight_decay = weight_decay


@gin.register
class ToyIoU:
    def __init__(self, weight: float = 1.0):
        self.weight = weight


@gin.register
class ToyData:
    def __init__(self, root: str, sampler: ToySampler | None = None, ratio: dict[str, float] | None = None):
        self.root, self.sampler, self.ratio = root, sampler, ratio


@gin.register
class ToyStage:
    """A stage as the design has it: it keeps its scope and calls what it was given uncalled in it."""

    def __init__(
        self,
        epochs: int = 1,
        lr: float = 1e-3,
        data: ToyData | None = None,
        optimiser: Callable = ToyAdam,
        losses: list[ToyIoU] = (),
        precision: Literal["no", "bf16"] = "no",
        size: tuple[int, int] = (8, 8),
    ):
        self.scope = gin.current_scope_str()
        self.epochs, self.lr, self.data, self.losses = epochs, lr, data, losses
        self.size, self.precision, self._optimiser = size, precision, optimiser

    def optimiser(self):
        with gin.config_scope(self.scope):
            return self._optimiser()


@gin.configurable
def toy_train(stages: list[ToyStage], model: Any = None, name: str = "run"):
    return stages


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    """A repository root of its own for each test, as the working directory; gin is cleared afterwards."""
    monkeypatch.setattr(config_parse, "REPO_ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    gin.clear_config()


TWO_STAGES = """\
toy_train.stages = [@warmup/ToyStage(), @finetune/ToyStage()]
ToyStage.epochs = 5
warmup/ToyStage.lr = 1e-2
ToyStage.data = @ToyData()
ToyData.root = %DATA_ROOT
ToyStage.optimiser = @ToyAdam
finetune/ToyAdam.weight_decay = 1e-4
DATA_ROOT = 'data'
"""


def load(text, *overrides):
    with open("exp.gin", "w") as file:
        file.write(text)
    config.load(["exp.gin"], overrides, "toy_train")


def error(text, *overrides):
    with pytest.raises(ConfigError) as raised:
        load(text, *overrides)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_stages_share_root_bindings_and_keep_their_own():
    load(TWO_STAGES)
    warmup, finetune = toy_train()
    assert (warmup.epochs, finetune.epochs) == (5, 5)
    assert (warmup.lr, finetune.lr) == (1e-2, 1e-3)
    assert (warmup.optimiser().weight_decay, finetune.optimiser().weight_decay) == (0.0, 1e-4)
    assert gin.config_is_locked()


def test_later_lines_files_and_overrides_win(repository):
    (repository / "more.gin").write_text("ToyStage.epochs = 6\nwarmup/ToyStage:\n    lr = 1\n")
    (repository / "exp.gin").write_text(TWO_STAGES + "ToyStage.epochs = 4\n")
    config.load(["exp.gin", "more.gin"], ["finetune/ToyStage.lr=3"], "toy_train")
    assert [(stage.epochs, stage.lr) for stage in toy_train()] == [(6, 1), (6, 3)]


def test_load_forgets_the_configuration_before():
    load(TWO_STAGES)
    load("toy_train.stages = [@ToyStage()]")
    assert config.config_text() == "toy_train.stages = [@ToyStage()]\n"


# The five typos


def test_unknown_name():
    assert error("toy_train.stages = [@ToyStage()]\nToyStag.epochs = 3\n") == (
        'exp.gin:2: nothing is called "ToyStag"; the nearest valid name is "ToyStage".'
    )
    assert error("\ntoy_train.stages = [\n  @ToyStagge()]\n") == (
        'exp.gin:2: nothing is called "ToyStagge"; the nearest valid name is "ToyStage".'
    )
    assert error(TWO_STAGES, "toystage.epochs=3") == (
        'command line: "toystage.epochs=3": nothing is called "toystage"; the nearest valid name is "ToyStage".'
    )
    assert error("ToyStag:\n  epochs = 3\n") == (
        'exp.gin:1: nothing is called "ToyStag"; the nearest valid name is "ToyStage".'
    )


def test_unknown_parameter():
    assert error("toy_train.stages = [@ToyStage()]\n\nToyStage.epoch = 3\n") == (
        'exp.gin:3: ToyStage has no parameter "epoch"; the nearest is "epochs" '
        "(of epochs, lr, data, optimiser, losses, precision, size)."
    )


def test_unknown_scope():
    assert error(TWO_STAGES + "warmpu/ToyStage.epochs = 3\n") == (
        'exp.gin:9: no reference opens the scope "warmpu" of warmpu/ToyStage.epochs; the nearest one is "warmup".'
    )
    assert error("toy_train.stages = [@ToyStage()]\nwarmup/ToyStage.epochs = 3\n") == (
        'exp.gin:2: no reference opens the scope "warmup" of warmup/ToyStage.epochs; '
        "write @warmup/ToyStage where ToyStage is used."
    )


def test_unknown_and_unused_macro():
    assert error(TWO_STAGES.replace("%DATA_ROOT", "%DATA_ROT")) == (
        "exp.gin:5: ToyData.root uses the macro %DATA_ROT, which is not defined; the nearest one is DATA_ROOT; "
        "define it, or set it on the command line: DATA_ROT=VALUE."
    )
    assert error(TWO_STAGES, "DATA_ROT=/data") == (
        'command line: "DATA_ROT=/data": nothing uses the macro DATA_ROT; the nearest used one is DATA_ROOT.'
    )
    assert error("toy_train.stages = [@ToyStage()]\nepochs = 3\n") == (
        "exp.gin:2: nothing uses the macro epochs; a parameter is written Name.parameter."
    )
    assert error("toy_train.stages = [@ToyStage()]\nToyStage.epochs = %A\nA = %B\nB = [%A]\n") == (
        "exp.gin:2: the macro %A is defined by itself."
    )


def test_wrong_literal_type():
    assert error('toy_train.stages = [@ToyStage()]\nToyStage.epochs = "ten"\n') == (
        "exp.gin:2: ToyStage.epochs expects int, not 'ten' (str)."
    )
    assert error("toy_train.stages = [@ToyStage()]\nToyStage.epochs = %N\nN = 2.5\n") == (
        "exp.gin:2: ToyStage.epochs expects int, not 2.5, the value of %N (float)."
    )
    assert error("toy_train.stages = [@ToyStage()]", "ToyStage.precision=fp8") == (
        "command line: \"ToyStage.precision=fp8\": ToyStage.precision expects Literal['no', 'bf16'], not 'fp8' (str)."
    )
    assert error("toy_train.stages = [@ToyStage]") == (
        "exp.gin:1: toy_train.stages expects list[test_config.ToyStage], not [@ToyStage] (list)."
    )
    assert error("toy_train.stages = [@ToyStage()]\nToyStage.data = @ToyData\nToyData.root = 'x'") == (
        "exp.gin:2: ToyStage.data expects test_config.ToyData | None, not @ToyData; write @ToyData()."
    )


@pytest.mark.parametrize(
    "hint, good, bad",
    [
        (int, ["3", "-3"], ["True", "3.0", "None", "'3'", "@ToyAdam", "@ToyAdam()"]),
        (float, ["3", "1e-3"], ["False", "'1'", "[1.0]"]),
        (bool, ["True"], ["1", "'true'"]),
        (str, ["'a'"], ["1", "['a']", "@ToyAdam()"]),
        (int | None, ["None", "3"], ["'x'"]),
        (list[int], ["[]", "[1, 2]"], ["1", "[1, 'a']", "(1, 2)", "[True]", "@ToyAdam()"]),
        (tuple[int, float], ["(1, 2)"], ["(1,)", "(1, 2, 3)", "[1, 2]"]),
        (tuple[int, ...], ["()", "(1, 2, 3)"], ["(1, 'a')", "1"]),
        (Sequence[str], ["['a']", "('a',)"], ["'abc'", "[1]"]),
        (dict[str, list[int]], ["{}", "{'a': [1]}"], ["{'a': 1}", "{1: [1]}", "[]"]),
        (Literal["a", 1], ["'a'", "1"], ["True", "'b'", "1.0"]),
        (ToyAdam, ["@ToyAdam()", "@x/ToyAdam()"], ["@ToyAdam", "@ToyStage()", "'adam'"]),
        (list[ToyAdam], ["[@ToyAdam(), @ToyAdam()]"], ["[@ToyAdam]", "@ToyAdam()"]),
        (type[ToyAdam], ["@ToyAdam"], ["@ToyAdam()", "'ToyAdam'"]),
        (Callable[[], ToyAdam], ["@ToyAdam", "@toy_train"], ["@ToyAdam()", "3", "'f'"]),
        (Callable | None, ["@ToyAdam", "None"], ["@ToyAdam()"]),
        (Any, ["1", "@ToyAdam", "@toy_train()"], []),
        ("SomethingUnresolved", ["1", "@ToyAdam"], []),
    ],
)
def test_types(hint, good, bad):
    assert [text for text in good + bad if fits(gin.config.parse_value(text), hint)] == good


# Bindings that are not read, or not everywhere


def test_shadowed_in_a_file_only_if_no_scope_reads_it():
    load(TWO_STAGES + "warmup/ToyStage.epochs = 7\n")
    assert [stage.epochs for stage in toy_train()] == [7, 5]
    assert error(TWO_STAGES + "warmup/ToyStage.epochs = 7\nfinetune/ToyStage.epochs = 8\n") == (
        "exp.gin:2: ToyStage.epochs has no effect: each use of ToyStage has a value of its own: "
        "warmup/ToyStage.epochs (exp.gin:9), finetune/ToyStage.epochs (exp.gin:10); remove it."
    )


def test_shadowed_on_the_command_line_in_any_scope():
    text = TWO_STAGES + "warmup/ToyStage.epochs = 3\n"
    assert error(text, "ToyStage.epochs=7") == (
        'command line: "ToyStage.epochs=7": has no effect on warmup/ToyStage.epochs (exp.gin:9); write warmup/ToyStage.epochs=7'
    )
    assert error(text + "finetune/ToyStage.epochs = 4\n", "ToyStage.epochs=7") == (
        'command line: "ToyStage.epochs=7": has no effect on warmup/ToyStage.epochs (exp.gin:9), '
        "finetune/ToyStage.epochs (exp.gin:10); write warmup/ToyStage.epochs=7 finetune/ToyStage.epochs=7"
    )
    load(text, "ToyStage.epochs=7", "warmup/ToyStage.epochs=8")
    assert [stage.epochs for stage in toy_train()] == [8, 7]


def test_unused():
    assert error(TWO_STAGES + "ToyIoU.weight = 2.0\n") == (
        "exp.gin:9: ToyIoU.weight has no effect: toy_train reaches no ToyIoU; refer to it, or remove the line; "
        'the nearest name in use is "toy_train".'
    )
    text = TWO_STAGES.replace("ToyStage.data", "warmup/ToyStage.data")
    assert error(text + "ToyStage.losses = []\nfinetune/ToyData.root = 'x'\n") == (
        'exp.gin:10: finetune/ToyData.root has no effect: ToyData is used in "warmup", not in "finetune".'
    )


def test_what_only_the_command_line_replaces_is_dropped():
    """Choosing one stage, or a value for each scope, leaves lines of the file without a reader: no mistake."""
    load(TWO_STAGES, "toy_train.stages=[@warmup/ToyStage()]")
    assert "finetune" not in config.config_text()
    load(TWO_STAGES, "warmup/ToyStage.epochs=7", "finetune/ToyStage.epochs=8")
    assert [stage.epochs for stage in toy_train()] == [7, 8]
    load(TWO_STAGES, "ToyData.root=/data")
    assert "DATA_ROOT" not in config.config_text()
    assert error(TWO_STAGES, "ToyStage.data=None", "ToyData.root=x").startswith('command line: "ToyData.root=x"')


def test_scopes_follow_references():
    """Unscoped references inherit the scope, scoped ones replace it, also inside containers and macros."""
    text = TWO_STAGES + "ToyData.sampler = @ToySampler()\nfinetune/ToySampler.max_gap = 20\n"
    load(text)
    assert [stage.data.sampler.max_gap for stage in toy_train()] == [10, 20]
    assert "finetune/ToySampler.max_gap" in error(text.replace("@ToySampler()", "@far/ToySampler()"))
    load(
        "toy_train.stages = [@a/b/ToyStage()]\na/ToyIoU.weight = 2.0\na/b/ToyStage.losses = %LOSSES\n"
        "LOSSES = [@a/ToyIoU()]\na/ToyStage.epochs = 3\nToyStage.lr = 1\na/ToyStage.optimiser = %OPT\n"
        "OPT = @ToyAdam\na/b/ToyAdam.weight_decay = 0.5\n"
    )
    (stage,) = toy_train()
    assert (stage.epochs, stage.lr, stage.losses[0].weight) == (3, 1, 2.0)
    assert stage.optimiser().weight_decay == 0.5


def test_what_cannot_be_built_is_found_before_anything_is():
    text = "toy_train.stages = [@ToyStage()]\nToyStage.data = @ToyData()\n"
    assert error(text) == (
        'exp.gin:2: ToyStage.data builds ToyData, whose parameter "root" has no value; bind ToyData.root.'
    )
    assert error("toy_train.model = [@toy_train()]\ntoy_train.stages = []") == (
        "exp.gin:1: toy_train.model would build itself without end."
    )
    assert error(text + "ToyData.root = %gin.REQUIRED") == (
        "exp.gin:3: ToyData.root must be set; on the command line: ToyData.root=VALUE."
    )


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
        config.run_main(main)
    assert (stopped.value.code or 0, capsys.readouterr().err) == (code, message)


def raise_(exception):
    raise exception


def test_errors_that_pass_through_gin_stay_one_paragraph(capsys, monkeypatch):
    load(TWO_STAGES)
    monkeypatch.setattr(ToyData, "__init__", lambda self, root: raise_(DataError(f"{root}: no such folder.")))
    with pytest.raises(SystemExit):
        config.run_main(toy_train)
    assert capsys.readouterr().err == "error: data: no such folder.\n"


def test_a_tool_exits_with_an_error_and_no_traceback(repository):
    script = (
        "import gin\nfrom hiptrack.config import load, run_main\n"
        "@gin.configurable\ndef train(epochs: int = 1): pass\n"
        "run_main(lambda: load([], ['train.epoch=3'], 'train'))\n"
    )
    (repository / "tool.py").write_text(script)
    done = subprocess.run([sys.executable, "tool.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        'error: command line: "train.epoch=3": train has no parameter "epoch"; the nearest is "epochs" (of epochs).\n'
    )
