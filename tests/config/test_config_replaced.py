"""Lines that a later include, file, line or override leaves without a reader."""

import re

import pytest
from toy_config import repository, toy_train  # noqa: F401  the first is an autouse fixture

from hiptrack import config
from hiptrack.errors import ConfigError
from hiptrack.screen import shown_in_logs

BASE = """\
toy_train.stages = [@warmup/ToyStage(), @finetune/ToyStage()]
ToyStage.epochs = 5
ToyStage.losses = [@ToyIoU()]
ToyIoU.weight = %WEIGHT
WEIGHT = 2.0
finetune/ToyStage.lr = %RATE
RATE = 1e-2
"""
STAGES = "toy_train.stages = [@ToyStage()]\n"
LOSSES = "ToyStage.losses = [@ToyIoU()]\n"
NONE = "ToyStage.losses = []\n"


def load_files(files, *overrides, **texts):
    """Writes `<name>.gin` of each text, and loads the files of these names, one after the other."""
    for name, text in texts.items():
        with open(f"{name}.gin", "w") as file:
            file.write(text)
    config.load([f"{name}.gin" for name in files.split()], overrides, "toy_train")


def files_error(files, *overrides, **texts):
    with pytest.raises(ConfigError) as raised:
        load_files(files, *overrides, **texts)
    return str(raised.value)


@pytest.mark.parametrize(
    "files, overrides, texts",
    [
        ("exp", (), {"exp": "include 'base.gin'\ninclude 'none.gin'\n"}),
        ("exp", (), {"exp": f"include 'base.gin'\n{NONE}"}),
        ("base none", (), {}),
        ("exp none", (), {"exp": "include 'base.gin'\n"}),
        ("base", ("ToyStage.losses=[]",), {}),
        ("exp", ("ToyStage.losses=[]",), {"exp": "include 'base.gin'\nToyStage.epochs = 4\n"}),
        ("outer", (), {"outer": "include 'exp.gin'\ninclude 'none.gin'\n", "exp": "include 'base.gin'\n"}),
    ],
    ids=["include", "line", "file", "file of include", "override", "override of include", "nested include"],
)
def test_a_line_may_lose_its_reader_to_what_comes_later(files, overrides, texts, caplog):
    with caplog.at_level("INFO", "hiptrack"), shown_in_logs():  # as in a command
        load_files(files, *overrides, base=BASE, none=NONE, **texts)
    assert all(stage.losses == [] for stage in toy_train())
    assert "ToyIoU" not in config.config_text() and "WEIGHT" not in config.config_text()
    (told,) = caplog.messages
    assert told.splitlines()[1:] == ["  macros: WEIGHT (base.gin:5)", "  ToyIoU: weight (base.gin:4)"]


def test_what_lost_its_reader_is_told_by_component_in_a_fixed_order(caplog):
    stages = "toy_train.stages = [@warmup/ToyStage(), @finetune/ToyStage()]\n"
    lines = ["finetune/ToyStage.lr = 1e-2", "finetune/ToyStage.epochs = 3", "warmup/ToyStage.lr = 1e-3"]
    told = set()
    for number, order in enumerate((lines, lines[::-1])):
        text = stages + "".join(f"{line}\n" for line in order)
        with caplog.at_level("INFO", "hiptrack"):
            load_files("base none", base=text, none="toy_train.stages = []\n")
        told.add(re.sub(r"base.gin:\d", "base.gin", caplog.messages[number]))
    ((_, *components),) = [message.splitlines() for message in told]
    assert components == ["  finetune/ToyStage: epochs (base.gin), lr (base.gin)", "  warmup/ToyStage: lr (base.gin)"]


