"""The checks of the configuration: names, scopes, macros, types, ranges, bindings that nothing reads."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import gin
import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen
from toy_config import (
    TWO_STAGES,
    ToyAdam,
    error,
    load,
    repository,  # noqa: F401  an autouse fixture
    toy_train,
)

from hiptrack import config
from hiptrack.config.checks import fits
from hiptrack.config.meaning import CHANGES_NO_RESULT, changes_no_result


@gin.register
class ToyNumbers:
    def __init__(
        self,
        share: Annotated[float, Interval(ge=0, le=1)] = -1,
        rate: Annotated[float, Gt(0)] | None = None,
        size: Annotated[int, Interval(ge=8, le=512)] | Literal["auto"] = "auto",
        gap: Annotated[int, Ge(1)] = 1,
        workers: Annotated[int, Le(8), CHANGES_NO_RESULT] = 2,
        betas: tuple[Annotated[float, Gt(0)], Annotated[float, Lt(1)]] = (0.5, 0.5),
        factors: dict[str, Annotated[float, Interval(gt=0, le=1)]] | None = None,
        names: Annotated[list[str], MinLen(1)] = ("a",),
    ):
        pass


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
        "exp.gin:2: nothing uses the macro epochs; let it reach what is in use: ToyStage.epochs = %epochs."
    )
    assert error("toy_train.stages = [@ToyStage()]\nToyStage.epochs = %A\nA = %B\nB = [%A]\n") == (
        "exp.gin:3: the macro %A is defined by itself."
    )


def test_wrong_literal_type():
    assert error('toy_train.stages = [@ToyStage()]\nToyStage.epochs = "ten"\n') == (
        "exp.gin:2: ToyStage.epochs expects int, not 'ten' (str)."
    )
    assert error("toy_train.stages = [@ToyStage()]\nToyStage.epochs = %N\nN = 2.5\n") == (
        "exp.gin:2: ToyStage.epochs expects int, not 2.5, the value of %N at exp.gin:3 (float)."
    )
    assert error("toy_train.stages = [@ToyStage()]", "ToyStage.precision=fp8") == (
        "command line: \"ToyStage.precision=fp8\": ToyStage.precision expects Literal['no', 'bf16'], not 'fp8' (str)."
    )
    assert error("toy_train.stages = [@ToyStage]") == (
        "exp.gin:1: toy_train.stages expects list[toy_config.ToyStage], not [@ToyStage] (list)."
    )
    assert error("toy_train.stages = [@ToyStage()]\nToyStage.data = @ToyData\nToyData.root = 'x'") == (
        "exp.gin:2: ToyStage.data expects toy_config.ToyData | None, not @ToyData; write @ToyData()."
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
        (Annotated[int, Ge(1)] | None, ["1", "None", "@toy_train()"], ["0", "True", "1.5", "@ToyAdam()"]),
        (list[Annotated[float, Ge(0)]], ["[]", "[0, 1e999]", "[@toy_train()]"], ["[1, -1]", "['a']", "0"]),
        (Any, ["1", "@ToyAdam", "@toy_train()"], []),
        ("SomethingUnresolved", ["1", "@ToyAdam"], []),
    ],
)
def test_types(hint, good, bad):
    assert [text for text in good + bad if fits(gin.config.parse_value(text), hint)] == good


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("share", "1.5", "a number from 0 to 1"),
        ("rate", "0", "above 0 or None"),
        ("size", "4", "a number from 8 to 512"),
        ("gap", "0", "at least 1"),
        ("workers", "9", "at most 8"),
        ("betas", "(0.5, 1)", "each above 0, each below 1"),
        ("factors", "{'a': 1, 'b': 0}", "each above 0 and at most 1 or None"),
        ("names", "[]", "a length of at least 1"),
    ],
)
def test_out_of_range(name, value, words):
    told = f"ToyNumbers.{name} = {value}"
    assert error(f"toy_train.model = @ToyNumbers()\n\nToyNumbers.{name} = {value}\n").startswith(
        f"exp.gin:3: {told}: {words} was expected."
    )
    line = f"ToyNumbers.{name}={value}"
    assert error("toy_train.model = @ToyNumbers()", line) == f'command line: "{line}": {told}: {words} was expected.'
    macro = f"toy_train.model = @ToyNumbers()\nN = {value}\nToyNumbers.{name} = %N\n"
    assert error(macro) == f"exp.gin:3: {told}, the value of %N at exp.gin:2: {words} was expected."


def test_a_range_that_nothing_reads_is_held_to_and_a_default_is_not():
    load("toy_train.stages = []\ntoy_train.model = @ToyNumbers()\nToyNumbers.betas = (2.0, -1)\n")
    load("toy_train.stages = []\ntoy_train.model = @ToyNumbers()\nToyNumbers.share = -1\n")
    assert error("toy_train.stages = []\nToyNumbers.gap = 0").startswith("exp.gin:2: ToyNumbers.gap = 0: at least 1")


def test_a_range_stands_beside_a_mark():
    assert changes_no_result("ToyNumbers.workers") and changes_no_result("scope/ToyNumbers.workers")
    assert not changes_no_result("ToyNumbers.share")


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
