"""The errors a user is meant to read: one paragraph, naming the file and what to do; how a command begins and ends."""

import difflib
import errno
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from hiptrack.screen import LEFT, open_streams, shown, shown_in_logs

OPENCV = ("opencv-contrib-python", "opencv-contrib-python-headless", "opencv-python", "opencv-python-headless")
REPAIR_OPENCV = f"Run: pip uninstall -y {' '.join(OPENCV)}; pip install opencv-contrib-python"

_GIN_TRAIL = re.compile(r"\n\s*In call to configurable [^\n]*")


class HiptrackError(Exception):
    """Base of every error caused by input rather than by a defect of the program.

    HiptrackError(message, *lines): a paragraph, and lines that are listed below it. As names of others stand in them, each is
    one line when it is shown, whatever it holds (`screen.shown`).
    """

    def __str__(self):
        # gin appends a line for each configurable that an error passed through, which may be part of this one's message
        return "\n  ".join(shown(_GIN_TRAIL.sub("", str(text))) for text in self.args)


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


def message_of(error: BaseException) -> str:
    """What an error says, without the lines that gin appended to it on its way."""
    return _GIN_TRAIL.sub("", str(error))


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
    """Runs a tool's main and exits with its result; a HiptrackError and a fault of the surroundings are told in a paragraph.

    What is printed may get lost without harm to the work (`screen.open_streams`); in the end that is told too, unless the
    reader has left. Before all that it warns where several packages own the module cv2. Nothing is run in a working directory
    that was deleted: there PyTorch cannot even be imported.
    """
    printed = open_streams()
    try:
        os.getcwd()
    except FileNotFoundError:
        print("error: the working directory was deleted. Change into one that is there (cd).", file=sys.stderr)
        sys.exit(1)
    installed = [name for name in OPENCV if any(importlib.metadata.distributions(name=name))]
    if len(installed) > 1:
        print(f"warning: {' and '.join(installed)} overwrite each other. {REPAIR_OPENCV}", file=sys.stderr)
    try:
        with shown_in_logs():
            code = main()
    except ReportedElsewhere:
        code = 1
    except HiptrackError as error:
        code = _fail(message_of(error))
    except KeyboardInterrupt:
        code = 130
    except SystemExit as stopped:  # of --help, say, which is printed, too
        code = stopped.code
    except Exception as error:
        told = surroundings_fault(error)
        if told is None:
            raise
        code = _fail(told)
    sys.stdout.flush()
    lost = printed and printed.fault
    if lost and lost.errno not in LEFT and not code:
        code = _fail(f"What was printed could not be written ({lost.strerror}). All else was done.")
    sys.exit(code)


def _fail(text):
    print(f"error: {text}", file=sys.stderr)
    return 1


ADVICE = {
    errno.ENOSPC: "Make room there, then start the same command again.",
    errno.EDQUOT: "Make room there, then start the same command again.",
    errno.EROFS: "Name a place that can be written.",
    errno.EACCES: "Name a place that this user may use.",
    errno.EPERM: "Name a place that this user may use.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EISDIR: "Name a file: this is a folder.",
    errno.ENOTDIR: "Name another place: a part of this path is a file.",
    errno.EEXIST: "Name another place: a part of this path is a file.",
    errno.EMFILE: "Allow this process more open files (ulimit -n), or ask for fewer workers.",
    errno.EAGAIN: "Allow this user more processes (ulimit -u), or ask for fewer workers.",
    errno.ENOMEM: "Ask for less at once: fewer workers, a smaller batch.",
}


def surroundings_fault(error: Exception) -> str | None:
    """A paragraph on an exception by which the disk, the memory or a limit of the system is to blame; None for any other."""
    detail = shown(message_of(error))
    while isinstance(error, OSError) and error.errno is None and isinstance(error.__context__, OSError):
        error = error.__context__  # gin raises a copy that knows the message alone
    if isinstance(error, getattr(sys.modules.get("torch"), "OutOfMemoryError", ())):
        return (
            f"The GPU's memory is full. Ask for less at once: a smaller batch, a shorter memory. PyTorch says: {detail}"
        )
    if isinstance(error, MemoryError) or re.search(
        "can't allocate memory|Insufficient memory|Failed to allocate", detail
    ):
        return f"The memory is full, or what this process may have of it. {ADVICE[errno.ENOMEM]} ({detail or 'out of memory'})"
    if isinstance(error, RecursionError):
        return f"What was read is nested too deeply to be followed ({detail})."
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename
        place = f"{shown(os.fsdecode(name))}: " if isinstance(name, (str, bytes, os.PathLike)) else ""
        return f"{place}{error.strerror}. {ADVICE.get(error.errno, '')}".rstrip()
    return None
