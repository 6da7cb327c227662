"""JSON lines that a resumed run continues where its checkpoint left them: no entry twice, none missing."""

import json
import os
from pathlib import Path

from hiptrack.errors import DataError

MAX_ENTRY_BYTES = 2**20


class Journal:
    """A JSONL file that one process appends to.

    Args:
        path: the file; made where it is missing.
        size: bytes of it that count; what an interrupted run wrote beyond them is cut off, a broken line with it.
    """

    def __init__(self, path, size):
        self.path = Path(path)
        self.file = self.path.open("ab+")
        self.file.truncate(min(size, self.path.stat().st_size))
        self.file.seek(0)
        self.file.truncate(sum(len(line) for line in self.file if line.endswith(b"\n")))

    def add(self, entry):
        """Append one object."""
        self.file.write(json.dumps(entry).encode() + b"\n")
        self.file.flush()

    def synced_size(self):
        """Bytes so far, all of them on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.path.stat().st_size

    def close(self):
        """Close the file."""
        self.file.close()


def read_journal(path):
    """The objects of a JSONL file; a last line that was cut short is left out. Raises DataError at a damaged line."""
    with open(path, "rb") as file:
        number = 0
        while (line := file.readline(MAX_ENTRY_BYTES)).endswith(b"\n"):
            number += 1
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: no JSON object ({error}). Remove the line, or the file.") from error
