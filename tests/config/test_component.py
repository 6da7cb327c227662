"""A model's description as JSON: written from gin's configuration or older gin text, read back without trusting it."""

import functools
import json
import shutil
from collections.abc import Callable

import gin
import pytest

from hiptrack.config.portable import build_component, component_text, from_gin
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


@gin.register
class PartAnything(Recorded):
    def __init__(self, value=None):
        self.value = value


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

NORM = {"part": "PartNorm", "parameters": {"eps": 1e-06, "width": 4}}
PARAMETERS = {
    "block": {"factory": "PartBlock", "parameters": {"norm": NORM, "ratio": 4.0}},
    "extra": [NORM, NORM],
    "head": {"part": "PartHead", "parameters": {"bias": False, "channels": 8, "scale": float("inf")}},
    "name": "vit 'tiny'",
    "sizes": {"dict": [{"tuple": ["search", {"tuple": [96, 96]}]}, {"tuple": ["template", {"tuple": [48, 48]}]}]},
}
OLD_TEXT = """\
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


def built(parameters, name="PartTracker"):
    return build_component(json.dumps({"part": name, "parameters": parameters}), name, [HERE])


def with_head(parameters, **more):
    return {"head": {"part": "PartHead", "parameters": parameters}, **more}


def test_text_is_complete_and_literal_and_that_of_older_text():
    gin.parse_config(TRACKER + "elsewhere/PartHead.channels = 3\nPartNorm.width = 4\n")
    text = component_text("PartTracker")
    assert json.loads(text) == {"part": "PartTracker", "parameters": PARAMETERS}
    assert text == from_gin(OLD_TEXT, "PartTracker")


def test_text_of_what_is_not_bound_holds_the_defaults():
    described = json.loads(component_text("PartHead"))
    assert described == {"part": "PartHead", "parameters": {"bias": True, "scale": float("inf")}}


def test_text_of_an_unknown_or_scoped_part_is_an_error():
    with pytest.raises(ConfigError, match='nothing is called "PartTraker"; the nearest valid name is "PartTracker"'):
        component_text("PartTraker")
    gin.parse_config("PartTracker.head = @big/PartHead()")
    with pytest.raises(ConfigError, match='PartTracker uses PartHead in the scope "big"'):
        component_text("PartTracker")
    gin.clear_config()
    gin.parse_config("PartBlock.norm = @PartBlock")
    with pytest.raises(ConfigError, match="PartBlock has more than 100 parts, or a part that holds itself"):
        component_text("PartBlock")


def test_literals_come_back_as_they_were():
    line = "PartAnything.value = [None, True, 1, 1.0, -1e999, '1', b'x', (), [], {}, (1, [(2,)]), {1: ({'part': 3},)}]"
    gin.parse_config(line)
    text, expected = component_text("PartAnything"), gin.get_configurable("PartAnything")()
    assert text == from_gin(line, "PartAnything")
    assert repr(build_component(text, "PartAnything", [HERE]).value) == repr(expected.value)


def test_built_as_gin_builds_it_and_gin_is_left_alone():
    gin.parse_config(TRACKER)
    expected = gin.get_configurable("PartTracker")()
    text = component_text("PartTracker")
    gin.clear_config()
    gin.parse_config("PartHead.channels = 99\nPartNorm.width = 99\n")
    before = gin.config_str(), gin.operative_config_str()
    tracker = build_component(text, "PartTracker", [HERE])
    assert tracker == expected and type(tracker) is PartTracker
    assert tracker.head.channels == 8 and tracker.sizes["search"] == (96, 96)
    assert (gin.config_str(), gin.operative_config_str()) == before


def test_a_factory_builds_anew_at_each_call():
    blocks = built(PARAMETERS).blocks
    assert [block.index for block in blocks] == [0, 1]
    assert blocks[0].norm == blocks[1].norm and blocks[0].norm is not blocks[1].norm


def test_caller_of_a_factory_wins():
    block = {"factory": "PartBlock", "parameters": {"index": 7}}
    assert [block.index for block in built(with_head({"channels": 1}, block=block)).blocks] == [0, 1]


def test_name_without_bindings():
    assert built({}, "PartNorm") == PartNorm() == build_component(from_gin("", "PartNorm"), "PartNorm", [HERE])


@pytest.mark.parametrize(
    "parameters, message",
    [
        (with_head({"channels": "many"}), "PartTracker: head: channels expects int, not 'many' (str)."),
        (with_head({}), 'PartTracker: head: the setting "channels" is missing.'),
        (with_head([]), "head: {name: value} was expected, not []."),
        ({}, 'PartTracker: the setting "head" is missing.'),
        ({"hed": 1}, 'PartTracker: there is no setting "hed"; the nearest valid name is "head".'),
        ({"head": {"part": "big/PartHead", "parameters": {}}}, 'nothing called "big/PartHead"; the nearest'),
        ({"head": {"part": ["PartHead"], "parameters": {}}}, "nothing called \"['PartHead']\"; the nearest"),
        ({"head": {"part": "gin.macro", "parameters": {}}}, 'nothing called "gin.macro"'),
        ({"head": {"part": "PartNorm", "parameters": {}}}, "PartTracker: head expects "),
        ({"head": {"factory": "PartHead", "parameters": {}}}, "PartTracker: head expects "),
        ({"head": {"part": "PartHead"}}, 'head: {"part": name, "parameters": ...} was expected'),
        (with_head({"channels": 1}, extra=[{"part": "PartOutside", "parameters": {"path": "/"}}]), '"PartOutside"'),
    ],
)
def test_refused(parameters, message):
    with pytest.raises(CheckpointError) as raised:
        built(parameters)
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["[]", '{"part": "PartNorm", "parameters": {}}', '{"factory": "PartTracker"}'])
def test_another_description_is_refused(text):
    with pytest.raises(CheckpointError, match='{"part": "PartTracker", "parameters": ...} was expected'):
        build_component(text, "PartTracker", [HERE])


LINES = "only lines like Name.parameter = value are allowed there."


@pytest.mark.parametrize(
    "text, message",
    [
        ("import os", f"the model description:1: {LINES}"),
        ("include '/etc/passwd'", LINES),
        ("SIZE = 3", LINES),
        ("big/PartHead.channels = 3", LINES),
        ("PartTracker.head = %HEAD", 'nothing called "%HEAD"'),
        ("PartTracker.head = @big/PartHead()", 'nothing called "big/PartHead"'),
        ("PartTracker.head = @A()\nAB.a = 3", 'no part called "AB"; the nearest valid name is "A".'),
        ("PartTracker.head = @PartTracker()", "more than 100 parts, or a part that holds itself."),
        ("PartTracker.extra = [@A(), @A()]\nA.a = [@B(), @B()]\nB.b = [@A(), @A()]", "more than 100 parts"),
        ("PartTracker.sizes = " + "[" * 5000, "more than 20 levels deep"),
        ("PartTracker.name = __import__('os')", "the model description:1: "),
    ],
)
def test_older_text_is_refused(text, message):
    with pytest.raises((CheckpointError, ConfigError)) as raised:
        build_component(from_gin(text, "PartTracker"), "PartTracker", [HERE])
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_only_the_allowed_package_exists():
    text = component_text("PartNorm")
    with pytest.raises(CheckpointError, match='hiptrack.models has nothing called "PartNorm"'):
        build_component(text, "PartNorm", ["hiptrack.models"])
    with pytest.raises(CheckpointError, match="nothing called"):
        build_component(text, "PartNorm", [HERE[:-1]])


def test_nothing_is_built_before_the_whole_text_is_checked(monkeypatch):
    calls = []
    monkeypatch.setattr(PartHead, "__init__", functools.partialmethod(lambda self, channels: calls.append(1)))
    with pytest.raises(CheckpointError):
        built(with_head({"channels": 1}, name=1))
    assert calls == []
