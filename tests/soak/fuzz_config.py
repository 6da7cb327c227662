"""Command-line overrides: whatever is typed is taken for what it says, or refused by its own words."""

import ast
import math
import string

import gin
from hypothesis import strategies as st
from soak.fuzz_core import Folder, Tally, check_words, damaged, damages, made, run

import hiptrack.training.train  # noqa: F401  registers what the experiment names
from hiptrack import config
from hiptrack.config import meaning, syntax
from hiptrack.errors import ConfigError

EXPERIMENT = str(config.REPO_ROOT / "tests" / "support" / "toy.gin")
NAMES = [
    "Stage.epochs", "Stage.lr", "Stage.batch", "tracker/Stage.epochs", "branch/Stage.trainable", "Stage.schedule", "train.stages",
    "CosineSchedule.final", "tracker/CosineSchedule.warmup_epochs", "ANNOTATIONS", "DATA_ROOT", "HIPTrack.backbone", "Backbone.depth",
    "Backbone.name", "CenterHead.widths", "ClipSampler.max_gap", "FolderDataset.root", "FolderDataset.include", "Stage", "stage.epochs",
    "Stage.epoch", "Stgae.epochs", "a/b/Stage.lr", "gin.macro", "macro.value", "import", "include", "None", "x" * 9000,
]  # fmt: skip
VALUES = [
    "3", "0.5", "-1", "True", "None", "1e999", "-1e-400", "nan", "'text'", "text", "a/b.gin", "[]", "()", "{}", "[1, 2]", "(8, 16)",
    "['all']", "{'a': 1}", "@CosineSchedule()", "@CosineSchedule", "@tracker/Stage()", "@Stage", "@train()", "[@tracker/Stage()]",
    "[@Stage(), @Stage()]", "@Nothing()", "@gin.macro", "@macro()", "@x/macro()", "@gin.constant()", "@gin.singleton()",
    "@x/gin.singleton()", "%ANNOTATIONS", "%DATA_ROOT", "%NOTHING", "%gin.REQUIRED", "%a/b", "%", "@", "@()", "%(", "1j", "b'bytes'",
    "f'{1}'", "...", "0x" + "f" * 9000, "9" * 5000, "1_000", "--1", "'", '"""', "\\", "\\\n", "#", "3 # three", "1\nStage.lr=2", "x:\n y=1",
    "a=b", "==", "é", "\u202e", "\ud800", "\x00", "\x1b[2J", "\t", "[" * 60 + "]" * 60, "[" * 5000, "(" * 90 + "1" + ")" * 90, "{1:" * 90,
    "-" * 5000, "x" * 60000, "'" + "y" * 60000 + "'", "x" + " " * 30000 + "x", "{[]: 1}", "{@Stage: 1}", "[%DATA_ROOT] ", "lambda: 0",
]  # fmt: skip

literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
words = st.text(string.ascii_letters + string.digits + "_-./~", min_size=1, max_size=12)
names = st.sampled_from(NAMES)
fitting = st.sampled_from(
    ("Stage.batch", "Stage.epochs", "CosineSchedule.final", "Stage.lr", "DATA_ROOT", "FolderDataset.root")
)
PIECES = [*"=%@/.,:()[]{}'\"#\\- \n\t", *VALUES[:40], *NAMES[:12]]
fragments = made(lambda rng: rng.choices(PIECES, k=rng.randint(1, 8))) | st.lists(
    st.sampled_from(PIECES) | st.characters(), max_size=8
)
overrides = st.one_of(
    st.builds("{}={}".format, fitting, st.integers(1, 99) | st.floats(0, 1) | words | literals.map(repr)),
    st.builds("{}={}".format, names, st.sampled_from(VALUES) | literals.map(repr) | words),
    st.builds("{}={}".format, names, fragments.map("".join)),
    st.builds(lambda name, value, changes: (f"{name}={value}", changes), names, st.sampled_from(VALUES), damages(3)),
    fragments.map("".join),
)
alone = st.tuples(
    st.just("VALUE"), literals.map(lambda value: (repr(value), value)) | words.map(lambda word: (word, _meant(word)))
)


def fuzz_overrides(count: int, seed: int) -> Tally:
    """Each case: one override by itself; a literal or a bare word must come out as it was meant."""
    return run("overrides read", overrides | alone, _check_read, count, seed)


def fuzz_configurations(count: int, seed: int) -> Tally:
    """Each case: an experiment's configuration with one override; what loads must say so in a record that loads the same."""
    try:
        with Folder() as folder:
            return run("overrides of a configuration", overrides, lambda case: _check_load(folder, case), count, seed)
    finally:
        gin.clear_config()


def _check_read(case):
    meant = None
    if isinstance(case, tuple) and isinstance(case[1], tuple):
        name, (value, meant) = case
        case = f"{name}={value}"
    text = _text(case)
    try:
        binding = syntax.read_override(text)
    except ConfigError as error:
        assert meant is None, f"{text!r} is refused: {error}"
        _check_error(error, text)
        return False
    assert binding.from_command_line
    if meant is not None:
        assert binding.key == ("VALUE", meaning.MACRO, "value")
        assert _same(binding.value, meant), f"{text!r} became {binding.value!r}"
    return True


def _check_load(folder, case):
    text = _text(case)
    try:
        config.load([EXPERIMENT], [text], "train")
    except ConfigError as error:
        _check_error(error, text)
        return False
    binding = syntax.read_override(text)
    assert _same(meaning.current_bindings()[binding.key], binding.value), "it is not what is bound"
    record = config.config_text()
    path = folder.write("record.gin", record.encode())
    config.load([str(path)], [], "train")
    assert config.config_text() == record, "the record loads to something else"
    folder.check()
    return True


def _text(case):
    """An override from itself, or from (override, damages)."""
    if isinstance(case, str):
        return case
    text, changes = case
    return damaged(text.encode("utf-8", "surrogatepass"), changes).decode("utf-8", "surrogateescape")


def _check_error(error, text):
    shown = next((text[:end] for end, letter in enumerate(text[:100]) if not letter.isprintable()), text[:100])
    check_words(error, f'command line: "{shown}')


def _meant(word):
    """What a bare word on the command line means: a literal of gin's, else itself."""
    try:
        value = ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
    return value if isinstance(value, (bool, int, float, complex, type(None))) else word


def _same(value, meant):
    if isinstance(value, (list, tuple)) and type(value) is type(meant):
        return len(value) == len(meant) and all(map(_same, value, meant))
    if isinstance(value, dict) and isinstance(meant, dict):
        return _same(list(value.items()), list(meant.items()))
    return (
        type(value) is type(meant)
        and value == meant
        and (not isinstance(value, float) or math.copysign(1, value) == math.copysign(1, meant))
    )
