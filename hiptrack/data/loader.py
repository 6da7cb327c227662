"""Batches for one process of several: a global batch holds the same clips however it is divided."""

import ctypes
import os
import signal
import time
from contextlib import contextmanager
from functools import partial
from multiprocessing import RawArray

import cv2
import torch
from torch.utils.data import DataLoader, default_collate
from torch.utils.data._utils import signal_handling

from hiptrack.errors import ConfigError, DataError, HiptrackError

IGNORED_BY_WORKERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
STUCK_AFTER = 1.0  # seconds; a worker that reads one image for longer is not waited for when the loader ends
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
    watch = WorkerWatch(workers)
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=partial(_start_worker, watch),
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),
        timeout=timeout if workers else 0,
    )
    loader.watch = watch
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
        passes = iter(self.loader)
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
    """The next batch of passes = iter(loader), or a HiptrackError: an error of the samples, a worker that died or hung.

    It is returned so that all processes can agree on it.
    """
    try:
        return next(passes)
    except RuntimeError as error:
        fault = worker_fault(loader, error)
        if fault is None:
            raise
        return fault


def worker_fault(loader, error):
    """A DataError for a RuntimeError by which PyTorch reports that a worker of this loader died or hung; else None.

    A death is reported by a signal handler, which raises wherever the main thread is, not only in next_batch.
    """
    iterator = loader._iterator  # no public way: persistent workers live as long as this iterator
    if iterator is None:
        return None
    if str(error).startswith("DataLoader worker (pid"):
        return loader.watch.death(iterator._workers)
    if str(error).startswith("DataLoader timed out"):
        return loader.watch.hang(iterator._workers, loader.timeout)
    return None


def shut_down(loader):
    """End a loader's workers, hanging ones too: they ignore signals, and the interpreter would wait for ever."""
    iterator, loader._iterator = loader._iterator, None
    if iterator is None:
        return
    signal_handling._remove_worker_pids(id(iterator))  # from here on the death of a worker is no error
    iterator._worker_pids_set = False
    for worker in loader.watch.reading_longer_than(STUCK_AFTER):
        iterator._workers[worker].kill()
    iterator._shutdown_workers()
    for process in iterator._workers:
        process.kill()
        process.join(JOIN_TIMEOUT)


def _start_worker(watch, worker):
    # The main process decides what a signal means; a worker that died of one would take the run along.
    for number in IGNORED_BY_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
    watch.enter(worker)


LONGEST_PATH = 4096  # bytes, as in Linux
LIKELY_CAUSES = {signal.SIGKILL: "out of memory?", signal.SIGBUS: "out of shared memory?"}

_own_note = None  # this worker's; None in every other process


class _Note(ctypes.Structure):
    # since: time.monotonic(), the same clock in all processes; 0 while nothing is read
    _fields_ = (("since", ctypes.c_double), ("path", ctypes.c_char * LONGEST_PATH))


class WorkerWatch:
    """A note for each worker of a loader, in shared memory; passed to the workers when they start, forked or spawned.

    A worker writes its own without a lock: it may die at any moment, and a lock it held would stop all.
    """

    def __init__(self, workers):
        self._notes = RawArray(_Note, workers)

    def enter(self, worker):
        """Make this process the worker of that number: from here on `reading` notes what it reads."""
        global _own_note
        _own_note = self._notes[worker]

    def reading_longer_than(self, seconds):
        """Numbers of the workers that have been reading one file for longer."""
        now = time.monotonic()
        return [worker for worker, note in enumerate(self._notes) if note.since and now - note.since > seconds]

    def death(self, processes):
        """A DataError about the first of the workers' processes that is dead, or None."""
        for worker, process in enumerate(processes):
            if not process.is_alive():
                note = self._notes[worker]
                place, suspect = "while reading no file", ""
                if note.since:
                    place, suspect = f"while reading {os.fsdecode(note.path)}", " and that file"
                return DataError(
                    f"loader worker {worker} (pid {process.pid}) {_end(process.exitcode)} {place}. Check the "
                    f"machine's memory (fewer train.workers need less of it){suspect}."
                )
        return None

    def hang(self, processes, limit):
        """A DataError about the worker that has been reading one file for longest; limit: the loader's, in seconds."""
        advice = f"Expected a batch within train.loader_timeout = {limit:g} s; raise it where that is too short."
        busy = [(note.since, worker) for worker, note in enumerate(self._notes) if note.since]
        if not busy:
            return DataError(
                f"the {len(processes)} loader workers have given nothing for {limit:g} s, and none is reading a file. "
                + advice
            )
        since, worker = min(busy)
        path = os.fsdecode(self._notes[worker].path)
        return DataError(
            f"loader worker {worker} (pid {processes[worker].pid}) has given nothing for {limit:g} s; it has been "
            f"reading {path} for {time.monotonic() - since:.0f} s. Check that file and its disk. {advice}"
        )


@contextmanager
def reading(path):
    """Note, in a worker, that it is busy with a file."""
    if _own_note is None:
        yield
        return
    _own_note.path = os.fsencode(path)[:LONGEST_PATH]
    _own_note.since = time.monotonic()
    try:
        yield
    finally:
        _own_note.since = 0


def _end(exitcode):
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    return f"was killed by signal {-exitcode} ({LIKELY_CAUSES.get(-exitcode) or signal.strsignal(-exitcode)})"
