"""Extras that a configuration may name without importing them, as those that were written before gin files imported them do."""

import importlib

from hiptrack.errors import UnknownNameError

MODULES = {"World": "hiptrack.extras.world.world"}  # {name of a configurable: the module that registers it}


def with_extras(read, *arguments):
    """What `read`, which reads gin text, returns; an extra of MODULES that the text names is imported first.

    Raises what `read` raises, for a name that stands nowhere too.
    """
    try:
        return read(*arguments)
    except UnknownNameError as error:
        module = MODULES.get(error.name.rpartition(".")[2])
        if module is None:
            raise
    importlib.import_module(module)
    return with_extras(read, *arguments)
