"""Settings as JSON values: objects are written as {parameter: value}, and read back by the hints of their constructors.

What is read may come from anywhere: it names parameters only, never classes, and numbers are bounded.
"""

import inspect
import types
import typing
from collections.abc import Mapping

from hiptrack.bounded import excerpt
from hiptrack.component import MAX_NUMBER
from hiptrack.config_checks import suits
from hiptrack.config_walk import is_required, nearest
from hiptrack.errors import CheckpointError


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

    where: how messages begin. Raises CheckpointError for a name that is no parameter, with the nearest that is one, for a value
    that does not fit its hint, and for a whole number beyond MAX_NUMBER.
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
        read[name] = _read(value, parameters[name].annotation, f"{where}: {name}")
        if not suits(read[name], parameters[name]):
            expected = inspect.formatannotation(parameters[name].annotation)
            raise CheckpointError(f"{where}: {name} expects {expected}, not {excerpt(repr(value))}.")
    return read


def _read(value, hint, where):
    """A JSON value as the hint asks for: lists may become tuples, {parameter: value} an object of ours."""
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise CheckpointError(f"{where} = {excerpt(str(value))}: whole numbers up to {MAX_NUMBER} are taken.")
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    for part in typing.get_args(hint) if union else (hint,):
        kind = typing.get_origin(part) or part
        if kind in (list, tuple) and isinstance(value, list):
            return kind(_read(item, typing.get_args(part)[0], where) for item in value)
        if isinstance(value, dict) and getattr(kind, "__module__", "").startswith("hiptrack."):
            return _build(kind, value, where)
    return value


def _build(kind, values, where):
    parameters = inspect.signature(kind, eval_str=True).parameters
    arguments = read_settings(values, parameters, where)
    for name, parameter in parameters.items():
        if is_required(parameter) and name not in arguments:
            raise CheckpointError(f'{where}: the setting "{name}" is missing.')
    return kind(**arguments)
