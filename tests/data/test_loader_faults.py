"""Loader workers that die or hang: the run is told which one, and what it was reading."""

import os
import re
import shutil
import signal
import time
from multiprocessing import active_children, util
from pathlib import Path

import pytest
from torch.utils.data import Dataset

from hiptrack.data import clips
from hiptrack.data.clips import ClipData, ClipDataset, Geometry
from hiptrack.data.crop_reading import read_crops
from hiptrack.data.folders import FolderDataset
from hiptrack.data.loader import (
    ShardedBatches,
    StageLoader,
    make_loader,
    next_batch,
    reading,
    shut_down,
    worker_fault,
)
from hiptrack.data.sampling import CausalSampler
from hiptrack.errors import DataError


@pytest.fixture
def dataset(synthetic, tmp_path):
    """Clips of sequences whose files a test may change."""
    shutil.copytree(synthetic / "train", tmp_path / "train")
    data = ClipData([FolderDataset(str(tmp_path), "train")], None, CausalSampler(2))
    return ClipDataset(data, Geometry(32, 64, 2.0, 5.0), 0, 0)


@pytest.fixture
def pipe(dataset, tmp_path, monkeypatch):
    """Path of the first frame of the data set's first clip, now a pipe: reading it takes for ever."""
    name, frames = dataset[(0, 0)]["source"].split(" frames ")
    path = tmp_path / "train" / name / f"{int(frames.strip('[]').split(',')[0]):08d}.jpg"
    path.unlink()
    os.mkfifo(path)

    def read(file, *wanted):
        return path.read_bytes() if file == str(path) else read_crops(file, *wanted)

    monkeypatch.setattr(clips, "read_crops", read)
    return path


@pytest.fixture
def start():
    """A function that starts a loader's workers on batches of one clip; they are gone after the test."""
    loaders = []

    def start(dataset, workers, timeout=0, method="fork"):
        loader = make_loader(dataset, ShardedBatches(4, 1, 0, 1, 1), workers, 0, timeout)
        if workers:
            loader.multiprocessing_context = method
        loaders.append(loader)
        return loader, iter(loader)

    yield start
    for loader in loaders:
        shut_down(loader)


