"""Batches for one process of several: a global batch holds the same clips however it is divided."""

import ctypes
import os
import re
import signal
import time
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import RawArray, active_children, util

import cv2
import torch
from torch.utils.data import DataLoader, default_collate

from hiptrack.errors import ConfigError, DataError, HiptrackError

IGNORED_BY_WORKERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
JOIN_TIMEOUT = 5.0  # seconds; a read that the system cannot interrupt outlives even SIGKILL


def divide_batch(batch, processes, largest=None):
    """Split a global batch: (rows of a process in one pass, passes accumulated into a step).

    largest: most rows a process can take at once, or None. Raises ConfigError where it cannot be divided evenly.
    """
    if batch % processes:
        raise ConfigError(f"Stage.batch = {batch} is the global batch; {processes} processes cannot divide it evenly.")
    rows = batch // processes
    passes = 1 if largest is None else -(-rows // largest)
    if rows % passes:
        raise ConfigError(
            f"Stage.batch = {batch} gives each of {processes} processes {rows} clips; with Stage.largest_pass = {largest} "
            f"they cannot be divided evenly. Choose a divisor of {rows}."
        )
    return rows // passes, passes


class ShardedBatches:
    """Keys (epoch, index) of this process's passes over an epoch; `start_at` sets epoch and first global step."""

    def __init__(self, steps, batch, rank, processes, passes):
        self.steps, self.batch, self.rank = steps, batch, rank
        self.processes, self.passes = processes, passes
        self.rows = batch // (processes * passes)
        self.start_at(0, 0)

    def start_at(self, epoch, step):
        self.epoch, self.first_step = epoch, step

    def __len__(self):
        return (self.steps - self.first_step) * self.passes

    def __iter__(self):
        for step in range(self.first_step, self.steps):
            for number in range(self.passes):
                first = step * self.batch + (number * self.processes + self.rank) * self.rows
                yield [(self.epoch, index) for index in range(first, first + self.rows)]


def collate(samples):
    """Samples -> a batch of stacked tensors, with the lists of their sequences, sources and rejected draws.

    The first error among the samples instead, if there is one.
    """
    for sample in samples:
        if isinstance(sample, HiptrackError):
            return sample
    names = {key: [sample.pop(key) for sample in samples] for key in ("sequence", "source")}
    rejected = [draw for sample in samples for draw in sample.pop("rejected")]
    return {**default_collate(samples), **names, "rejected": rejected}


def make_loader(dataset, batches, workers, seed, timeout=0):
    """DataLoader over ShardedBatches. It draws on no global generator, so that a resumed run goes on alike.

    timeout: seconds without a batch after which the workers count as hung; 0: no limit. Nothing without workers.
    """
    util.get_temp_dir()  # the workers' sockets go there, and with this process: one that is killed removes nothing
    notes = RawArray(Note, workers)
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=partial(_start_worker, notes),
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),
        timeout=timeout if workers else 0,
    )
    loader.notes, loader.others = notes, active_children()
    return loader


@contextmanager
def open_loader(dataset, stage, accelerator, workers, seed, timeout):
    """A StageLoader of this process's share of a stage's clips; its workers end with the block.

    stage: what divides the clips (batch, largest_pass, steps_per_epoch). Raises DataError, wherever the block is, for a
    worker that dies.
    """
    rank, processes = accelerator.process_index, accelerator.num_processes
    _, passes = divide_batch(stage.batch, processes, stage.largest_pass)
    batches = ShardedBatches(stage.steps_per_epoch, stage.batch, rank, processes, passes)
    loader = make_loader(dataset, batches, workers, seed, timeout)
    try:
        yield StageLoader(loader, batches)
    except RuntimeError as error:
        fault = worker_fault(loader, error)
        if fault is None:
            raise
        raise fault from error
    finally:
        shut_down(loader)


class StageLoader:
    """The global batches of a stage, as one process has them: in passes."""

    def __init__(self, loader, batches):
        self.loader, self.batches = loader, batches

    def steps(self, epoch, first_step):
        """Yields (passes, None, seconds) for each global batch of an epoch; ([], the error, seconds) for a fault."""
        self.batches.start_at(epoch, first_step)
        try:
            passes = iter(self.loader)  # starts the workers
        except (RuntimeError, OSError, MemoryError) as error:
            need = worker_need(self.loader, error)
            if need is None:
                raise
            raise need from error
        for _ in range(first_step, self.batches.steps):
            started = time.perf_counter()
            batches, error = self._read(passes)
            yield batches, error, time.perf_counter() - started

    def _read(self, passes):
        batches = []
        for _ in range(self.batches.passes):
            batch = next_batch(self.loader, passes)
            if isinstance(batch, HiptrackError):
                return [], batch
            batches.append(batch)
        return batches, None


