"""Reads gin files and command-line overrides into bindings that know where they were written."""

import importlib
import os
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gin
from gin.config import Configurable
from gin.config_parser import BlockDeclaration, ConfigParser, ImportStatement, IncludeStatement, ParserDelegate

from hiptrack.config.meaning import (
    MACRO,
    Key,
    imports,
    leaves,
    matching,
    nesting,
    parameters,
    registered,
    short_name,
)
from hiptrack.errors import ConfigError, UnknownNameError, nearest
from hiptrack.files import excerpt, read_text

_PACKAGE = Path(__file__).resolve().parents[1]
# Where gin/ and experiments/ lie: the repository, or where an installed package holds them.
REPO_ROOT = _PACKAGE.parent if (_PACKAGE.parent / "setup.cfg").is_file() else _PACKAGE / "configs"
MAX_FILE_BYTES = 2**20
MAX_NAME = 200
MAX_NESTING = 20
MAX_BITS = 1024  # of a whole number; a larger one is no float either

_NAME = re.compile(r"[A-Za-z_][\w./]*")


@dataclass(frozen=True)
class Binding:
    """One binding: its key, its value as gin parsed it, and `where`: file:line or the override's text.

    files: the file that holds it, after those that include it, outermost first; () on the command line.
    """

    key: Key
    value: object
    where: str
    files: tuple[Path, ...]

    @property
    def from_command_line(self) -> bool:
        return not self.files


@dataclass(frozen=True)
class _Unresolved:
    """Stands for a reference whose name is unknown or ambiguous until its statement can be reported."""

    name: str


_OWN = ("gin", "experiments")  # the folders there


def packaged(name: str) -> str:
    """The path of a gin file of this package, for tools that read it unasked: the working directory may hold another."""
    return str(REPO_ROOT / name)


# Parameters of before: the one value that changes nothing now, and what is there for the others.
RETIRED = {"ChallengeBranch.classes": (10, "Taxonomy.classes names the classes")}


class _LenientDelegate(gin.config.ParserDelegate):
    def configurable_reference(self, scoped_name: str, evaluate: bool) -> object:
        name = scoped_name.rpartition("/")[2]
        if len(matching(name)) != 1:
            return _Unresolved(name)
        return super().configurable_reference(scoped_name, evaluate)


