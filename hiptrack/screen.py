"""The screen: what may stand there, and a command that goes on when nobody reads it any more.

Names come from the disks and files of others, so that they may hold anything: escape sequences of a terminal, line ends,
marks that turn the direction of writing, bytes that are no UTF-8.
"""

import errno
import io
import logging
import os
import select
import sys
import traceback
from contextlib import contextmanager

LEFT = (errno.EPIPE, errno.EIO)  # of a reader that has seen enough (`| head`), and of a terminal that was closed


def shown(text: object) -> str:
    """A text as one line of characters that can be seen: any other stands there as its escape, such as \\n or \\x1b."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class Output(io.FileIO):
    """A standard stream that never fails: what cannot be written is dropped, and `fault` is the first reason (OSError)."""

    fault = None

    def write(self, data):
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])  # another program made the terminal or pipe non-blocking, and it is full
            return written
        except OSError as error:
            self.fault = self.fault or error
            return len(data)


def open_streams() -> Output | None:
    """Have standard output and error never fail.

    What has no character in the stream's encoding stands there as its escape. A stream that was closed leads nowhere. One
    that has been replaced (in a test) is left alone. Returns the Output that standard output is now, None for those two.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        _occupy(number)
        stream = getattr(sys, name)
        if stream is None and number:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115  to the end
        elif stream is getattr(sys, f"__{name}__") and number:
            buffer = io.BufferedWriter(Output(stream.fileno(), "w", closefd=False))
            by_line = stream.line_buffering or stream.write_through
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, "backslashreplace", line_buffering=by_line))
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, Output) else None


def _occupy(number):
    """Let no other file get the number of a standard stream that was closed: libraries print there."""
    try:
        os.fstat(number)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest number that is free


class Record(logging.LogRecord):
    """A log record in which texts that were filled in, and the lines of a traceback, are `shown`."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        if isinstance(self.args, tuple):
            self.args = tuple(shown(own) if isinstance(own, (str, os.PathLike)) else own for own in self.args)
        if self.exc_info:
            lines = "".join(traceback.format_exception(*self.exc_info)).rstrip("\n").split("\n")
            self.exc_text = "\n".join(map(shown, lines))


@contextmanager
def shown_in_logs():
    """Within it every log record is a Record."""
    earlier = logging.getLogRecordFactory()
    logging.setLogRecordFactory(Record)
    try:
        yield
    finally:
        logging.setLogRecordFactory(earlier)
