"""A model's description as text: written from gin's configuration, read back without trusting it."""

import functools
import shutil
from collections.abc import Callable

import gin
import pytest

from hiptrack.config.portable import build_component, component_text
from hiptrack.errors import CheckpointError, ConfigError

HERE = __name__


class Recorded:
    """Remembers what it was built with."""

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)


@gin.register
class PartHead(Recorded):
    def __init__(self, channels: int, bias: bool = True, scale: float = float("inf")):
        self.channels, self.bias, self.scale = channels, bias, scale


@gin.register
class PartNorm(Recorded):
    def __init__(self, width: int = 4, eps: float = 1e-6):
        self.width, self.eps = width, eps


@gin.register
class PartBlock(Recorded):
    def __init__(self, index: int, norm: PartNorm | None = None, act: Callable = len, ratio: float = 4.0):
        self.index, self.norm, self.act, self.ratio = index, norm, act, ratio


@gin.register
class PartTracker(Recorded):
    def __init__(
        self,
        head: PartHead,
        block: Callable = PartBlock,
        sizes: dict[str, tuple[int, int]] | None = None,
        extra: list[PartNorm] = (),
        name: str = "vit 'tiny'",
    ):
        self.head, self.sizes, self.extra, self.name = head, sizes, extra, name
        self.blocks = [block(index=0), block(1)]


gin.external_configurable(shutil.rmtree, name="PartOutside", module=HERE)

TRACKER = """\
PartTracker.head = @PartHead()
PartTracker.block = @PartBlock
PartTracker.sizes = {'search': %SIZE, 'template': (48, 48)}
PartTracker.extra = [@PartNorm(), @PartNorm()]
PartHead.channels = %CHANNELS
PartHead.bias = False
PartBlock.norm = @PartNorm()
CHANNELS = 8
SIZE = (96, %SIDE)
SIDE = 96
"""

TEXT = """\
PartBlock.norm = @PartNorm()
PartBlock.ratio = 4.0
PartHead.bias = False
PartHead.channels = 8
PartHead.scale = 1e999
PartNorm.eps = 1e-06
PartNorm.width = 4
PartTracker.block = @PartBlock
PartTracker.extra = [@PartNorm(), @PartNorm()]
PartTracker.head = @PartHead()
PartTracker.name = "vit 'tiny'"
PartTracker.sizes = {'search': (96, 96), 'template': (48, 48)}
"""


@pytest.fixture(autouse=True)
def cleared():
    gin.clear_config()
    yield
    gin.clear_config()


def test_text_is_complete_literal_and_sorted():
    gin.parse_config(TRACKER + "elsewhere/PartHead.channels = 3\nPartNorm.width = 4\n")
    assert component_text("PartTracker") == TEXT


def test_text_of_what_is_not_bound_holds_the_defaults():
    assert component_text("PartHead") == "PartHead.bias = True\nPartHead.scale = 1e999\n"


def test_text_of_an_unknown_or_scoped_part_is_an_error():
    with pytest.raises(ConfigError, match='nothing is called "PartTraker"; the nearest valid name is "PartTracker"'):
        component_text("PartTraker")
    gin.parse_config("PartTracker.head = @big/PartHead()")
    with pytest.raises(ConfigError, match='PartTracker uses PartHead in the scope "big"'):
        component_text("PartTracker")


def test_built_as_gin_builds_it_and_gin_is_left_alone():
    gin.parse_config(TRACKER)
    expected = gin.get_configurable("PartTracker")()
    text = component_text("PartTracker")
    gin.clear_config()
    gin.parse_config("PartHead.channels = 99\nPartNorm.width = 99\n")
    before = gin.config_str(), gin.operative_config_str()
    built = build_component(text, "PartTracker", HERE)
    assert built == expected and type(built) is PartTracker
    assert built.head.channels == 8 and built.sizes["search"] == (96, 96)
    assert (gin.config_str(), gin.operative_config_str()) == before