class Calls(Dataset):
    """Calls a function where a sample is wanted."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __getitem__(self, _):
        self.function(*self.args)


def fail():
    raise RuntimeError("a defect of the program")


def read_bytes(path):
    with reading(path):
        Path(path).read_bytes()


def exit_when_told(pipe, code):
    pipe.read_bytes()
    os._exit(code)


def wait_for_reader(pipe):
    """Block until a worker has opened the pipe; it then waits for bytes until the returned file is closed."""
    return open(pipe, "wb")


def first_worker():
    return min(active_children(), key=lambda worker: worker.pid)


def passes_that_kill(passes, pipe):
    """passes; the first next() kills the first worker as it reads a pipe, so that the error is raised in there."""
    with wait_for_reader(pipe):
        os.kill(first_worker().pid, signal.SIGKILL)
        yield from passes


def test_a_worker_killed_while_reading_is_reported_with_the_file(dataset, pipe, start):
    loader, passes = start(dataset, 2)
    pid = first_worker().pid
    fault = next_batch(loader, passes_that_kill(passes, pipe))
    assert isinstance(fault, DataError)
    told = f"DataLoader worker (pid {pid}) is killed by signal: Killed; worker {pid} had been reading {pipe} for 0 s. "
    assert str(fault).startswith(told) and "memory" in str(fault)


@pytest.mark.slow
def test_a_spawned_worker_is_watched_too(tmp_path, start):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    loader, passes = start(Calls(read_bytes, str(pipe)), 1, method="spawn")
    fault = next_batch(loader, passes_that_kill(passes, pipe))
    assert isinstance(fault, DataError) and f"had been reading {pipe} for " in str(fault)


def test_a_death_during_the_step_is_recognised(dataset, pipe, start):
    loader, _ = start(dataset, 1)
    with pytest.raises(RuntimeError) as caught, wait_for_reader(pipe):
        os.kill(first_worker().pid, signal.SIGSEGV)
        time.sleep(60)  # stands for a step; the signal of the worker's end cuts it short
    fault = worker_fault(loader, caught.value)
    assert isinstance(fault, DataError)
    assert "is killed by signal: Segmentation fault" in str(fault) and f"had been reading {pipe} for " in str(fault)


@pytest.mark.parametrize("code, words", [(0, ""), (3, " with exit code 3")])
def test_a_worker_that_ends_between_files_is_reported_with_its_exit_code(tmp_path, start, code, words):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    loader, passes = start(Calls(exit_when_told, pipe, code), 1, timeout=1)

    def passes_that_tell():
        wait_for_reader(pipe).close()
        yield from passes

    fault = next_batch(loader, passes_that_tell())
    assert isinstance(fault, DataError)
    assert f"exited unexpectedly{words}" in str(fault) and "; no file was being read. " in str(fault)


def test_a_hanging_worker_is_reported_with_the_file_and_ended(dataset, pipe, start):
    loader, passes = start(dataset, 2, timeout=1)
    with wait_for_reader(pipe):
        pid, fault = first_worker().pid, next_batch(loader, passes)
        assert isinstance(fault, DataError)
        told = f"DataLoader timed out after 1 seconds; worker {pid} had been reading {pipe} for "
        assert str(fault).startswith(told) and "train.loader_timeout" in str(fault)
        shut_down(loader)
        assert not active_children()


def test_workers_that_hang_outside_a_file_are_reported_and_ended(start):
    loader, passes = start(Calls(time.sleep, 1000), 2, timeout=1)
    fault = next_batch(loader, passes)
    assert isinstance(fault, DataError)
    assert str(fault).startswith("DataLoader timed out after 1 seconds; no file was being read. ")
    shut_down(loader)
    assert not active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_other_errors_are_not_taken_for_faults_of_a_worker(start, workers):
    loader, passes = start(Calls(fail), workers, timeout=60)
    with pytest.raises(RuntimeError, match="a defect of the program") as caught:
        next_batch(loader, passes)
    assert worker_fault(loader, caught.value) is None


def lack(error):
    raise error


@pytest.mark.parametrize(
    "error, words",
    [
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left (28)"),
            "shared memory(shm)",
        ),
        (OSError(24, "Too many open files"), "Too many open files"),
        (MemoryError(), "out of memory"),
    ],
)
def test_what_workers_lack_is_told_with_the_size_of_the_shared_memory(start, error, words):
    loader, passes = start(Calls(lack, error), 1, timeout=60)
    fault = next_batch(loader, passes)
    assert isinstance(fault, DataError) and words in str(fault) and "\\n" not in str(fault)
    assert "Set train.workers lower" in str(fault) and re.search(r"a /dev/shm of \S+ MB, \S+ MB of it free", str(fault))


def test_workers_that_cannot_be_started_are_an_error(monkeypatch):
    batches = ShardedBatches(4, 1, 0, 1, 1)
    loader = make_loader(Calls(fail), batches, 1, 0)
    monkeypatch.setattr(
        type(loader), "_get_iterator", lambda _: lack(BlockingIOError(11, "Resource temporarily unavailable"))
    )
    with pytest.raises(DataError, match="lack what they need: .*temporarily unavailable"):
        next(StageLoader(loader, batches).steps(0, 0))


def test_an_error_of_the_data_is_returned_and_the_end_is_raised(dataset, tmp_path, start):
    for file in tmp_path.rglob("*.jpg"):
        file.unlink()
    loader, passes = start(dataset, 1, timeout=60)
    for _ in range(4):
        assert "50 x unreadable image" in str(next_batch(loader, passes))
    with pytest.raises(StopIteration):
        next_batch(loader, passes)


def test_workers_that_are_ended_leave_no_folder_behind(dataset, start):
    folders = Path(util.get_temp_dir()).parent
    before = set(folders.glob("pymp-*"))
    loader, batches = start(dataset, workers=2)
    assert next(batches)["search"].shape[0] == 1
    shut_down(loader)
    assert set(folders.glob("pymp-*")) == before
