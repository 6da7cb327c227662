"""Disks that fail in the midst of a write: the old content is there or the new, never half of it, and the next try ends whole."""

import errno
import io
import os
import shutil
from contextlib import ExitStack
from unittest import mock

import numpy as np
import torch
from accelerate import Accelerator
from soak.fuzz_core import Folder, Tally, made, run
from soak.fuzz_folders import RESULT
from toy import save_toy, toy_gin, toy_model

from hiptrack import files
from hiptrack.errors import HiptrackError, surroundings_fault
from hiptrack.evaluation.results import claim_folder, is_finished, read_result, write_result
from hiptrack.evaluation.submission import FORMS, Expected, write_submission
from hiptrack.files import write_atomically
from hiptrack.models.strip import halve
from hiptrack.models.weights import content_hash, save_weights
from hiptrack.screen import shown
from hiptrack.taxonomy import TEN
from hiptrack.training.checkpoint import Position, newest_sound, save_checkpoint
from hiptrack.training.log import Journal, read_journal
from hiptrack.training.run_folder import record

CODES = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)
MOST = {"checkpoint": 45, "record": 20, "result": 20}  # changes after which the disk fails; of the others FEW
FEW = 9


class FailingDisk:
    """From `with` to its end the number-th change of a file or a folder fails with an errno, or all from there on."""

    def __init__(self, number, code, for_good):
        self.number, self.code, self.for_good = number, code, for_good
        self.seen, self.failed = 0, False

    def __enter__(self):
        self._patches = ExitStack()
        for name in ("fsync", "replace", "rename", "mkdir"):
            self._patch(os, name, getattr(os, name))
        self._patches.enter_context(mock.patch.object(files, "open", self._open, create=True))
        return self

    def __exit__(self, *_):
        self._patches.close()

    def change(self, path=None):
        """A change is about to be made. Raises OSError."""
        self.seen += 1
        if self.seen == self.number or self.failed and self.for_good:
            self.failed = True
            raise OSError(self.code, os.strerror(self.code), path)

    def _patch(self, module, name, real):
        def change(path, *more, **named):
            self.change(path if isinstance(path, (str, os.PathLike)) else None)
            return real(path, *more, **named)

        self._patches.enter_context(mock.patch.object(module, name, change))

    def _open(self, path, mode, *more, **named):
        if mode != "ab+":
            return open(path, mode, *more, **named)
        self.change(str(path))
        return io.BufferedRandom(_File(self, path, named["opener"]))