def next_batch(loader, passes):
    """The next batch of passes = iter(loader), or a HiptrackError: an error of the samples, a worker that died, hung or lacks
    what it needs.

    It is returned so that all processes can agree on it.
    """
    try:
        return next(passes)
    except (RuntimeError, OSError, MemoryError) as error:
        fault = worker_fault(loader, error) or worker_need(loader, error)
        if fault is None:
            raise
        return fault


def worker_fault(loader, error):
    """A DataError for a RuntimeError by which PyTorch reports that a worker died or gave nothing in time; else None.

    A death is reported by a signal handler, which raises wherever the main thread is, not only in next_batch.
    """
    texts = (str(error.__cause__), str(error))  # what next() raises says less than its cause
    told = next((text for text in texts if text.startswith("DataLoader ")), "")
    if dead := re.match(r"DataLoader worker \(pid\D* (\d+)", told):
        notes = [note for note in loader.notes if note.pid == int(dead[1])]
        shared = f", {shared_memory()}" if "Bus error" in told else ""
        advice = f"the machine's memory{shared} (fewer train.workers need less of it)"
    elif told.startswith("DataLoader timed out"):
        notes = loader.notes
        advice = "the disk, the limit of open files (ulimit -n), or raise train.loader_timeout where that is too short"
    else:
        return None
    read = "no file was being read"
    now = [(note.since, note.pid, os.fsdecode(note.path)) for note in notes]  # the other workers go on
    if busy := [each for each in now if each[0]]:
        since, pid, path = min(busy)
        read = f"worker {pid} had been reading {path} for {time.monotonic() - since:.0f} s"
        advice = f"that file and {advice}"
    return DataError(f"{told.rstrip('. ')}; {read}. Check {advice}.")


NEEDS = re.compile(
    "shared memory|No space left|Too many open files|allocate memory|can't start new thread|temporarily unavailable"
)


def worker_need(loader, error):
    """A DataError for an exception by which workers lack memory, shared memory, files or processes; None for any other."""
    text = str(error)
    if not loader.num_workers or not (isinstance(error, MemoryError) or NEEDS.search(text)):
        return None
    # of what a worker raised PyTorch gives its whole traceback
    reason = next((line for line in reversed(text.splitlines()) if NEEDS.search(line)), "out of memory")
    return DataError(
        f"The {loader.num_workers} loader workers of a process lack what they need: {reason.strip()}. Here is {shared_memory()}. "
        "Set train.workers lower (0 needs none of it), or allow more: of /dev/shm (docker run --shm-size=8g), of memory, of open "
        "files (ulimit -n) or of processes (ulimit -u)."
    )


def shared_memory():
    """How much of the memory that workers pass their batches through there is, in words."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return "no /dev/shm"
    size, free = (blocks * room.f_frsize / 1e6 for blocks in (room.f_blocks, room.f_bavail))
    return f"a /dev/shm of {size:.3g} MB, {free:.3g} MB of it free"


def shut_down(loader):
    """Kill a loader's workers: they ignore signals, may hang, and the interpreter would wait for them for ever."""
    for worker in active_children():
        if worker not in loader.others:
            with suppress(RuntimeError):  # PyTorch's report of its death
                worker.kill()
                worker.join(JOIN_TIMEOUT)


LONGEST_PATH = 4096  # bytes, as in Linux


class Note(ctypes.Structure):
    """What a worker is reading, in memory that it shares with the main process, whether it is forked or spawned.

    There is no lock: a worker may die at any moment, and a lock it held would stop all.
    """

    # since: time.monotonic(), the same clock in all processes; 0 while nothing is read
    _fields_ = (("pid", ctypes.c_int), ("since", ctypes.c_double), ("path", ctypes.c_char * LONGEST_PATH))


_own_note = Note()  # in a worker, one that is shared


def _start_worker(notes, worker):
    global _own_note
    # The main process decides what a signal means; a worker that died of one would take the run along.
    for number in IGNORED_BY_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
    _own_note = notes[worker]
    _own_note.pid = os.getpid()


@contextmanager
def reading(path):
    """Note, for the main process, that this worker is busy with a file."""
    _own_note.path = os.fsencode(path)[:LONGEST_PATH]
    _own_note.since = time.monotonic()
    try:
        yield
    finally:
        _own_note.since = 0
