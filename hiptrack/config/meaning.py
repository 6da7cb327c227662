"""What a gin configuration means: its names, its values, and which bindings the root of a tool reads.

All uses of gin's private state are in this file; gin-config is pinned to 0.5.0.
A binding's key is (scope, selector, parameter); the macro NAME has the key (NAME, MACRO, "value").
"""

import inspect
import math
from collections.abc import Collection, Iterator
from typing import Annotated, get_origin

import gin
from gin.config import Configurable, ConfigurableReference

Key = tuple[str, str, str]

# Marks a parameter, as in `workers: Annotated[int, CHANGES_NO_RESULT] = 2`: a resumed run may have another value.
CHANGES_NO_RESULT = "changes no result"

MACRO = "gin.macro"
CONSTANT = "gin.constant"
_BUILTINS = (MACRO, CONSTANT, "gin.singleton")


def matching(name: str) -> list[Configurable]:
    """Every registered configurable that `name` (a name, or the end of a dotted path) can mean; no macros."""
    return [entry for entry in gin.config._REGISTRY.get_all_matches(name) if entry.selector not in (MACRO, CONSTANT)]


def registered() -> list[Configurable]:
    """Every registered configurable except gin's own."""
    return [entry for selector, entry in gin.config._REGISTRY.items() if selector not in _BUILTINS]


def short_name(selector: str) -> str:
    """The shortest end of a complete selector that is unique among the registered ones."""
    return gin.config._REGISTRY.minimal_selector(selector)


def current_bindings() -> dict[Key, object]:
    """The bindings gin holds now, in the order of `order`."""
    bindings = {
        (scope, selector, parameter): value
        for (scope, selector), values in gin.config._CONFIG.items()
        for parameter, value in values.items()
    }
    return {key: bindings[key] for key in sorted(bindings, key=order)}


def imports() -> set:
    """The import statements of the gin files read so far; `gin.clear_config` empties it."""
    return gin.config._IMPORTS


def order(key: Key) -> tuple:
    """Sort key of the canonical order: macros first, then by name, scope and parameter."""
    scope, selector, parameter = key
    return selector != MACRO, short_name(selector), scope, parameter


def label(key: Key) -> str:
    """A key as it is written in a gin file: `scope/Name.parameter`, or the macro's name."""
    scope, selector, parameter = key
    if selector == MACRO:
        return scope
    return f"{scope}/{short_name(selector)}.{parameter}" if scope else f"{short_name(selector)}.{parameter}"


def parameters(configurable: Configurable) -> dict[str, inspect.Parameter]:
    """The parameters of a function or constructor that can be bound, with hints evaluated where possible."""
    try:
        signature = inspect.signature(configurable.wrapped, eval_str=True)
    except NameError:  # a hint imported under TYPE_CHECKING only: nothing to check it against
        signature = inspect.signature(configurable.wrapped)
    bindable = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: entry for name, entry in signature.parameters.items() if entry.kind in bindable}


def changes_no_result(name: str) -> bool:
    """Whether the parameter that `scope/Name.parameter` binds is marked so."""
    configurable, parameter = _bound(name.rpartition("/")[2])
    hint = parameters(configurable)[parameter].annotation if configurable else None
    return get_origin(hint) is Annotated and CHANGES_NO_RESULT in hint.__metadata__


def default_value(name: str) -> str | None:
    """The default of `Name.parameter` as gin text; None where it is no literal, and for a scoped name or a macro."""
    configurable, parameter = _bound(name)
    default = parameters(configurable)[parameter].default if configurable else inspect.Parameter.empty
    return format_value(default) if is_literal(default) else None


def _bound(name):
    """(the one configurable, the name of its parameter) of `Name.parameter`; (None, "") where there is none."""
    selector, _, parameter = name.rpartition(".")
    found = matching(selector) if selector else []
    return (found[0], parameter) if len(found) == 1 and parameter in parameters(found[0]) else (None, "")


def is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty or parameter.default is gin.REQUIRED


def leaves(value: object) -> Iterator[object]:
    """The literals and references inside nested lists, tuples and dicts."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def nesting(value: object) -> int:
    """How many lists, tuples and dicts lie in each other at the deepest place of a value; 0 for a literal."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list, tuple))]:
        level = [part for item in level for part in ((*item, *item.values()) if isinstance(item, dict) else item)]
        depth += 1
    return depth


def references(value: object) -> Iterator[ConfigurableReference]:
    """The references inside a value; `%MACRO` is one too (see `macro_name`)."""
    return (leaf for leaf in leaves(value) if isinstance(leaf, ConfigurableReference))


def macro_name(value: object) -> str | None:
    """NAME where the value is `%NAME`, else None."""
    if isinstance(value, ConfigurableReference) and value.configurable.selector == MACRO:
        return scope_of(value)
    return None


def macro_keys(value: object, bindings: dict[Key, object]) -> list[Key]:
    """The keys of all macros a value uses, those in the macros' own values too; each once."""
    found, waiting = [], [value]
    while waiting:
        for name in map(macro_name, references(waiting.pop())):
            key = (name, MACRO, "value")
            if key in bindings and key not in found:
                found.append(key)
                waiting.append(bindings[key])
    return found


def is_constant(value: object) -> bool:
    """Whether the value is a constant made by `gin.constant`, such as %gin.REQUIRED."""
    return isinstance(value, ConfigurableReference) and value.configurable.selector == CONSTANT


