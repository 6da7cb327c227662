"""The checks gin lacks: macros, types and ranges of values, bindings that nothing reads. Each raises ConfigError."""

import inspect
import logging
import types
import typing
from collections import abc

import gin
from gin.config import Configurable, ConfigurableReference

from hiptrack.config.meaning import (
    MACRO,
    Key,
    Walk,
    format_value,
    is_constant,
    is_required,
    label,
    macro_keys,
    macro_name,
    matching,
    order,
    parameters,
    references,
    resolve,
    scope_of,
    short_name,
)
from hiptrack.config.syntax import Binding
from hiptrack.errors import ConfigError, nearest
from hiptrack.files import excerpt
from hiptrack.ranges import UNIONS, in_words, plain, within

_log = logging.getLogger(__name__)

_SEQUENCES = {list: list, tuple: tuple} | dict.fromkeys((abc.Sequence, abc.Collection, abc.Iterable), (list, tuple))
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)


def checked(bindings: list[Binding], root: Configurable) -> list[Binding]:
    """The bindings that are in force when `root` runs; raises ConfigError at the first that is wrong.

    Of several bindings of one key the last is in force. A binding that only what comes after its file leaves
    without a reader is no mistake of anybody: it is left out, and logged. An error of files that are right by
    themselves names the override that leads to it.
    """
    try:
        in_force, replaced = _checked(bindings, root)
    except ConfigError as error:
        culprit = _culprit(str(error), bindings, root)
        if culprit is None:
            raise
        raise ConfigError(f"{error} What leads to this is {culprit.where}.") from error
    if replaced:
        lines = _by_component(replaced)  # each filled in by itself: a log shows what is filled in as one line
        _log.info("Not used, because what comes later replaces their readers:" + "\n  %s" * len(lines), *lines)
    return in_force


def _by_component(bindings: list[Binding]) -> list[str]:
    """A line for each component, and one for the macros, in the canonical order: `Name: parameter (file:line), ...`."""
    lines = {}
    for binding in sorted(bindings, key=lambda binding: order(binding.key)):
        scope, selector, parameter = binding.key
        component, name = label(binding.key).removesuffix(f".{parameter}"), parameter
        if selector == MACRO:
            component, name = "macros", scope
        lines.setdefault(component, []).append(f"{name} ({binding.where})")
    return [f"{component}: {', '.join(names)}" for component, names in lines.items()]


def _culprit(error: str, bindings: list[Binding], root: Configurable) -> Binding | None:
    """The override with which this error appears; None where it names one, or where the files alone have it."""
    files = [binding for binding in bindings if not binding.from_command_line]
    overrides = [binding for binding in bindings if binding.from_command_line]
    if any(override.where in error for override in overrides):
        return None
    for count in range(len(overrides)):
        try:
            _checked(files + overrides[:count], root)
        except ConfigError as found:
            if str(found) == error:
                return overrides[count - 1] if count else None
    return overrides[-1] if overrides else None


def _checked(bindings: list[Binding], root: Configurable) -> tuple[list[Binding], list[Binding]]:
    """The bindings that are in force, and those that would be, had what comes after their file replaced nothing."""
    in_force = {binding.key: binding for binding in bindings}
    walk = Walk({key: binding.value for key, binding in in_force.items()}, root)
    unread = in_force.keys() - walk.read
    excused = _read_before(unread, bindings, root)
    replaced = [in_force.pop(key) for key in list(in_force) if key in excused]

    _check_macros(in_force)
    _check_values(in_force)
    _check_overrides_reach_every_scope(walk, in_force)
    for key, binding in in_force.items():
        if key in unread:
            raise ConfigError(f"{binding.where}: {_why_unread(key, walk, bindings, root)}")
    _check_can_be_built(walk, in_force)
    return list(in_force.values()), replaced


def _read_before(unread: set[Key], bindings: list[Binding], root: Configurable) -> set[Key]:
    """The unread keys that something reads as long as what comes after the end of their file replaces nothing.

    At each change of file, from the last to the first: what comes later holds only where nothing before it does,
    so that a file need not be complete (its includer may list the stages). A key counts from the end of the file
    that binds it last, for a file must be right by itself.
    """
    in_force = {binding.key: binding for binding in bindings}
    found = set()
    for start in range(len(bindings) - 1, 0, -1):
        files = bindings[start].files
        if files == bindings[start - 1].files:
            continue
        before = {binding.key: binding for binding in bindings[:start]}
        ended = {
            key
            for key in unread - found
            if before.get(key) is in_force[key] and files[: len(before[key].files)] != before[key].files
        }
        if ended:
            values = {key: binding.value for key, binding in (in_force | before).items()}
            found |= ended & Walk(values, root, yielding=in_force.keys() - before.keys()).read
    return found