class _File(io.FileIO):
    """A file of which a write that fails leaves one half: as of a disk that fills up, the half is taken, the rest refused."""

    def __init__(self, disk, path, opener):
        super().__init__(path, "ab+", opener=opener)
        self._disk, self._fault = disk, None

    def write(self, data):
        fault, self._fault = self._fault, None
        if fault:
            raise fault
        try:
            self._disk.change()
        except OSError as error:
            self._fault = error
            return super().write(bytes(data)[: (len(data) + 1) // 2])
        return super().write(data)


class File:
    old, new = b"old" * 999, b"new" * 999

    def __init__(self, ground):
        self.path = ground / "deep" / "file.safetensors"

    def prepare(self):
        write_atomically(self.path, self.old)

    def act(self):
        write_atomically(self.path, self.new)

    def state(self):
        return self.path.read_bytes()


class Weights(File):
    def __init__(self, ground):
        super().__init__(ground)
        self.models = toy_model(seed=0), toy_model(seed=1)
        self.text = toy_gin()

    def prepare(self):
        self.path.parent.mkdir()
        save_weights(self.path, self.models[0], self.text)
        self.old = content_hash(self.path)
        save_weights(self.path, self.models[1], self.text)
        self.new = content_hash(self.path)
        save_weights(self.path, self.models[0], self.text)

    def act(self):
        save_weights(self.path, self.models[1], self.text)

    def state(self):
        return content_hash(self.path)


class Halved(File):
    old = None

    def prepare(self):
        self.path.parent.mkdir()
        self.source = self.path.with_name("toy.safetensors")
        save_toy(self.source)
        halve(self.source, self.path)
        self.new = content_hash(self.path)
        self.path.unlink()

    def act(self):
        halve(self.source, self.path)

    def state(self):
        return content_hash(self.path) if self.path.exists() else None


class Result(File):
    """Of a sequence: finished and as it was tracked, or not finished."""

    old, new = False, True

    def prepare(self):
        pass

    def act(self):
        claim_folder(self.path, "k", ["a"], TEN)
        write_result(self.path, RESULT)

    def state(self):
        if not is_finished(self.path, "a"):
            return False
        read = read_result(self.path, "a", 3, RESULT.boxes_xywh[0], 10)
        return np.array_equal(read.boxes_xywh, RESULT.boxes_xywh) and np.array_equal(read.scores, RESULT.scores)


class Log(File):
    """Lines of a journal, whole ones from the first on; a run that goes on has as many as its checkpoint says."""

    old, new = [(1, {"a": 1.0})], [(1, {"a": 1.0}), (2, {"a": 2.0}), (3, {"a": 3.0})]

    def prepare(self):
        self.path.parent.mkdir()
        journal = Journal(self.path, 0)
        journal.add({"step": 1, "a": 1.0})
        self.size = journal.synced_size()
        journal.close()

    def act(self):
        journal = Journal(self.path, self.size)
        try:
            for step in (2, 3):
                journal.add({"step": step, "a": float(step)})
            journal.synced_size()
        finally:
            journal.close()

    def state(self):
        lines = list(read_journal(self.path))
        return self.old if len(lines) < 3 and lines == self.new[: len(lines)] and lines else lines


class Record(File):
    """What a run says about itself at its second start."""

    old, new = ["first"], ["first", "second"]

    def prepare(self):
        record(self.path, "# first", ["first"])

    def act(self):
        record(self.path, "# second", ["second"])

    def state(self):
        assert (self.path / "config.gin").read_text() == "# first"
        commands = (self.path / "command.txt").read_text().split()
        if commands != self.old:  # it is written last
            assert (self.path / "config-2.gin").read_text() == "# second"
        return list(dict.fromkeys(commands))  # of each try


class Submission(File):
    old, new = False, True

    def prepare(self):
        write_result(self.path.parent, RESULT)

    def act(self):
        write_submission(self.path.parent, {"a": Expected(3, (1, 2, 10, 8))}, self.path, FORMS["got10k"])

    def state(self):
        return self.path.exists() and self.path.read_bytes()[-22:-18] == b"PK\x05\x06"


class Saved(File):
    """The newest checkpoint that is sound."""

    old, new = "step-00000001", "step-00000002"

    def __init__(self, ground):
        super().__init__(ground)
        self.model, self.accelerator = toy_model(), Accelerator(cpu=True)
        self.optimizer = torch.optim.AdamW(self.model.parameters())

    def prepare(self):
        self._save(1)

    def act(self):
        self._save(2)

    def _save(self, step):
        position = Position(0, 0, step, step)
        state = {"validation": {"AO": step / 10}}
        save_checkpoint(
            self.path, self.accelerator, self.model, "", self.optimizer, position, state, keep=2, chooses=True
        )

    def state(self):
        path, passed_over = newest_sound(self.path)
        assert not passed_over, passed_over
        return path.name


JOBS = {
    "file": File, "weights": Weights, "halved": Halved, "result": Result, "log": Log, "record": Record, "submission": Submission,
    "checkpoint": Saved,
}  # fmt: skip


def _case(rng):
    name = rng.choice(sorted(JOBS))
    return name, rng.randint(1, MOST.get(name, FEW)), rng.choice(CODES), rng.random() < 0.5


def fuzz_disks(count: int, seed: int) -> Tally:
    """Each case: one thing that is written, with a disk that fails at one of its changes."""
    with Folder() as folder:
        return run("failing disks", made(_case), lambda case: _check(folder.path, *case), count, seed)


def _check(ground, name, number, code, for_good):
    job = JOBS[name](ground)
    try:
        job.prepare()
        assert job.state() == job.old or job.old is None
        with FailingDisk(number, code, for_good) as disk:
            told = _told(job, ground)
        assert told or job.state() == job.new, "it failed in silence"
        assert disk.failed or not told, f"a sound disk fails: {told}"
        assert job.state() in (job.old, job.new), f"half written: {job.state()!r}"
        job.act()
        assert job.state() == job.new, "the next try does not end whole"
        left = [path.name for path in ground.rglob("*") if path.name.startswith((".hiptrack-", "tmp-"))]
        assert not left, f"left over: {left}"
        return not told
    finally:
        shutil.rmtree(ground)
        ground.mkdir()


def _told(job, ground):
    """What the job's error tells a user; None without one."""
    try:
        job.act()
    except (HiptrackError, OSError) as error:
        told = str(error) if isinstance(error, HiptrackError) else surroundings_fault(error)
        assert told and os.strerror(error.errno) in told if isinstance(error, OSError) else shown(ground) in told, repr(
            error
        )
        return told
    return None
