"""Overrides and gin files as nobody would write them: each is taken for what it says or refused in one short line."""

import pytest
from toy_config import (
    TWO_STAGES,
    error,
    load,
    repository,  # noqa: F401  an autouse fixture
    toy_train,
)

from hiptrack import config
from hiptrack.config.syntax import MAX_FILE_BYTES, read_override

STAGE = "toy_train.stages = [@ToyStage()]\n"


@pytest.mark.parametrize(
    "override, words",
    [
        ("a\nb", 'command line: "a\\nb": expected NAME=VALUE'),
        ("ToyStage.lr=\x1b[2J", 'command line: "ToyStage.lr=\\x1b[2J": ToyStage.lr expects float'),
        ("x" * 9000 + "=1", "the name has 9000 characters, a name has 200 at most."),
        ("ToyStage.lr=" + "y" * 9000, "ToyStage.lr expects float, not 'yyy"),
        ("ToyStage.lr=%" + "y" * 9000, "which is not defined"),
        ("ToyStage.lr=@" + "y" * 9000, 'nothing is called "yyy'),
        ("ToyStage.lr=" + "[" * 5000, "nested more than 20 levels deep."),
        ("ToyStage.lr=" + "[" * 30 + "]" * 30, "nested more than 20 levels deep."),
        ("ToyStage.lr=0x" + "f" * 5000, "a whole number of 20000 bits; 1024 are the most."),
        ("ToyStage.lr={[]: 1}", "unhashable type: 'list', as a key of a dict."),
        ("ToyStage.lr=@macro()", 'nothing is called "macro"'),
        ("ToyStage.lr=@gin.constant()", 'nothing is called "gin.constant"'),
        ("gin.macro.value=3", 'nothing is called "gin.macro"'),
    ],
)
def test_an_override_is_refused_by_its_own_words_in_one_short_line(override, words):
    message = error(STAGE, override)
    assert message.startswith(f'command line: "{override[:10]}'.split("\n")[0])
    assert words in message
    assert message.isprintable() and len(message) < 1000


def test_a_long_run_of_spaces_takes_no_time():
    value = "x" + " " * 100_000 + "y"
    assert read_override(f"NAME = {value} ").value == value


def test_an_override_that_spoils_a_line_of_a_file_is_named():
    assert error(TWO_STAGES, "DATA_ROOT=3") == (
        'exp.gin:5: ToyData.root expects str, not 3, the value of %DATA_ROOT at command line: "DATA_ROOT=3" (int).'
    )
    assert error(TWO_STAGES, "DATA_ROOT=%DATA_ROOT") == (
        'command line: "DATA_ROOT=%DATA_ROOT": the macro %DATA_ROOT is defined by itself.'
    )
    overrides = "ToyStage.epochs=3", "ToyStage.losses=[@toy_train()]", "ToyStage.size=(1, 2)"
    assert error(TWO_STAGES, *overrides) == (
        "exp.gin:1: toy_train.stages would build itself without end. "
        'What leads to this is command line: "ToyStage.losses=[@toy_train()]".'
    )


def test_an_error_of_the_files_is_not_laid_on_an_override():
    message = error(TWO_STAGES + "ToyStage.epochs = 'five'\n", "ToyStage.lr=1")
    assert message == "exp.gin:9: ToyStage.epochs expects int, not 'five' (str)."


def test_a_deep_macro_chain_is_followed():
    chain = "".join(f"M{i} = %M{i + 1}\n" for i in range(30)) + "M30 = 7\n"
    load(STAGE + "ToyStage.epochs = %M0\n" + chain)
    assert toy_train()[0].epochs == 7


def test_a_gin_file_of_any_size_is_not_read(repository):
    assert "exp.gin: cannot be read as a text file: it has" in error("#" * MAX_FILE_BYTES + "\n")
    (repository / "more.gin").write_bytes(b"\xff\xfe")
    assert "more.gin: cannot be read as a text file: it is no UTF-8 text" in error("include 'more.gin'\n")


def test_a_file_name_beyond_all_limits_is_not_found():
    message = error(f"include '{'x' * 5000}'\n")
    assert message.startswith('exp.gin:1: there is no gin file "xxx') and len(message) < 1000


def test_a_byte_order_mark_is_harmless(repository):
    (repository / "exp.gin").write_text(STAGE, encoding="utf-8-sig")
    config.load(["exp.gin"], [], "toy_train")
    assert len(toy_train()) == 1
