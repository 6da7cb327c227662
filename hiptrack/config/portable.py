"""A model, or the settings of a tracker, as JSON, and the safe way back from any file.

A model is a part. A part is {"part": name, "parameters": {...}}, and with "factory" in the place of "part" it is what
builds that part at each call. What JSON lacks is {"tuple": [...]}, {"dict": [...]} or {"bytes": [...]}. Settings are
plain JSON: the hint of a parameter says what a list or an object stands for.

What is read can name parts of one package and literals only, and leaves gin's state alone.
"""

import copy
import inspect
import itertools
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gin.config import Configurable, ConfigurableReference
from gin.config_parser import BindingStatement, ParserDelegate

from hiptrack.config.checks import refusal, suits
from hiptrack.config.meaning import (
    Walk,
    current_bindings,
    is_literal,
    is_required,
    leaves,
    parameters,
    registered,
    resolve,
    short_name,
)
from hiptrack.config.syntax import named, statements
from hiptrack.errors import CheckpointError, ConfigError, nearest
from hiptrack.files import excerpt

MAX_NUMBER = 2**14  # of a text that may come from anywhere; a part of that width or depth takes minutes to build
MAX_PARTS = 100
_CONTAINERS = {"tuple": tuple, "dict": dict, "bytes": bytes}


def component_text(name: str) -> str:
    """The JSON that rebuilds the configurable `name` as it is configured now in the root scope.

    Macros are replaced by their values; a parameter that is not bound is written with its default where that is a
    literal. Raises ConfigError where a part is used in a scope.
    """
    root, bindings = named(name, "component_text"), current_bindings()
    used = Walk(bindings, root).used
    for scope, selector in used:
        if scope:
            part = short_name(selector)
            raise ConfigError(f'{name} uses {part} in the scope "{scope}"; its parts must be without scopes.')

    def described(reference):
        selector, values = reference.configurable.selector, {}
        for parameter, entry in parameters(reference.configurable).items():
            if key := used["", selector].get(parameter):
                values[parameter] = resolve(bindings[key], bindings)
            elif is_literal(entry.default):  # false for a parameter without a default
                values[parameter] = entry.default
        return short_name(selector), values

    return _text(ConfigurableReference(root.selector, True), described)


@dataclass(frozen=True)
class _OldReference:
    selector: str
    evaluate: bool


class _OldDelegate(ParserDelegate):
    def configurable_reference(self, scoped_name: str, evaluate: bool) -> _OldReference:
        return _OldReference(scoped_name, evaluate)

    def macro(self, name: str) -> _OldReference:
        return _OldReference(f"%{name}", False)  # no part is called so


def from_gin(text: str, name: str) -> str:
    """The JSON of the part `name` from gin text, which weights files held before.

    The text is `Name.parameter = value` lines. Raises a HiptrackError, ValueError or RecursionError for anything else.
    """
    bound, reached = {}, set()
    for statement in statements(text, "the model description", _OldDelegate()):
        if not isinstance(statement, BindingStatement) or not statement.arg_name or statement.scope:
            line = statement.location.line_num
            raise CheckpointError(
                f"the model description:{line}: only lines like Name.parameter = value are allowed there."
            )
        bound.setdefault(statement.selector, {})[statement.arg_name] = statement.value

    def described(reference):
        reached.add(reference.selector)
        return reference.selector, bound.get(reference.selector, {})

    described_text = _text(_OldReference(name, True), described)
    for idle in bound.keys() - reached:
        raise CheckpointError(f'the model description has no part called "{idle}"{_closest(idle, reached)}')
    return described_text


def _text(root: object, described: Callable) -> str:
    """The JSON of what a reference refers to. described: such a reference -> (its name, {parameter: value})."""
    count = itertools.count(1)

    def form(value):
        if isinstance(value, list):
            return [form(item) for item in value]
        for word, kind in _CONTAINERS.items():
            if isinstance(value, kind):
                return {word: [form(item) for item in (value.items() if kind is dict else value)]}
        if not isinstance(value, (ConfigurableReference, _OldReference)):
            return value
        if next(count) > MAX_PARTS:
            raise ConfigError(f"{root.selector} has more than {MAX_PARTS} parts, or a part that holds itself.")
        name, values = described(value)
        own = {parameter: form(item) for parameter, item in sorted(values.items())}
        return {"part" if value.evaluate else "factory": name, "parameters": own}

    return json.dumps(form(root), indent=1)


