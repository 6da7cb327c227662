"""Sequences under way, kept every minute, so that an evaluation that was killed goes on from there.

    <folder>/<seq>/<seq>_unfinished.safetensors     what was tracked of it, and what its target knows, after a seal

The seal is a digest of the content, the results' key and the sequence: what is damaged, or belongs to something else,
is passed over. The file goes when the sequence is finished.
"""

import hashlib
import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save

from hiptrack.errors import DataError
from hiptrack.evaluation.identity import sequence_identity
from hiptrack.evaluation.results import sequence_folder
from hiptrack.files import read_bytes, remove_leftovers, write_atomically

INTERVAL = 60.0  # seconds from one time to the next; longer where it takes more than a second to write
LEFTOVER = 600.0  # seconds after which a file that nobody writes to is no other process's
FORM = 1  # of the files: raise it when a state means something else
MAX_BYTES = 2**34
SEAL = hashlib.sha256().digest_size

logger = logging.getLogger(__name__)


class Unfinished:
    """What is kept of the sequences under way in a results folder with a key. clock: gives seconds."""

    def __init__(self, folder, key, clock=time.monotonic):
        self.folder, self.key, self._clock = Path(folder), key, clock
        self._due = clock() + INTERVAL
        self._made_of = {}

    def made_of(self, sequence):
        """The `sequence_identity` of a Sequence that is under way, found once."""
        if sequence.name not in self._made_of:
            self._made_of[sequence.name] = sequence_identity(sequence)
        return self._made_of[sequence.name]

    def keep_when_due(self, runs):
        """Write, once in a while, what is under way.

        runs: each with the Sequence `sequence`, and `state()`, which gives {part: {name: number, array or tensor}}.
        """
        began = self._clock()
        if began < self._due:
            return
        for run in runs:
            state = run.state()
            data = save({f"{part}.{name}": _tensor(value) for part in state for name, value in state[part].items()})
            try:
                write_atomically(self._path(run.sequence), self._seal(run.sequence, data) + data)
            except (OSError, DataError) as error:
                logger.warning("%s cannot be kept while it is tracked: %s", run.sequence.name, error)
        self._due = began + INTERVAL * max(1.0, self._clock() - began)

    def read(self, sequence):
        """{part: {name: tensor}} as kept of a Sequence; None where there is nothing to go on from."""
        path = self._path(sequence)
        if not path.exists():
            return None
        try:
            content = read_bytes(path, MAX_BYTES)
            data = content[SEAL:]
            sound = content[:SEAL] == self._seal(sequence, data)
        except (OSError, DataError) as error:
            logger.warning("%s cannot be read (%s): the sequence is tracked from its start", path, error)
            return None
        if not sound:
            logger.warning("%s is damaged or of something else: the sequence is tracked from its start", path)
            return None
        state = {}
        for name, tensor in load(data).items():
            part, _, own = name.partition(".")
            state.setdefault(part, {})[own] = tensor
        return state

    def forget(self, sequence):
        """A Sequence is finished."""
        self._made_of.pop(sequence.name, None)
        path = self._path(sequence)
        try:
            path.unlink(missing_ok=True)
            remove_leftovers(path.parent, LEFTOVER)
        except OSError as error:
            logger.warning("%s cannot be removed: %s", path, error)

    def _path(self, sequence):
        return sequence_folder(self.folder, sequence.name) / f"{sequence.name}_unfinished.safetensors"

    def _seal(self, sequence, data):
        seal = hashlib.sha256(json.dumps([FORM, self.key, self.made_of(sequence)]).encode())
        seal.update(data)
        return seal.digest()


def _tensor(value):
    """A tensor of its own, which safetensors asks for."""
    return value.contiguous() if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))