def test_uncalled_reference_builds_anew_at_each_call():
    blocks = build_component(TEXT, "PartTracker", HERE).blocks
    assert [block.index for block in blocks] == [0, 1]
    assert blocks[0].norm == blocks[1].norm and blocks[0].norm is not blocks[1].norm
    assert [norm.width for norm in build_component(TEXT, "PartTracker", HERE).extra] == [4, 4]


def test_caller_of_an_uncalled_reference_wins():
    tracker = "PartTracker.head = @PartHead()\nPartHead.channels = 1\nPartTracker.block = @PartBlock\n"
    built = build_component(tracker + "PartBlock.index = 7\n", "PartTracker", HERE)
    assert [block.index for block in built.blocks] == [0, 1]


def test_name_without_bindings():
    assert build_component("", "PartNorm", HERE) == PartNorm()


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "import os",
            "line 1 of the model description: only lines like Name.parameter = value are allowed there.",
        ),
        ("\nfrom os import path", "line 2 of the model description: only lines"),
        ("include '/etc/passwd'", "line 1 of the model description: only lines"),
        ("SIZE = 3", "line 1 of the model description: only lines"),
        ("PartHead.channels = 999999999", "line 1 of the model description: a whole number is beyond 16384."),
        ("PartTracker.sizes = " + "[" * 5000, "the model description cannot be read"),
        ("big/PartHead.channels = 3", "line 1 of the model description: only lines"),
        ("PartHead:\n  channels = 3", "line 1 of the model description: only lines"),
        (
            "PartHead.channels = %SIZE",
            "line 1 of the model description: %SIZE is a macro; a model description has",
        ),
        (
            "PartHead.channels = [{1: %gin.REQUIRED}]",
            "line 1 of the model description: %gin.REQUIRED is a macro",
        ),
        ("PartTracker.head = @big/PartHead()", "line 1 of the model description: big/PartHead is scoped"),
        ("PartHed.channels = 3", 'has nothing called "PartHed"; the nearest valid name is "PartHead".'),
        (
            "PartTracker.head = @PartHaed()",
            'has nothing called "PartHaed"; the nearest valid name is "PartHead".',
        ),
        (
            "PartHead.chanels = 3",
            'PartHead has no parameter "chanels"; the nearest valid name is "channels".',
        ),
        ("PartHead.channels = 'many'", "PartHead.channels expects int, not 'many'."),
        ("PartHead.channels = 1\nPartTracker.extra = [@PartOutside()]", 'nothing called "PartOutside"'),
        ("PartOutside.path = '/'", 'nothing called "PartOutside"'),
        ("PartTracker.head = @gin.macro()", 'nothing called "gin.macro"'),
        ("PartHead.bias = True", "the model description has no value for PartTracker.head."),
        ("PartTracker.head = @PartHead()", "the model description has no value for PartHead.channels."),
        ("PartTracker.head = @PartTracker()", "the model description would build PartTracker without end."),
        ("PartHead.channels = ", "the model description cannot be read"),
        ("PartHead.channels = (1,", "the model description cannot be read"),
        ("PartHead.channels = {[1]: 2}", "the model description cannot be read"),
        ("PartHead.channels = __import__('os')", "the model description cannot be read"),
        ("PartHead.channels = " + "[" * 5000, "the model description cannot be read"),
        ("PartHead.channels = " + "9" * 10000, "the model description cannot be read"),
        ("\0", "the model description cannot be read"),
    ],
)
def test_refused(text, message):
    with pytest.raises(CheckpointError) as raised:
        build_component(text, "PartTracker", HERE)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_only_the_allowed_package_exists():
    with pytest.raises(CheckpointError, match='hiptrack.models has nothing called "PartHead"'):
        build_component("", "PartHead", "hiptrack.models")
    with pytest.raises(CheckpointError, match="nothing called"):
        build_component("", "PartHead", HERE[:-1])


def test_nothing_is_built_before_the_whole_text_is_checked(monkeypatch):
    built = []
    monkeypatch.setattr(PartHead, "__init__", functools.partialmethod(lambda self, channels: built.append(1)))
    with pytest.raises(CheckpointError):
        build_component("PartTracker.head = @PartHead()\nPartHead.channels = 1\nPartTrcker.a = 1", "PartTracker", HERE)
    assert built == []