def scope_of(reference: ConfigurableReference) -> str:
    return "/".join(reference.scopes)


def resolve(value: object, bindings: dict[Key, object], open_macros: tuple[str, ...] = ()) -> object:
    """`value` with macros and constants replaced by what they stand for; references stay.

    Raises KeyError(name) for a macro that is not defined and RecursionError(name) for one that holds itself.
    """
    if isinstance(value, dict):
        return {
            resolve(key, bindings, open_macros): resolve(item, bindings, open_macros) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return type(value)(resolve(item, bindings, open_macros) for item in value)
    if is_constant(value):
        return gin.query_parameter(scope_of(value))
    name = macro_name(value)
    if name is None:
        return value
    if name in open_macros:
        raise RecursionError(name)
    if (name, MACRO, "value") not in bindings:
        raise KeyError(name)
    return resolve(bindings[name, MACRO, "value"], bindings, (*open_macros, name))


def is_literal(value: object) -> bool:
    """Whether gin's parser can read the value back from its text."""
    return all(
        leaf is None or type(leaf) in (bool, int, str, bytes) or (type(leaf) is float and not math.isnan(leaf))
        for leaf in leaves(value)
    )


def format_value(value: object) -> str:
    """A literal or reference as gin text that parses back to an equal value."""
    if isinstance(value, ConfigurableReference):
        if macro_name(value) is not None or is_constant(value):
            return "%" + scope_of(value)
        name = "/".join([*value.scopes, short_name(value.configurable.selector)])
        return f"@{name}()" if value.evaluate else f"@{name}"
    if isinstance(value, dict):
        items = (f"{format_value(key)}: {format_value(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(format_value, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(format_value, value)) + (",)" if len(value) == 1 else ")")
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return repr(value)


class Walk:
    """Follows the references from one configurable, built in `scope`, in the scopes in which gin would build them.

    A scoped reference replaces the active scope and an unscoped one inherits it; in scope a/b the bindings of
    the root, of a and of a/b apply, the later ones winning. An uncalled reference counts as called in its
    holder's scope. What a macro holds is built in a scope of the macro's own name (gin's rule).
    yielding: keys that hold only where no other key does, whatever their scope.

    used: (scope, selector) -> parameter -> key of the binding it reads.  read: the keys read somewhere.
    shadowed: key -> [(scope, key that wins there)].  called: (scope, selector) -> key of a binding with a
    called reference to it.  cycles: the keys with a called reference to what is being built.
    """

    def __init__(
        self, bindings: dict[Key, object], root: Configurable, scope: str = "", yielding: Collection[Key] = ()
    ):
        self.bindings = bindings
        self.yielding = yielding
        self.used: dict[tuple[str, str], dict[str, Key]] = {}
        self.read: set[Key] = set()
        self.shadowed: dict[Key, list[tuple[str, Key]]] = {}
        self.called: dict[tuple[str, str], Key] = {}
        self.cycles: list[Key] = []
        self._macros_followed: set[tuple[str, str]] = set()
        self._visit(root, scope, ())

    def _visit(self, configurable: Configurable, scope: str, building: tuple) -> None:
        node = (scope, configurable.selector)
        if node in self.used:
            return
        chosen = self.used[node] = {}
        for parameter in parameters(configurable):
            candidates = self._candidates(configurable.selector, parameter, scope)
            if not candidates:
                continue
            *losers, winner = candidates
            chosen[parameter] = winner
            self.read.add(winner)
            for loser in losers:
                self.shadowed.setdefault(loser, []).append((scope, winner))
            self._follow(self.bindings[winner], winner, scope, scope, (*building, node))

    def _candidates(self, selector: str, parameter: str, scope: str) -> list[Key]:
        parts = scope.split("/") if scope else []
        keys = (("/".join(parts[:count]), selector, parameter) for count in range(len(parts) + 1))
        return sorted((key for key in keys if key in self.bindings), key=lambda key: key not in self.yielding)

    def _follow(self, value: object, holder: Key, called_scope: str, uncalled_scope: str, building: tuple) -> None:
        for reference in references(value):
            name = macro_name(reference)
            if name is not None:
                key = (name, MACRO, "value")
                if key in self.bindings and (name, uncalled_scope) not in self._macros_followed:
                    self._macros_followed.add((name, uncalled_scope))
                    self.read.add(key)
                    self._follow(self.bindings[key], holder, name, uncalled_scope, building)
            elif not is_constant(reference):
                inherited = called_scope if reference.evaluate else uncalled_scope
                node = (scope_of(reference) or inherited, reference.configurable.selector)
                if reference.evaluate:
                    self.called.setdefault(node, holder)
                    if node in building:
                        self.cycles.append(holder)
                self._visit(reference.configurable, node[0], building if reference.evaluate else ())


def implied_values(bindings: dict[Key, object], root: Configurable) -> dict[str, str]:
    """What holds in all that `root` reaches, also under names that are not bound, as {name: gin text}.

    In a scope: the binding of the scope around it, or the default where that is a literal; this is the value of
    the name without scope too, unless that is bound.
    """
    found = {}
    for (scope, selector), chosen in Walk(bindings, root).used.items():
        for name, parameter in parameters(matching(selector)[0]).items():
            own = label((scope, selector, name))
            if name in chosen:
                found[own] = format_value(bindings[chosen[name]])
            elif is_literal(parameter.default):  # false for a parameter without a default
                found[own] = found[label(("", selector, name))] = format_value(parameter.default)
    return found
