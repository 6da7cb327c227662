"""The configuration: gin files and overrides in, a checked and locked gin configuration and its records out."""

from hiptrack.config.load import (
    add_arguments,
    bound_values,
    config_text,
    load,
    operative_text,
    parse_args,
    used_values,
)
from hiptrack.config.syntax import REPO_ROOT, packaged

__all__ = [
    "REPO_ROOT",
    "add_arguments",
    "bound_values",
    "config_text",
    "load",
    "operative_text",
    "packaged",
    "parse_args",
    "used_values",
]
