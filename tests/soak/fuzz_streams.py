"""Screens that are closed, full, of few letters or left: files and exit code are as if nothing had happened."""

import errno
import fcntl
import io
import logging
import os
import select
import shutil
import signal
import sys
import traceback
import warnings
import zipfile
from dataclasses import dataclass

from helpers_data import annotation, write_annotations
from soak.fuzz_core import Folder, Tally, made, run
from tqdm import tqdm

import hiptrack.data.annotation_report
import hiptrack.data.benchmarks
import hiptrack.evaluation.submission  # noqa: F401  what the commands import, each child would import anew
from hiptrack import cli
from hiptrack.errors import DataError, ReportedElsewhere, run_main
from hiptrack.files import write_atomically

LOST = b"error: What was printed could not be written (%s). All else was done.\n"
WAYS = ("whole", "few at once", "few at once", "leaves", "leaves", "gone", "closed", "full", "read-only")
NOWHERE = {"full": errno.ENOSPC, "read-only": errno.EBADF}
ENCODINGS = (
    ("utf-8", "strict"),
    ("ascii", "strict"),
    ("ascii", "surrogateescape"),
    ("latin-1", "strict"),
    ("utf-16-le", "strict"),
)
TEXTS = ("plain", "é 漢字 \U0001f600", "caf\udce9", "\x1b[2J\r", "x" * 5000, "")
ACTS = ("print", "print", "print", "bar", "flush", "error", "log", "file", "file")
ENDS = (None, None, 0, 0, 1, 3, "told", "full disk", "Ctrl-C", "elsewhere", "exit 0", "exit 2", "exit words", "defect")
COMMANDS = (
    "check-annotations good", "check-annotations bad", "submit-check good.zip", "submit-check bad.zip", "submit-check absent.zip",
    "submit-check --help", "check-annotations", "--help", "", "submit-chek",
)  # fmt: skip


@dataclass(frozen=True)
class Stream:
    """One that a process starts with. way: of WAYS; encoding: with its errors; by_line: it is flushed at each line's end;
    read: bytes after which a reader leaves.
    """

    way: str
    encoding: tuple[str, str] = ("utf-8", "surrogateescape")
    by_line: bool = False
    read: int = 0


def _case(rng):
    acts = [(rng.choice(ACTS), rng.choice(TEXTS), rng.choice((1, 1, 30, 400))) for _ in range(rng.randint(0, 6))]
    job = rng.choice(COMMANDS).split() if rng.random() < 0.25 else (tuple(acts), rng.choice(ENDS))
    streams = [
        Stream(rng.choice(WAYS), rng.choice(ENCODINGS), rng.random() < 0.5, rng.choice((1, 100, 5000)))
        for _ in range(2)
    ]
    return job, *streams, rng.random() < 0.2


def fuzz_streams(count: int, seed: int) -> Tally:
    """Each case: a command, with other streams than a terminal's."""
    with Folder() as folder:
        _write_input(folder.path / "sound")
        return run("streams", made(_case), lambda case: _check(folder.path, *case), count, seed)


def _write_input(folder):
    lines = [annotation("a", frame, ()) for frame in (3, 4)]
    for name in ("good", "bad"):
        write_annotations(folder / name, "a", lines)
        boxes = b"1,2,10,8\n" * 2 if name == "good" else b"x\n" * 99
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            archive.writestr("a/a_001.txt", boxes)
            archive.writestr("a/a_time.txt", b"0.1\n" * 2)
    with (folder / "bad" / "a" / "a.jsonl").open("ab") as file:
        file.write('{"é"}\n'.encode() * 99)


def _check(ground, job, out, err, without_input):
    plain = Stream("whole")
    expected_code, expected_out, expected_err, expected_files = _result(ground, job, plain, plain, False)
    code, got_out, got_err, files = _result(ground, job, out, err, without_input)
    assert files == expected_files, f"other files: {sorted(files)}, undisturbed {sorted(expected_files)}"
    lost = out.way in NOWHERE and expected_out and expected_code == 0
    if lost:
        expected_code, expected_err = 1, expected_err + LOST % os.strerror(NOWHERE[out.way]).encode()
    assert code == expected_code, f"exit code {code} instead of {expected_code}: {got_err[-500:]!r}"
    for name, stream, got, expected in (("output", out, got_out, expected_out), ("error", err, got_err, expected_err)):
        assert _as_read(stream, expected) == got, f"standard {name} got {got[-500:]!r} instead of {expected[-500:]!r}"
    return code == 0