def _check_macros(bindings: dict[Key, Binding]) -> None:
    """Every `%NAME` is defined, none holds itself, and nothing is left %gin.REQUIRED."""
    values = {key: binding.value for key, binding in bindings.items()}
    macros = [scope for scope, selector, _ in bindings if selector == MACRO]
    for key, binding in bindings.items():
        name = label(key)
        for missing in map(macro_name, references(binding.value)):
            if missing is not None and (missing, MACRO, "value") not in values:
                close = nearest(missing, macros)
                missing = excerpt(missing)
                raise ConfigError(
                    f"{binding.where}: {name} uses the macro %{missing}, which is not defined; "
                    + (f"the nearest one is {close}; " if close else "")
                    + f"define it, or set it on the command line: {missing}=VALUE."
                )
        for reference in references(binding.value):
            if is_constant(reference) and gin.query_parameter(scope_of(reference)) is gin.REQUIRED:
                raise ConfigError(f"{binding.where}: {name} must be set; on the command line: {name}=VALUE.")
        if key in macro_keys(binding.value, values):
            raise ConfigError(f"{binding.where}: the macro %{name} is defined by itself.")


def _check_values(bindings: dict[Key, Binding]) -> None:
    values = {key: binding.value for key, binding in bindings.items()}
    for (scope, selector, parameter), binding in bindings.items():
        if selector == MACRO:
            continue
        entry = parameters(matching(selector)[0])[parameter]
        value = resolve(binding.value, values)
        if suits(value, entry):
            continue
        got, written = excerpt(format_value(value)), excerpt(format_value(binding.value))
        if got != written:
            places = ", ".join(bindings[macro].where for macro in macro_keys(binding.value, values))
            got += f", the value of {written} at {places}"
        name = label((scope, selector, parameter))
        raise ConfigError(f"{binding.where}: {refusal(name, got, value, entry.annotation)}.")


def refusal(name: str, shown: str, value: object, hint: object) -> str:
    """What is wrong with a value of a parameter, written as `shown`: it lies out of range, or has another type."""
    if fits(value, plain(hint)):
        return f"{name} = {shown}: {in_words(hint)}{' or None' if fits(None, hint) else ''} was expected"
    return f"{name} expects {inspect.formatannotation(plain(hint))}, not {shown}{_type_hint(value, hint)}"


def _type_hint(value: object, hint: object) -> str:
    if not isinstance(value, ConfigurableReference):
        return f" ({type(value).__name__})"
    other = ConfigurableReference(value.scoped_selector, not value.evaluate)
    return f"; write {format_value(other)}" if fits(other, hint) else ""


def suits(value: object, parameter: inspect.Parameter) -> bool:
    """Whether a value fits a parameter's hint or is its default (None for a hint that does not say so)."""
    default = parameter.default
    return fits(value, parameter.annotation) or (type(value) is type(default) and value == default)


def fits(value: object, hint: object) -> bool:
    """Whether a literal or reference (macros resolved) fits a type hint and its ranges; an unknown hint fits all."""
    if hint in (typing.Any, inspect.Parameter.empty, object) or isinstance(hint, (str, typing.TypeVar)):
        return True
    kind, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is typing.Annotated:
        return fits(value, args[0]) and (isinstance(value, ConfigurableReference) or within(value, hint))
    if kind in UNIONS:
        return any(fits(value, arg) for arg in args)
    if kind is typing.Literal:
        return any(type(value) is type(arg) and value == arg for arg in args)
    if isinstance(value, ConfigurableReference):
        return _reference_fits(value, kind)
    if kind is None or kind is types.NoneType:
        return value is None
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if kind is tuple and args and args[-1] is not Ellipsis:
        return isinstance(value, tuple) and len(value) == len(args) and all(map(fits, value, args))
    if kind in _SEQUENCES:
        return isinstance(value, _SEQUENCES[kind]) and (not args or all(fits(item, args[0]) for item in value))
    if kind in _MAPPINGS:
        return isinstance(value, dict) and (
            not args or all(fits(key, args[0]) and fits(item, args[1]) for key, item in value.items())
        )
    return not isinstance(kind, type) or (not _is_protocol(kind) and isinstance(value, kind))


