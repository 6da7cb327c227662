"""Signs of life of a long command, on stderr: a bar on a terminal, elsewhere (a log file) a plain line now and then."""

import sys
from contextlib import ExitStack, contextmanager

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

PAUSE = 300.0  # seconds before the first plain line, and between two


@contextmanager
def progress(total, unit, what=None, done=0, shown=True):
    """A tqdm of `total` units (None: unknown). One within another's context goes when it ends, the outer one stays.

    what: is being done; done: units of an earlier process, which count as done but not for the speed; shown: False
    shows nothing, as on all processes but the main one. The speed is the mean since the start.
    """
    settings = {"mininterval": 0.5, "dynamic_ncols": True}
    with ExitStack() as stack:
        if not sys.stderr.isatty():
            settings = {"mininterval": PAUSE, "delay": PAUSE, "ncols": 0, "file": _Lines()}
        elif shown:
            stack.enter_context(logging_redirect_tqdm())  # a logged line stands above the bar, not in it
        settings |= {"disable": not shown, "leave": None, "smoothing": 0, "miniters": 1}
        yield stack.enter_context(tqdm(total=total, initial=done, desc=what, unit=f" {unit}", **settings))


def skip(bar, count):
    """Count units that were done before, or never will be: they take no time."""
    if not bar.disable:
        bar.initial += count
        bar.n += count


class _Lines:
    """The states of a bar as lines of stderr."""

    def write(self, text):
        if text.strip():
            sys.stderr.write(f"{text.strip()}\n")

    def flush(self):
        sys.stderr.flush()
