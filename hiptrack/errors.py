"""The errors a user is meant to read: one paragraph, naming the file and what to do; how a command begins and ends."""

import difflib
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

OPENCV = ("opencv-contrib-python", "opencv-contrib-python-headless", "opencv-python", "opencv-python-headless")
REPAIR_OPENCV = f"Run: pip uninstall -y {' '.join(OPENCV)}; pip install opencv-contrib-python"

_GIN_TRAIL = re.compile(r"\n\s*In call to configurable [^\n]*")


class HiptrackError(Exception):
    """Base of every error caused by input rather than by a defect of the program."""


class ConfigError(HiptrackError):
    """A gin file or a command-line override is wrong."""


class UnknownNameError(ConfigError):
    """A configuration names something that nothing registered; `name` holds it."""

    def __init__(self, message, name=None):
        super().__init__(message)
        self.name = name


class DataError(HiptrackError):
    """A data set, image, ground truth or annotation file is missing or malformed."""


class CheckpointError(HiptrackError):
    """A weights or checkpoint file is missing, damaged, unsafe or of another model."""


class NotFoundError(HiptrackError):
    """A path that was asked for does not exist; `path` holds it."""

    def __init__(self, message, path=None):
        super().__init__(message)
        self.path = path


class ReportedElsewhere(HiptrackError):
    """An error of another process, which reports it; this one only stops too."""


def nearest(word: str, options: Iterable[str], cutoff: float = 0.0) -> str | None:
    """The option most like `word`, upper and lower case alike; None where none is (cutoff: how alike, 0 to 1)."""
    by_lower = {option.lower(): option for option in sorted(options, reverse=True)}
    found = difflib.get_close_matches(word[:100].lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, options: Iterable[str], quote: str = "'") -> str:
    """The question, with a space before it, that ends an error; empty where no option is like `word`."""
    close = nearest(word, options, cutoff=0.6)
    return f" Did you mean {quote}{close}{quote}?" if close else ""


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Runs a tool's main and exits with its result; a HiptrackError is printed without a traceback.

    Before that it warns where several packages own the module cv2. Nothing is run in a working directory that was deleted:
    there PyTorch cannot even be imported.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        print("error: the working directory was deleted. Change into one that is there (cd).", file=sys.stderr)
        sys.exit(1)
    installed = [name for name in OPENCV if any(importlib.metadata.distributions(name=name))]
    if len(installed) > 1:
        print(f"warning: {' and '.join(installed)} overwrite each other. {REPAIR_OPENCV}", file=sys.stderr)
    try:
        code = main()
    except ReportedElsewhere:
        code = 1
    except HiptrackError as error:
        # gin appends a line for each configurable that the error passed through
        print(f"error: {_GIN_TRAIL.sub('', str(error))}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
