"""Ranges of parameters, which stand in their hints: `grey: Share = 0.05`, `chunk: Annotated[int, Interval(ge=0, le=11)]`.

hiptrack/config/checks.py holds a configuration to them. What a program gives to a constructor is not checked, but for a
tracker and its parts, which call `require`. Of annotated-types Gt, Ge, Lt, Le, Interval and MinLen are known.
"""

import functools
import inspect
import operator
import types
import typing
from dataclasses import astuple
from typing import Annotated

from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen

from hiptrack.errors import ConfigError

Index = Annotated[int, Ge(0)]
Count = Annotated[int, Ge(1)]
NonNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
ShareBelowOne = Annotated[float, Interval(ge=0, lt=1)]
ShareAboveZero = Annotated[float, Interval(gt=0, le=1)]

UNIONS = (typing.Union, types.UnionType)
_KINDS = {
    Gt: (operator.gt, "above"),
    Ge: (operator.ge, "at least"),
    Lt: (operator.lt, "below"),
    Le: (operator.le, "at most"),
    MinLen: (lambda value, least: len(value) >= least, "a length of at least"),
}


def plain(hint: object) -> object:
    """A hint without what Annotated adds to it or to a part of it."""
    kind, args = typing.get_origin(hint), typing.get_args(hint)
    if kind is Annotated:
        return plain(args[0])
    bare = tuple(map(plain, args))
    if bare == args:
        return hint
    return functools.reduce(operator.or_, bare) if kind in UNIONS else kind[bare]


def within(value: object, hint: object) -> bool:
    """Whether a value lies in the range of an Annotated hint."""
    return all(_KINDS[kind][0](value, bound) for kind, bound in _bounds(hint).items())


def require(part: object) -> None:
    """Raises ConfigError for an argument of an object, kept as an attribute of its name, that is out of its range."""
    for name, parameter in inspect.signature(type(part)).parameters.items():
        value, hint = getattr(part, name), parameter.annotation
        if not _holds(value, hint):
            raise ConfigError(f"{type(part).__name__}.{name} = {value!r}: {in_words(hint)} was expected.")


def _holds(value, hint):
    kind, args = typing.get_origin(hint), typing.get_args(hint)
    if kind is Annotated:
        return within(value, hint)
    if kind in UNIONS:
        return value is None or all(_holds(value, option) for option in args)
    return all(_holds(item, args[0]) for item in value) if kind is tuple else True


def in_words(hint: object) -> str:
    """The ranges in a hint: "at least 1", "a number from 0 to 1", of what a list holds "each above 0"; or nothing."""
    inner = map(in_words, typing.get_args(hint))
    if typing.get_origin(hint) is not Annotated:
        each = "" if typing.get_origin(hint) in UNIONS else "each "
        return ", ".join(dict.fromkeys(each + words for words in inner if words))
    bounds = _bounds(hint)
    words = " and ".join(f"{_KINDS[kind][1]} {bound}" for kind, bound in bounds.items())
    if bounds.keys() == {Ge, Le}:
        words = f"a number from {bounds[Ge]} to {bounds[Le]}"
    return ", ".join(filter(None, (words, *inner)))


def _bounds(hint):
    """{kind: bound} of an Annotated hint; marks of other kinds are passed over."""
    marks = []
    for mark in hint.__metadata__:
        marks += mark if isinstance(mark, Interval) else [mark]
    return {type(mark): astuple(mark)[0] for mark in marks if type(mark) in _KINDS}