def test_a_later_line_may_leave_out_or_shadow_a_whole_scope():
    load_files("exp", base=BASE, exp="include 'base.gin'\ntoy_train.stages = [@warmup/ToyStage()]\n")
    assert [stage.lr for stage in toy_train()] == [1e-3] and "finetune" not in config.config_text()
    load_files("exp", base=BASE, exp="include 'base.gin'\nwarmup/ToyStage.epochs = 7\nfinetune/ToyStage.epochs = 8\n")
    assert [stage.epochs for stage in toy_train()] == [7, 8]
    whole = "include 'base.gin'\nwarmup/ToyStage.losses = []\nfinetune/ToyStage.losses = []\n"
    load_files("exp", base=BASE, exp=whole)
    assert "ToyIoU" not in config.config_text()


def test_files_need_not_be_complete_to_be_replaced():
    """The axes first, one of them twice, and the stages that read them last."""
    text = f"include 'losses.gin'\ninclude 'none.gin'\n{STAGES}"
    load_files("exp", exp=text, losses=LOSSES + "ToyIoU.weight = 2\n", none=NONE)
    assert toy_train()[0].losses == []


def test_a_line_may_be_read_between_two_files_only():
    """Neither its own file nor all files together read it, but those in between do."""
    texts = {"stages": STAGES, "weight": "ToyIoU.weight = 2\n", "losses": LOSSES, "none": NONE}
    load_files("stages weight losses none", **texts)
    includes = "include 'weight.gin'\ninclude 'losses.gin'\ninclude 'none.gin'\n"
    load_files("exp", exp=STAGES + includes, **texts)
    assert files_error("stages weight none", **texts).startswith("weight.gin:1: ToyIoU.weight has no effect")


def test_the_last_of_several_values_must_have_a_reader_of_its_own():
    """It comes after what took the reader away."""
    last = "ToyIoU.weight = 3\n"
    found = files_error("exp", base=BASE, exp=f"include 'base.gin'\n{NONE}{last}")
    assert found.startswith("exp.gin:3: ToyIoU.weight has no effect")
    found = files_error("base none last", base=BASE, none=NONE, last=last)
    assert found.startswith("last.gin:1: ToyIoU.weight has no effect")


@pytest.mark.parametrize(
    "line, message",
    [
        ("ToyData.root = 'x'", "ToyData.root has no effect: toy_train reaches no ToyData; refer to it"),
        (
            "warmpu/ToyStage.lr = 1",
            'no reference opens the scope "warmpu" of warmpu/ToyStage.lr; the nearest one is "warmup"',
        ),
        ("RAET = 3.0", "nothing uses the macro RAET; the nearest used one is RATE."),
        ("ToyStage.epoch = 3", 'ToyStage has no parameter "epoch"; the nearest is "epochs"'),
        ("ToyIou.weight = 3", 'nothing is called "ToyIou"; the nearest valid name is "ToyIoU".'),
    ],
)
def test_a_line_that_nothing_ever_read_is_an_error_whatever_comes_later(line, message):
    texts = {"base": f"{BASE}{line}\n", "none": NONE, "exp": "include 'base.gin'\ninclude 'none.gin'\n"}
    for files, overrides in [("exp", ()), ("base none", ()), ("base", ("ToyStage.losses=[]",))]:
        assert files_error(files, *overrides, **texts).startswith(f"base.gin:8: {message}")


def test_a_file_must_be_right_by_itself():
    """What its own later line or include leaves without a reader is its mistake; so is what it sets in vain."""
    text, own = STAGES + LOSSES + "ToyIoU.weight = 2\n", "exp.gin:3: ToyIoU.weight has no effect"
    assert files_error("exp", exp=text + NONE).startswith(own)
    assert files_error("exp", exp=text + "include 'none.gin'\n", none=NONE).startswith(own)
    scoped = "include 'base.gin'\nwarmup/ToyStage.epochs = 7\nfinetune/ToyStage.epochs = 8\n"
    text = scoped + "include 'vain.gin'\nToyStage.lr = 1\n"
    assert files_error("exp", base=BASE, exp=text, vain="ToyStage.epochs = 6\n").startswith(
        "vain.gin:1: ToyStage.epochs has no effect"
    )
