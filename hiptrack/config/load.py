"""The configuration: gin files and overrides in, a checked and locked gin configuration and its records out.

Tools import the rooms they use, which registers the names, then call `load`. A gin file is code: its imports
run.
"""

import argparse
import itertools
from collections.abc import Sequence

import gin

from hiptrack.config.checks import checked
from hiptrack.config.meaning import current_bindings, format_value, implied_values, imports, label, order
from hiptrack.config.syntax import named, read_file, read_override
from hiptrack.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--gin FILE` (repeatable) and the positional overrides to a parser for `parse_args`."""
    parser.add_argument(
        "--gin", metavar="FILE", action="append", default=[], help="gin file; repeatable, later ones win"
    )
    parser.add_argument(
        "overrides",
        metavar="NAME=VALUE",
        nargs="*",
        help="binding that wins over the files: Stage.epochs=3, Tracker.branch=on",
    )


def parse_args(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses options and overrides in any order; `.gin` and `.overrides` are lists of strings for `load`."""
    return parser.parse_intermixed_args(argv)


def load(gin_files: Sequence[str], overrides: Sequence[str], root: str) -> None:
    """Replaces gin's configuration by the files, then the overrides; checks it whole, then locks it.

    root: name of the configurable that the tool runs; a binding that it does not reach is an error.
    The order of the lines has no influence: bindings are set in one canonical order, which is also the order
    in which gin builds arguments. After this no further configurable can be registered (gin's rule).
    Raises ConfigError naming the file and line, or the override, before anything is built.
    """
    gin.clear_config()
    bindings = [binding for name in gin_files for binding in read_file(str(name))]
    bindings += [read_override(text) for text in overrides]
    for binding in sorted(checked(bindings, named(root, "load")), key=lambda binding: order(binding.key)):
        try:
            gin.bind_parameter(binding.key, binding.value)
        except ValueError as error:
            raise ConfigError(f"{binding.where}: {error}") from error
    gin.finalize()


def config_text() -> str:
    """Everything bound, as gin text that `load` reads back to the same configuration."""
    blocks = ["\n".join(sorted(statement.format() for statement in imports()))]
    for _, bindings in itertools.groupby(current_bindings().items(), key=lambda item: item[0][1]):
        blocks.append("\n".join(f"{label(key)} = {format_value(value)}" for key, value in bindings))
    return "\n\n".join(filter(None, blocks)) + "\n"


def bound_values() -> dict[str, str]:
    """Every binding as {name: value}, as they stand in `config_text`."""
    return {label(key): format_value(value) for key, value in current_bindings().items()}


def used_values(root: str) -> dict[str, str]:
    """Every binding, and every literal default of what `root` reaches, as {name: value}."""
    return implied_values(current_bindings(), named(root, "used_values")) | bound_values()


def operative_text() -> str:
    """The values that have been used so far, defaults included, in gin's own form (literals only)."""
    return gin.operative_config_str()
