"""A configurable and all it refers to as self-contained text, and the safe way back from any file.

The text holds `Name.parameter = value` lines only, with literals and `@Name` or `@Name()` references. Reading
it can neither import nor include, knows only names registered in one package, and leaves gin's state alone.
"""

import functools
import inspect
import tokenize
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gin.config import Configurable
from gin.config_parser import BindingStatement, ConfigParser, ParserDelegate

from hiptrack.config.checks import suits
from hiptrack.config.meaning import (
    Walk,
    current_bindings,
    format_value,
    is_literal,
    is_required,
    leaves,
    matching,
    parameters,
    registered,
    resolve,
    short_name,
)
from hiptrack.config.syntax import named
from hiptrack.errors import CheckpointError, ConfigError, nearest
from hiptrack.files import excerpt

MAX_NUMBER = 2**14  # of a text that may come from anywhere; a part of that width or depth takes minutes to build

_Table = Mapping[str, Mapping[str, object]]  # complete selector -> parameter -> value


def component_text(name: str) -> str:
    """The bindings that rebuild the configurable `name` as it is configured now in the root scope.

    One sorted line each. Macros are replaced by their values; a parameter that is not bound is written with
    its default where that is a literal. Raises ConfigError where a part is used in a scope.
    """
    root = named(name, "component_text")
    bindings = current_bindings()
    lines = []
    for (scope, selector), bound in Walk(bindings, root).used.items():
        part = short_name(selector)
        if scope:
            raise ConfigError(f'{name} uses {part} in the scope "{scope}"; its parts must be without scopes.')
        for parameter, entry in parameters(matching(selector)[0]).items():
            if parameter in bound:
                value = resolve(bindings[bound[parameter]], bindings)
            elif is_literal(entry.default):  # false for a parameter without a default
                value = entry.default
            else:
                continue
            lines.append(f"{part}.{parameter} = {format_value(value)}")
    return "".join(f"{line}\n" for line in sorted(lines))


@dataclass(frozen=True)
class _Reference:
    name: str
    called: bool


@dataclass(frozen=True)
class _Macro:
    name: str


class _ReferenceDelegate(ParserDelegate):
    def configurable_reference(self, scoped_name: str, evaluate: bool) -> _Reference:
        return _Reference(scoped_name, evaluate)

    def macro(self, name: str) -> _Macro:
        return _Macro(name)


def build_component(text: str, name: str, allowed_module: str) -> object:
    """Builds the configurable `name` from text as `component_text` writes it.

    Only what is registered in `allowed_module` (a dotted package name) or below it exists for the text, which
    may come from anywhere. An `@Name` becomes a callable that builds Name with its bindings at each call.
    Raises CheckpointError, before anything is built, for whatever else the text holds.
    """
    known = _Names(allowed_module)
    table = _read(text, known)
    root = known.find(name, "the model description").selector
    _check_buildable(table, root)
    return _build(table, root)


def _build(table: _Table, selector: str, /, *args: object, **kwargs: object) -> object:
    """Calls the configurable with its values of the table, those the caller gives excepted."""
    target = matching(selector)[0].wrapped
    given = inspect.signature(target).bind_partial(*args, **kwargs).arguments
    bound = {name: value for name, value in table.get(selector, {}).items() if name not in given}
    return target(*args, **_made(bound, table), **kwargs)


def _made(value: object, table: _Table) -> object:
    if isinstance(value, dict):
        return {_made(key, table): _made(item, table) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_made(item, table) for item in value)
    if isinstance(value, _Reference):
        return _build(table, value.name) if value.called else functools.partial(_build, table, value.name)
    return value


class _Names:
    """The registered configurables whose code lies in one package."""

    def __init__(self, package: str):
        self.package = package
        self.entries = [entry for entry in registered() if self._inside(entry.wrapped.__module__)]

    def _inside(self, module: str) -> bool:
        return module == self.package or module.startswith(self.package + ".")

    def find(self, name: str, where: str) -> Configurable:
        if "/" in name:
            raise CheckpointError(f"{where}: {name} is scoped; a model description has no scopes.")
        found = [entry for entry in self.entries if f".{entry.selector}".endswith(f".{name}")]
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(entry.selector for entry in found)
            raise CheckpointError(f'{where}: "{name}" can mean {choices}.')
        close = nearest(name, (entry.name for entry in self.entries))
        raise CheckpointError(
            f'{where}: {self.package} has nothing called "{name}"'
            + (f'; the nearest valid name is "{close}".' if close else ".")
        )

    def parameter(self, entry: Configurable, name: str, where: str) -> inspect.Parameter:
        options = parameters(entry)
        if name not in options:
            close = nearest(name, options)
            hint = f'; the nearest valid name is "{close}".' if close else "; it has none."
            raise CheckpointError(f'{where}: {entry.name} has no parameter "{name}"{hint}')
        return options[name]


