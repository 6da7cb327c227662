"""Running a fuzz: many seeded cases, each of which must end in a right value or in an error for the user."""

import os
import random
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase, strategies

from hiptrack.errors import HiptrackError

LONGEST = 300  # seconds of a case, on a busy machine


@dataclass
class Tally:
    """How many cases a fuzz tried, and how they ended."""

    name: str
    tried: int = 0
    right: int = 0
    clear_errors: int = 0


def run(name: str, cases: strategies.SearchStrategy, check: Callable[[object], bool], count: int, seed: int) -> Tally:
    """Gives `check` so many cases; it returns whether a right value came out, else there was a clear error.

    Raises AssertionError with the failing case, made as small as it gets, for whatever else happens.
    """
    tally = Tally(name)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(cases)
    def one(case):
        try:
            with _in_time():
                right = check(case)
        except Exception as error:
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            raise AssertionError(f"{name}: {kind}{error}; in the case {case!r}") from error
        tally.tried += 1
        tally.right += right
        tally.clear_errors += not right

    one()
    return tally


@contextmanager
def _in_time():
    """AssertionError in what takes longer than LONGEST: a pipe that is waited for, say."""

    def late(*_):
        raise AssertionError(f"it takes longer than {LONGEST} s")

    earlier = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)


def made(make: Callable[[random.Random], object]) -> strategies.SearchStrategy:
    """What `make` chooses by a generator, anew in each case; hypothesis itself mostly repeats parts of earlier cases."""
    return strategies.integers(0, 2**20 - 1).map(lambda number: make(random.Random(number)))


def check_words(error: HiptrackError, *named: str) -> None:
    """The text of an error is one printable line of readable length that names what is at fault."""
    text = str(error)
    assert text.isprintable(), f"unprintable: {text!r}"
    assert len(text) < 2000, f"{len(text)} characters: {text[:300]!r}"
    for words in named:
        assert words in text, f"{words!r} is not named: {text!r}"


class Folder:
    """A temporary folder that knows its files, to see that reading leaves them as they are."""

    def __enter__(self):
        self.path = Path(tempfile.mkdtemp())
        self.files = {}
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path)

    def write(self, name: str, data: bytes) -> Path:
        """Writes one file, in place of the one of that name; returns its path."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.files[path] = data
        return path

    def check(self) -> None:
        """Every file is there with its bytes, and no other."""
        assert {path for path in self.path.rglob("*") if path.is_file()} == set(self.files), "files came or went"
        for path, data in self.files.items():
            assert path.read_bytes() == data, f"{path.name} was changed"


def snapshot(folder: str | os.PathLike) -> dict[str, tuple]:
    """{path below a folder: what is there}, to see that nothing was touched: kind and rights, links, bytes, time of change."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for path in (os.path.join(parent, name) for name in (*folders, *files)):
            status, content = os.lstat(path), None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = Path(path).read_bytes(), status.st_mtime_ns
            found[os.path.relpath(path, folder)] = status.st_mode, content
    return found


def damages(most: int) -> strategies.SearchStrategy:
    """What `draw_damages` gives."""
    return made(lambda rng: draw_damages(rng, most))


def draw_damages(rng: random.Random, most: int) -> list:
    """1..most changes for `damaged`: (kind, place as a share of the length, bytes)."""
    kinds, number = ("replace", "insert", "remove", "cut", "repeat"), rng.randint(1, most)
    return [(rng.choice(kinds), rng.random(), rng.randbytes(rng.randint(1, 4))) for _ in range(number)]


def damaged(data: bytes, changes: list) -> bytes:
    """The bytes after the changes of `draw_damages`, one after the other."""
    for kind, share, new in changes:
        at, length = int(share * len(data)), len(new)
        if kind == "replace":
            data = data[:at] + new[: len(data) - at] + data[at + length :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "remove":
            data = data[:at] + data[at + length :]
        elif kind == "cut":
            data = data[:at]
        else:
            data = data[:at] + data[at : at + 16 * length] + data[at:]
    return data