def read_file(name: str, included_at: str = "", open_files: tuple[Path, ...] = ()) -> Iterator[Binding]:
    """The bindings of a gin file and of what it includes, in order; its imports are run.

    The name is looked for from the working directory, then from REPO_ROOT; what a file of the package includes, from there
    first. Raises ConfigError for a file that is missing, unreadable or includes itself, bad syntax, a failing import and
    unknown names and parameters.
    """
    path = _find(name, included_at, open_files)
    shown = _shown(path)
    if path in open_files:
        raise ConfigError(f"{included_at}: {shown} includes itself.")
    try:
        text = read_text(path, MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read as a text file: {error}.") from error
    files = (*open_files, path)
    for statement in statements(text, shown, _LenientDelegate()):
        where = f"{shown}:{statement.location.line_num}"
        if isinstance(statement, IncludeStatement):
            yield from read_file(statement.filename, where, files)
        elif isinstance(statement, ImportStatement):
            _run_import(statement, where)
        elif isinstance(statement, BlockDeclaration):
            named(statement.selector, where)
        elif not _changes_nothing(statement):
            yield _binding(statement, where, files)


def read_override(text: str) -> Binding:
    """The binding of one command-line override, `NAME=VALUE`; a bare string needs no quotes."""
    shown = excerpt(text)
    where = f'command line: "{shown}"'
    key, equals, value = (part.strip() for part in text.partition("="))
    if len(key) > MAX_NAME:
        raise ConfigError(f"{where}: the name has {len(key)} characters, a name has {MAX_NAME} at most.")
    if not equals or not _NAME.fullmatch(key):
        raise ConfigError(f"{where}: expected NAME=VALUE, as in Stage.epochs=3; did you mean --gin {shown}?")
    if not value:
        raise ConfigError(f"{where}: there is no value; write {key}=\"''\" for an empty string.")
    found = list(statements(f"{key} = {quoted(value)}", where, _LenientDelegate()))
    if len(found) != 1:
        raise ConfigError(f"{where}: expected one NAME=VALUE.")
    return _binding(found[0], where, files=())


def quoted(value: str) -> str:
    """A command-line value as gin text: what is no literal, reference or macro becomes a string."""
    try:
        parser = ConfigParser(value, _LenientDelegate())
        parser.parse_value()
        complete = parser.current_token.type in (tokenize.NEWLINE, tokenize.ENDMARKER)
    except (SyntaxError, tokenize.TokenError, TypeError, ValueError, RecursionError):
        complete = False
    return value if complete or value[0] in "@%[{('\"" else repr(value)


def _find(name: str, included_at: str, open_files: tuple[Path, ...]) -> Path:
    places = [Path.cwd(), REPO_ROOT]
    is_own = open_files and any(open_files[-1].is_relative_to(REPO_ROOT.resolve() / folder) for folder in _OWN)
    for folder in reversed(places) if is_own else places:
        if os.path.isfile(folder / name):
            return (folder / name).resolve()
    beside = (places[0] / name).parent
    known = {_shown(path) for path in beside.glob("*.gin")} if os.path.isdir(beside) else set()
    for folder in _OWN:
        known |= {path.relative_to(REPO_ROOT).as_posix() for path in (REPO_ROOT / folder).rglob("*.gin")}
    found = nearest(name, known)
    raise ConfigError(
        f'{included_at or "command line"}: there is no gin file "{excerpt(name)}" in {" or in ".join(map(str, places))}'
        + (f'; the nearest is "{found}".' if found else ".")
    )


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def statements(text: str, source: str, delegate: ParserDelegate) -> Iterator:
    """gin's statements; `source` is a file's name, or an override's whole location. Raises ConfigError."""

    def failure(line: int | None, problem: str) -> ConfigError:
        where = source if source.startswith("command line") else f"{source}:{line}"
        return ConfigError(f"{where}: {problem}")

    try:
        parser = ConfigParser(text, delegate)
        while (statement := parser.parse_statement()) is not None:
            yield statement
    except SyntaxError as error:
        token = re.search(r"Failed to parse token '(.*)'", error.msg, re.DOTALL)
        if token:
            value = excerpt(token.group(1), 80)
            raise failure(error.lineno, f"cannot read the value {value}; a string needs quotes.") from None
        message, line = excerpt(error.msg.rstrip(".")), excerpt((error.text or "").strip())
        raise failure(error.lineno, f"{message}, in {line}.") from None
    except tokenize.TokenError as error:
        raise failure(error.args[1][0], f"a bracket or a quote is not closed ({error.args[0]}).") from None
    except TypeError as error:  # from dict(): the parser hands on what is between the brackets
        raise failure(parser.current_token.start[0], f"{error}, as a key of a dict.") from None
    except RecursionError:
        raise failure(parser.current_token.start[0], f"nested more than {MAX_NESTING} levels deep.") from None


def _run_import(statement: ImportStatement, where: str) -> None:
    if statement.module.startswith("__gin__"):
        raise ConfigError(f"{where}: dynamic registration is not supported; import the module instead.")
    try:
        importlib.import_module(statement.module)
    except ImportError as error:
        raise ConfigError(
            f"{where}: cannot import {statement.module} ({error}); install it or set PYTHONPATH."
        ) from error
    imports().add(statement)


def named(name: str, where: str) -> Configurable:
    """The one configurable that `name` means; UnknownNameError, which begins with `where`, if there is none.

    ConfigError where it can mean several.
    """
    found = matching(name)
    if not found:
        close = nearest(name, (entry.name for entry in registered()))
        raise UnknownNameError(
            f'{where}: nothing is called "{excerpt(name)}"; the nearest valid name is "{close}".', name
        )
    if len(found) > 1:
        choices = ", ".join(sorted(short_name(entry.selector) for entry in found))
        raise ConfigError(f'{where}: "{name}" can mean {choices}; write one of these.')
    return found[0]


def _changes_nothing(statement):
    """Whether a statement binds a parameter of before to what holds now."""
    name = f"{statement.selector}.{statement.arg_name}"
    return name in RETIRED and RETIRED[name][0] == statement.value


def _binding(statement, where: str, files: tuple[Path, ...]) -> Binding:
    if statement.arg_name:
        entry = named(statement.selector, where)
        key = (statement.scope, entry.selector, statement.arg_name)
        known = parameters(entry)
        if statement.arg_name not in known:
            if (name := f"{entry.name}.{statement.arg_name}") in RETIRED:
                raise ConfigError(f"{where}: {name} is no parameter any more: {RETIRED[name][1]}.")
            close = nearest(statement.arg_name, known)
            hint = f'; the nearest is "{close}" (of {", ".join(known)})' if close else "; it has none"
            raise ConfigError(f'{where}: {entry.name} has no parameter "{statement.arg_name}"{hint}.')
    else:
        name = f"{statement.scope}/{statement.selector}" if statement.scope else statement.selector
        key = (name, MACRO, "value")
    if nesting(statement.value) > MAX_NESTING:
        raise ConfigError(f"{where}: nested more than {MAX_NESTING} levels deep.")
    for leaf in leaves(statement.value):
        if isinstance(leaf, _Unresolved):
            named(leaf.name, where)
        if isinstance(leaf, int) and leaf.bit_length() > MAX_BITS:
            raise ConfigError(f"{where}: a whole number of {leaf.bit_length()} bits; {MAX_BITS} are the most.")
    return Binding(key, statement.value, where, files)