def _read(text: str, known: _Names) -> dict[str, dict[str, object]]:
    table = {}
    for statement in _statements(text):
        where = f"line {statement.location.line_num} of the model description"
        if not isinstance(statement, BindingStatement) or not statement.arg_name or statement.scope:
            raise CheckpointError(f"{where}: only lines like Name.parameter = value are allowed there.")
        entry = known.find(statement.selector, where)
        parameter = known.parameter(entry, statement.arg_name, where)
        value = _known_value(statement.value, known, where)
        if not list(_references(value)) and not suits(value, parameter):
            expected = inspect.formatannotation(parameter.annotation)
            raise CheckpointError(f"{where}: {entry.name}.{parameter.name} expects {expected}, not {value!r}.")
        table.setdefault(entry.selector, {})[parameter.name] = value
    return table


def _statements(text: str) -> list:
    try:
        parser, statements = ConfigParser(text, _ReferenceDelegate()), []
        while (statement := parser.parse_statement()) is not None:
            statements.append(statement)
        return statements
    except (SyntaxError, tokenize.TokenError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"the model description cannot be read: {reason}.") from error


def _references(value: object) -> Iterator[_Reference]:
    return (leaf for leaf in leaves(value) if isinstance(leaf, _Reference))


def _known_value(value: object, known: _Names, where: str) -> object:
    def known_value(item: object) -> object:
        return _known_value(item, known, where)

    if isinstance(value, dict):
        return {known_value(key): known_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(known_value(item) for item in value)
    if isinstance(value, _Macro):
        raise CheckpointError(f"{where}: %{value.name} is a macro; a model description has none.")
    if isinstance(value, _Reference):
        return _Reference(known.find(value.name, where).selector, value.called)
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise CheckpointError(f"{where}: a whole number is beyond {MAX_NUMBER}.")
    return value


def _check_buildable(table: _Table, root: str) -> None:
    """No called reference lacks a required parameter or leads back to itself."""
    finished = set()

    def visit(selector: str, called: bool, building: tuple[str, ...]) -> None:
        if selector in building:
            raise CheckpointError(f"the model description would build {short_name(selector)} without end.")
        bound = table.get(selector, {})
        for name, entry in parameters(matching(selector)[0]).items():
            if called and name not in bound and is_required(entry):
                missing = f"{short_name(selector)}.{name}"
                raise CheckpointError(f"the model description has no value for {missing}.")
        if selector in finished:
            return
        finished.add(selector)
        for reference in _references(dict(bound)):
            visit(reference.name, reference.called, (*building, selector) if reference.called else ())

    visit(root, True, ())


def as_json(value: object) -> object:
    """A literal, a list or dict of settings, or an object that keeps its constructor's arguments as attributes."""
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if type(value).__module__.startswith("hiptrack."):
        return {name: as_json(getattr(value, name)) for name in inspect.signature(type(value)).parameters}
    return value


def read_settings(values: object, parameters: Mapping[str, inspect.Parameter], where: str) -> dict[str, object]:
    """The arguments for these parameters from {name: JSON value}.

    where: how messages begin. Raises CheckpointError for a name that is no parameter, with the nearest that is one, for
    a value that does not fit its hint, and for a whole number beyond MAX_NUMBER.
    """
    if not isinstance(values, dict):
        raise CheckpointError(f"{where}: {{name: value}} was expected, not {excerpt(repr(values))}.")
    for name in values:
        if name not in parameters:
            raise CheckpointError(
                f'{where}: there is no setting "{excerpt(name)}"; the nearest valid name is "{nearest(name, parameters)}".'
            )
    read = {}
    for name, value in values.items():
        read[name] = _read_setting(value, parameters[name].annotation, f"{where}: {name}")
        if not suits(read[name], parameters[name]):
            expected = inspect.formatannotation(parameters[name].annotation)
            raise CheckpointError(f"{where}: {name} expects {expected}, not {excerpt(repr(value))}.")
    return read


def _read_setting(value, hint, where):
    """A JSON value as the hint asks for: lists may become tuples, {parameter: value} an object of ours."""
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise CheckpointError(f"{where} = {excerpt(str(value))}: whole numbers up to {MAX_NUMBER} are taken.")
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    for part in typing.get_args(hint) if union else (hint,):
        kind = typing.get_origin(part) or part
        if kind in (list, tuple) and isinstance(value, list):
            return kind(_read_setting(item, typing.get_args(part)[0], where) for item in value)
        if isinstance(value, dict) and getattr(kind, "__module__", "").startswith("hiptrack."):
            return _build_setting(kind, value, where)
    return value


def _build_setting(kind, values, where):
    parameters = inspect.signature(kind, eval_str=True).parameters
    arguments = read_settings(values, parameters, where)
    for name, parameter in parameters.items():
        if is_required(parameter) and name not in arguments:
            raise CheckpointError(f'{where}: the setting "{name}" is missing.')
    return kind(**arguments)
