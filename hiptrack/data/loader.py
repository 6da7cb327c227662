"""Batches for one process of several: a global batch holds the same clips however it is divided."""

import signal

import cv2
import torch
from torch.utils.data import DataLoader, default_collate

from hiptrack.errors import ConfigError, HiptrackError

IGNORED_BY_WORKERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


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
        """Go to a step of an epoch."""
        self.epoch, self.first_step = epoch, step

    def __len__(self):
        return (self.steps - self.first_step) * self.passes

    def __iter__(self):
        for step in range(self.first_step, self.steps):
            for number in range(self.passes):
                first = step * self.batch + (number * self.processes + self.rank) * self.rows
                yield [(self.epoch, index) for index in range(first, first + self.rows)]


def collate(samples):
    """Samples -> a batch of stacked tensors and a list of sources; the first error among them instead, if any."""
    for sample in samples:
        if isinstance(sample, HiptrackError):
            return sample
    sources = [sample.pop("source") for sample in samples]
    return {**default_collate(samples), "source": sources}


def make_loader(dataset, batches, workers, seed):
    """DataLoader over ShardedBatches. It draws on no global generator, so that a resumed run goes on alike."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),
    )


def shut_down(loader):
    """End the workers of a loader: they ignore signals, so the interpreter would wait for them for ever."""
    if loader._iterator is not None:  # no public way: persistent workers live as long as this iterator
        if loader.num_workers:
            loader._iterator._shutdown_workers()
        loader._iterator = None


def _start_worker(_):
    # The main process decides what a signal means; a worker that died of one would take the run along.
    for number in IGNORED_BY_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
