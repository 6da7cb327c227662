"""What can be configured, which gin files do it, and where a value comes from."""

import inspect
import re
from collections import defaultdict
from contextlib import suppress

from gin.config import Configurable

from hiptrack.config.checks import checked, opened_scopes
from hiptrack.config.meaning import (
    MACRO,
    Key,
    format_value,
    is_required,
    label,
    macro_keys,
    parameters,
    registered,
    short_name,
)
from hiptrack.config.syntax import REPO_ROOT, Binding, named, packaged, read_file, read_override
from hiptrack.errors import ConfigError, nearest
from hiptrack.ranges import in_words, plain

_MEANING = re.compile(r" {4}(\w+(?:, \w+)*): (.*)")
_MORE = re.compile(r" {5,}(.*)")


def catalogue(word: str = "") -> str:
    """Every configurable whose name, parameters or description hold `word`: defaults, and the gin files that set them.

    Raises ConfigError, with the nearest name, where nothing does.
    """
    files = files_that_set()
    texts = []
    for entry in sorted(registered(), key=lambda entry: (entry.wrapped.__module__, entry.name)):
        text = describe(entry, files)
        if word.lower() in text.lower():
            texts.append(text)
    if not texts:
        close = nearest(word, (entry.name for entry in registered()))
        raise ConfigError(f'nothing that can be configured mentions "{word}"; the nearest name is "{close}".')
    return "\n\n".join(texts)


def describe(entry: Configurable, files: dict[tuple[str, str], list[str]]) -> str:
    """A configurable's name, room and first sentence, then each parameter that can be bound: its meaning and files."""
    text = inspect.getdoc(entry.wrapped) or ""
    summary, meanings = text.partition("\n\n")[0].replace("\n", " "), _meanings(entry.wrapped)
    lines = [f"{short_name(entry.selector)}  ({entry.wrapped.__module__})", f"    {summary}"]
    for name, parameter in parameters(entry).items():
        if name in (entry.denylist or ()):  # the code that calls it gives these
            continue
        hint = "" if parameter.annotation is parameter.empty else f": {_hint(parameter.annotation)}"
        default = "required" if is_required(parameter) else _default(parameter.default)
        words = in_words(parameter.annotation)
        lines.append(f"    .{name}{hint} = {default}" + (f"  ({words})" if words else ""))
        if name in meanings:
            lines.append(f"        {meanings[name]}")
        lines += [f"        set in {file}" for file in files.get((entry.selector, name), ())]
    return "\n".join(lines)


def _meanings(described: object) -> dict[str, str]:
    """{parameter: what the section `Args:` of a docstring says of it, of a class or else of the next base that does}."""
    found: dict[str, str] = {}
    for base in reversed(getattr(described, "__mro__", (described,))):
        found |= _own_meanings(inspect.getdoc(base) or "")
    return found


def _own_meanings(text: str) -> dict[str, str]:
    """{parameter: its words in a docstring}; names that share an entry have the same words."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.partition("\nArgs:\n")[2].splitlines():
        if entry := _MEANING.fullmatch(line):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif more := _MORE.fullmatch(line):
            found |= {name: f"{found[name]} {more[1]}" for name in names}
        else:  # the section is over
            break
    return found


def files_that_set() -> dict[tuple[str, str], list[str]]:
    """{(selector, parameter): the gin files of this repository with a line for it, in whatever scope}."""
    found = defaultdict(list)
    for folder in ("gin", "experiments"):
        for path in sorted((REPO_ROOT / folder).rglob("*.gin")):
            shown = path.relative_to(REPO_ROOT).as_posix()
            for binding in read_file(shown):
                own = binding.where.rpartition(":")[0].endswith(shown)
                place = binding.key[1:]
                if own and shown not in found[place]:
                    found[place].append(shown)
    return dict(found)


def explain(name: str, gin_files: list[str], overrides: list[str]) -> str:
    """Which file and line, or override, gives the value of `[scope/]Name.parameter` or a macro, and what it replaced.

    Without a scope: in every scope that has a binding of its own. Raises ConfigError for a name or a scope that does
    not exist, and for files and overrides that neither a training nor an evaluation takes.
    """
    bindings = [binding for file in gin_files for binding in read_file(file)]
    bindings += [read_override(text) for text in overrides]
    if gin_files:
        _check(bindings)
    scope, _, plain = name.rpartition("/")
    selector, _, parameter = plain.rpartition(".")
    if not selector:
        return _told(name, [binding for binding in bindings if binding.key == (name, MACRO, "value")], bindings)
    entry = named(selector, f'"{name}"')
    known = parameters(entry)
    if parameter not in known:
        close = nearest(parameter, known)
        raise ConfigError(f'"{name}": {entry.name} has no parameter "{parameter}"; the nearest is "{close}".')
    opened = opened_scopes(bindings)
    if scope and scope not in opened:
        close = nearest(scope, opened)
        hint = f'; the nearest one is "{close}".' if close else "."
        raise ConfigError(f'no reference opens the scope "{scope}" of {name}{hint}')
    mine = [binding for binding in bindings if binding.key[1:] == (entry.selector, parameter)]
    scopes = [scope] if scope else sorted({"", *(binding.key[0] for binding in mine)})
    texts = [_in_scope(one, entry, parameter, mine, bindings) for one in scopes]
    return "\n".join(texts)


def _check(bindings: list[Binding]) -> None:
    """Raises the error with which hiptrack train refuses the bindings, unless hiptrack eval takes them."""
    try:
        checked(bindings, named("train", "--explain"))
    except ConfigError:
        with suppress(ConfigError):
            checked([*read_file(packaged("gin/eval/tracker.gin")), *bindings], named("evaluate", "--explain"))
            return
        raise


def _in_scope(scope: str, entry: Configurable, parameter: str, mine: list[Binding], bindings: list[Binding]) -> str:
    """The last binding of the innermost scope that has one holds; without any, the default does."""
    parts = scope.split("/") if scope else []
    shown = label((scope, entry.selector, parameter))
    for count in range(len(parts), -1, -1):
        found = [binding for binding in mine if binding.key[0] == "/".join(parts[:count])]
        if found:
            return _told(shown, found, bindings)
    default = parameters(entry)[parameter]
    if is_required(default):
        return f"{shown} is required, and nothing sets it"
    line = inspect.getsourcelines(entry.wrapped)[1]
    return f"{shown} = {_default(default.default)}, the default ({entry.wrapped.__module__}, line {line})"


def _told(shown: str, found: list[Binding], bindings: list[Binding]) -> str:
    if not found:
        macros = [binding.key[0] for binding in bindings if binding.key[1] == MACRO]
        close = nearest(shown, macros)
        raise ConfigError(f'"{shown}" is no macro of these files' + (f'; the nearest is "{close}".' if close else "."))
    *replaced, holds = found
    lines = [f"{shown} = {format_value(holds.value)}  from {holds.where}"]
    if label(holds.key) != shown:
        lines[0] += f", as {label(holds.key)}"
    in_force: dict[Key, Binding] = {binding.key: binding for binding in bindings}
    for key in macro_keys(holds.value, {key: binding.value for key, binding in in_force.items()}):
        lines.append(f"    %{label(key)} = {format_value(in_force[key].value)}  from {in_force[key].where}")
    lines += [f"    instead of {format_value(binding.value)}  from {binding.where}" for binding in reversed(replaced)]
    return "\n".join(lines)


def _default(value: object) -> str:
    return f"@{value.__name__}" if callable(value) else repr(value)


def _hint(annotation: object) -> str:
    return inspect.formatannotation(plain(annotation)).replace("hiptrack.", "").replace("collections.abc.", "")