def build_component(text: str, name: str, packages: Sequence[str]) -> object:
    """Builds the configurable `name` from JSON as `component_text` writes it.

    Only what is registered in these packages, or below them, exists for the text, which may come from anywhere. Raises,
    before anything is built, CheckpointError for a name or a value that cannot be, and ValueError, TypeError or
    RecursionError for a text that is no such JSON.
    """

    def read(value, _hint, where):
        if isinstance(value, list):
            return [read(item, None, where) for item in value]
        if not isinstance(value, dict):
            return value
        word = next(iter(value.keys() - {"parameters"}), None)
        if word in _CONTAINERS and len(value) == 1:
            return _CONTAINERS[word](read(item, None, where) for item in value[word])
        if word in ("part", "factory") and value.keys() == {word, "parameters"}:
            return _part(_find(str(value[word]), packages, where), value["parameters"], word == "part", read, where)
        raise CheckpointError(f'{where}: {{"part": name, "parameters": ...}} was expected, not {excerpt(repr(value))}.')

    described = json.loads(text)
    if not isinstance(described, dict) or described.get("part") != name:
        raise CheckpointError(f'{{"part": "{name}", "parameters": ...}} was expected, not {excerpt(text)}')
    return read(described, None, name)()


class _Part(ConfigurableReference):
    """A reference that holds its own values. As of gin's references, a deep copy builds what is called."""

    def __init__(self, entry: Configurable, called: bool, values: dict[str, object]):
        super().__init__(entry.selector, called)
        self.values = values

    def __call__(self, *args: object, **kwargs: object) -> object:
        target = self.configurable.wrapped
        given = inspect.signature(target).bind_partial(*args, **kwargs).arguments
        own = {name: value for name, value in self.values.items() if name not in given}
        return target(*args, **copy.deepcopy(own), **kwargs)

    def __deepcopy__(self, memo: dict) -> object:
        return self() if self.evaluate else self


def _find(name: str, packages: Sequence[str], where: str) -> Configurable:
    roots = tuple(f"{package}." for package in packages)
    inside = [entry for entry in registered() if f"{entry.wrapped.__module__}.".startswith(roots)]
    found = [entry for entry in inside if f".{entry.selector}".endswith(f".{name}")]
    if len(found) > 1:
        raise CheckpointError(f'{where}: "{name}" can mean {", ".join(entry.selector for entry in found)}.')
    if not found:
        closest = _closest(name, (entry.name for entry in inside))
        raise CheckpointError(f'{where}: {packages[0]} has nothing called "{excerpt(name)}"{closest}')
    return found[0]


def _part(entry: Configurable, values: object, called: bool, read: Callable, where: str) -> _Part:
    known = parameters(entry)
    own = _arguments(values, known, read, where)
    for name, parameter in known.items():
        if called and name not in own and is_required(parameter):
            raise CheckpointError(f'{where}: the setting "{name}" is missing.')
    return _Part(entry, called, own)


def _arguments(values: object, known: Mapping[str, inspect.Parameter], read: Callable, where: str) -> dict[str, object]:
    """The values for these parameters. read: (JSON value, hint, where) -> value, its parts not built."""
    if not isinstance(values, dict):
        raise CheckpointError(f"{where}: {{name: value}} was expected, not {excerpt(repr(values))}.")
    own = {}
    for name, value in values.items():
        if name not in known:
            raise CheckpointError(f'{where}: there is no setting "{excerpt(name)}"{_closest(name, known)}')
        own[name] = read(value, known[name].annotation, f"{where}: {name}")
        if any(isinstance(leaf, int) and abs(leaf) > MAX_NUMBER for leaf in leaves(own[name])):
            raise CheckpointError(
                f"{where}: {name} = {excerpt(repr(value))}: whole numbers up to {MAX_NUMBER} are taken."
            )
        if not suits(own[name], known[name]):
            raise CheckpointError(f"{where}: {refusal(name, excerpt(repr(value)), own[name], known[name].annotation)}.")
    return own


def _closest(name: str, options: Iterable[str]) -> str:
    close = nearest(name, options)
    return f'; the nearest valid name is "{close}".' if close else "."


def arguments_of(value: object) -> dict[str, object]:
    """The constructor's arguments of an object that keeps them as attributes, for `json.dumps(default=...)`."""
    return {name: getattr(value, name) for name in inspect.signature(type(value)).parameters}


def read_settings(values: object, parameters: Mapping[str, inspect.Parameter], where: str) -> dict[str, object]:
    """The arguments for these parameters from {name: JSON value}.

    where: how messages begin. Raises CheckpointError for a name that is no parameter, with the nearest that is one, for
    a value that does not fit its hint, and for a whole number beyond MAX_NUMBER.
    """
    return copy.deepcopy(_arguments(values, parameters, _read_setting, where))


def _read_setting(value, hint, where):
    """A JSON value as the hint asks for: lists may become tuples, {parameter: value} a part."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    for option in typing.get_args(hint) if union else (hint,):
        kind = typing.get_origin(option) or option
        if kind in (list, tuple) and isinstance(value, list):
            return kind(_read_setting(item, typing.get_args(option)[0], where) for item in value)
        for entry in registered():
            if entry.wrapped is kind and isinstance(value, dict):
                return _part(entry, value, True, _read_setting, where)
    return value