def _reference_fits(reference: ConfigurableReference, kind: object) -> bool:
    target = reference.configurable.wrapped
    if not isinstance(kind, type) and kind is not abc.Callable:
        return True
    if reference.evaluate and not inspect.isclass(target):
        return True  # what a function returns is not known
    if kind is abc.Callable:
        return not reference.evaluate or any("__call__" in vars(base) for base in target.__mro__)
    if kind is type:
        return not reference.evaluate and inspect.isclass(target)
    return reference.evaluate and (_is_protocol(kind) or issubclass(target, kind))


def _is_protocol(kind: type) -> bool:
    return getattr(kind, "_is_protocol", False)


def _why_unread(key: Key, walk: Walk, bindings: list[Binding], root: Configurable) -> str:
    scope, selector, parameter = key
    name, thing = label(key), short_name(selector)
    if selector == MACRO:
        used = [macro for macro, kind, _ in walk.read if kind == MACRO]
        close, takers = nearest(name, used), _takers(name.lower(), walk)
        hint = f"the nearest used one is {close}" if close else "a parameter is written Name.parameter"
        if takers and not nearest(name, used, cutoff=0.8):
            hint = f"let it reach what is in use: {' or '.join(f'{taker} = %{name}' for taker in takers)}"
        return f"nothing uses the macro {name}; {hint}."
    opened = opened_scopes(bindings)
    if scope and scope not in opened:
        close = nearest(scope, opened)
        hint = f'the nearest one is "{close}"' if close else f"write @{scope}/{thing} where {thing} is used"
        return f'no reference opens the scope "{scope}" of {name}; {hint}.'
    if key in walk.shadowed:
        where = {binding.key: binding.where for binding in bindings}
        winners = ", ".join(f"{label(winner)} ({where[winner]})" for _, winner in walk.shadowed[key])
        return f"{name} has no effect: each use of {thing} has a value of its own: {winners}; remove it."
    used_in = sorted(used for used, kind in walk.used if kind == selector)
    if used_in:
        places = ", ".join(f'"{used}"' if used else "the root scope" for used in used_in)
        return f'{name} has no effect: {thing} is used in {places}, not in "{scope}".'
    close = nearest(thing, {short_name(kind) for _, kind in walk.used})
    hint = f'the nearest name in use is "{close}"'
    if takers := _takers(parameter, walk):
        hint = f"in use are {' and '.join(takers)}"
    return f"{name} has no effect: {root.name} reaches no {thing}; refer to it, or remove the line; {hint}."


def _takers(parameter: str, walk: Walk) -> list[str]:
    """The parameters of this name of what is in use, as Name.parameter."""
    used = sorted({short_name(kind) for _, kind in walk.used if parameter in parameters(matching(kind)[0])})
    return [f"{name}.{parameter}" for name in used]


def opened_scopes(bindings: list[Binding]) -> set[str]:
    """The scopes of all references, and those around them: a/b opens a and a/b."""
    opened = set()
    for reference in (reference for binding in bindings for reference in references(binding.value)):
        if macro_name(reference) is None and not is_constant(reference):
            opened |= {"/".join(reference.scopes[:count]) for count in range(1, len(reference.scopes) + 1)}
    return opened


def _check_overrides_reach_every_scope(walk: Walk, bindings: dict[Key, Binding]) -> None:
    """What the command line sets holds everywhere, save where the command line itself says otherwise."""
    for key, winners in walk.shadowed.items():
        if key not in bindings or not bindings[key].from_command_line:
            continue
        hidden = [winner for _, winner in winners if not bindings[winner].from_command_line]
        if hidden:
            others = ", ".join(f"{label(winner)} ({bindings[winner].where})" for winner in hidden)
            value = excerpt(format_value(bindings[key].value))
            instead = " ".join(f"{label(winner)}={value}" for winner in hidden)
            raise ConfigError(f"{bindings[key].where}: has no effect on {others}; write {instead}")


def _check_can_be_built(walk: Walk, bindings: dict[Key, Binding]) -> None:
    """No called reference holds itself or lacks a required parameter."""
    for key in walk.cycles:
        raise ConfigError(f"{bindings[key].where}: {label(key)} would build itself without end.")
    for (scope, selector), holder in walk.called.items():
        for name, entry in parameters(matching(selector)[0]).items():
            if name not in walk.used[scope, selector] and is_required(entry):
                raise ConfigError(
                    f"{bindings[holder].where}: {label(holder)} builds {short_name(selector)}, whose "
                    f'parameter "{name}" has no value; bind {label((scope, selector, name))}.'
                )