def _as_read(stream, text):
    """What arrives of a text that is printed in UTF-8."""
    encoded = text.decode().encode(stream.encoding[0], "backslashreplace")
    if stream.way == "leaves":
        return encoded[: stream.read]
    return encoded if stream.way in ("whole", "few at once") else b""


def _result(ground, job, out, err, without_input):
    """(exit code, what was read of standard output, and of standard error, {name: bytes} of the files) of a process."""
    here = ground / "here"
    shutil.copytree(ground / "sound", here)
    try:
        code, texts = _run(here, job, (out, err), without_input)
        return (
            code,
            *texts,
            {str(path.relative_to(here)): path.read_bytes() for path in here.rglob("*") if path.is_file()},
        )
    finally:
        shutil.rmtree(here)


def _run(here, job, streams, without_input):
    ends = [_open(stream) for stream in streams]
    readers, writers = zip(*ends)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child needs none of them
        child = os.fork()
    if child == 0:
        _be_the_child(here, job, streams, readers, writers, without_input)
    try:
        _close(writers)
        texts = _read(streams, readers)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status), texts


def _open(stream):
    """(end that is read, end that is written), None for what there is not."""
    if stream.way == "closed":
        return None, None
    if stream.way in NOWHERE:
        path, flags = ("/dev/full", os.O_WRONLY) if stream.way == "full" else (os.devnull, os.O_RDONLY)
        return None, os.open(path, flags)
    reader, writer = os.pipe()
    if stream.way == "gone":
        os.close(reader)
        return None, writer
    if stream.way == "few at once":
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(writer, False)
    return reader, writer


def _read(streams, readers):
    """What each reader gets until its stream ends or it leaves."""
    texts = [b"", b""]
    there = {reader: number for number, reader in enumerate(readers) if reader is not None}
    try:
        while there:
            for reader in select.select(list(there), [], [])[0]:
                number = there[reader]
                wanted = streams[number].read - len(texts[number]) if streams[number].way == "leaves" else 2**16
                more = os.read(reader, wanted)
                texts[number] += more
                if not more or len(more) == wanted and streams[number].way == "leaves":
                    del there[reader]
                    os.close(reader)
    finally:
        _close(there)
    return texts


def _close(ends):
    for end in ends:
        if end is not None:
            os.close(end)


def _be_the_child(here, job, streams, readers, writers, without_input):
    """Begin as Python does with such streams, do the job, and end as Python does."""
    code = 99
    try:
        _close(readers)
        for number, writer in enumerate((None if without_input else os.open(os.devnull, os.O_RDONLY), *writers)):
            if writer is None:
                os.close(number)
            else:
                os.dup2(writer, number)
        sys.stdin = sys.__stdin__ = None if without_input else open(0, closefd=False)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = _stream(1, streams[0])
        sys.stderr = sys.__stderr__ = _stream(2, streams[1])
        logging.root.handlers.clear()  # of a test
        os.chdir(here)
        code = _ended(lambda: run_main(lambda: _do(job)))
    finally:
        os._exit(code)


def _stream(number, stream):
    if stream.way == "closed":
        return None
    return io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(number, "w", closefd=False)), *stream.encoding, line_buffering=stream.by_line
    )


def _ended(main):
    """The exit code with which Python ends after a main."""
    try:
        main()
        code = 0
    except SystemExit as stopped:
        code = stopped.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except ValueError:  # the defect
        traceback.print_exc()
        code = 1
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except OSError:
        code = 120
    return code


def _do(job):
    if isinstance(job, list):
        sys.argv = ["hiptrack", *job]
        return cli.main()
    acts, end = job
    for number, (act, text, times) in enumerate(acts):
        _act(act, text, times, f"{number}.txt")
    return _end(end)


def _act(act, text, times, name):
    if act == "flush":
        sys.stdout.flush()
    elif act == "bar":
        for _ in tqdm(range(times), disable=True):
            tqdm.write(text)
    elif act == "file":
        write_atomically(name, text.encode("utf-8", "backslashreplace") * times)
    elif act == "log":
        logging.getLogger("soak").warning("%s\n" * times, *[text] * times)
    else:
        for _ in range(times):
            print(text, file=sys.stderr if act == "error" else sys.stdout)


def _end(end):
    if end == "told":
        raise DataError("é\n: no images.", "caf\udce9")
    if end == "full disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")
    if end == "Ctrl-C":
        raise KeyboardInterrupt
    if end == "elsewhere":
        raise ReportedElsewhere("x")
    if end == "defect":
        raise ValueError("x")
    if str(end).startswith("exit"):
        sys.exit({"0": 0, "2": 2}.get(end.split()[1], "words é"))
    return end
