"""What stands on the screen, and how a command ends whatever the screen or its surroundings do."""

import ast
import errno
import logging
import os
import pickle
import select
import threading

import gin
import pytest

from hiptrack.config import REPO_ROOT
from hiptrack.errors import DataError, NotFoundError, run_main, surroundings_fault
from hiptrack.files import encodable, encoded, write_atomically
from hiptrack.screen import Output, Record, shown
from hiptrack.tables import as_latex, as_markdown, as_text

HOSTILE = "a\n\x1b[2J\r\u202e\x85\u2028caf\udce9"
HARMLESS = "a\\n\\x1b[2J\\r\\u202e\\x85\\u2028caf\\udce9"


@gin.configurable
def writes_somewhere():
    raise OSError(errno.ENOSPC, "No space left on device", "runs/x")


def test_what_cannot_be_seen_is_shown_as_its_escape():
    assert shown(HOSTILE) == HARMLESS
    assert shown("Übung 漢字 a b\\n") == "Übung 漢字 a b\\n"
    assert shown(12) == "12"


def test_an_error_is_a_line_whatever_the_names_in_it_hold():
    error = DataError(f"{HOSTILE}: no images.", f"{HOSTILE} (2x)", "last")
    assert str(error) == f"{HARMLESS}: no images.\n  {HARMLESS} (2x)\n  last"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # as it comes out of a loader's worker
    assert str(DataError(f"again: {DataError(HOSTILE)}")) == f"again: {HARMLESS}"
    assert str(NotFoundError(f"not found: {HOSTILE}", HOSTILE)) == f"not found: {HARMLESS}"


def test_no_message_of_ours_has_a_line_end_that_is_not_a_line_of_its_own():
    """HiptrackError(message, *lines) would show it as \\n."""
    wrong = []
    for path in sorted((REPO_ROOT / "hiptrack").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "").endswith("Error"):
                texts = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant)]
                wrong += [f"{path}:{call.lineno}" for text in texts if isinstance(text, str) and "\n" in text]
    assert wrong == []


def test_a_cell_of_a_table_is_a_line():
    row = [[HOSTILE, "1"]]
    assert as_text(["name", "AO"], row).split("\n")[1] == f"{HARMLESS}   1"
    for table in (as_markdown(["name", "AO"], row), as_latex(["name", "AO"], [row])):
        assert table.replace("\n", "").isprintable() and "2J" in table


def test_names_in_a_log_are_shown():
    record = Record("hiptrack", logging.INFO, "file.py", 1, "%s failed\nat %d", (HOSTILE, 3), None)
    assert record.getMessage() == f"{HARMLESS} failed\nat 3"
    try:
        raise ValueError(f"at\n{HOSTILE}")
    except ValueError as error:
        given = ("hiptrack", logging.ERROR, "file.py", 1, "%s", ("x",), (type(error), error, error.__traceback__))
    text = logging.Formatter().format(Record(*given))
    assert text.startswith("x\nTraceback") and text.replace("\n", "").isprintable()


def test_a_stream_that_cannot_be_written_drops_what_it_gets():
    read, write = os.pipe()
    os.close(read)
    with Output(write, "w") as output:
        assert output.write(b"to nobody") == 9 and output.fault.errno == errno.EPIPE


def test_a_full_pipe_that_does_not_block_is_waited_for():
    read, write = os.pipe()
    os.set_blocking(write, False)
    with Output(write, "w") as output:
        while select.select([], [write], [], 0)[1]:
            output.write(b"x" * 2**12)
        reader = threading.Timer(0.05, os.read, (read, 2**20))
        reader.start()
        assert output.write(b"y") == 1 and output.fault is None
        reader.join()
    os.close(read)


@pytest.mark.parametrize(
    "error, words",
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"),
            "runs/x: No space left on device. Make room there,",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", b"runs/caf\xe9"),
            "runs/caf\\udce9: Read-only file system. Name a",
        ),
        (OSError(errno.EIO, "Input/output error"), "Input/output error."),
        (MemoryError(), "The memory is full, or what this process may have of it."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "The memory is full, or what"),
        (RecursionError("maximum recursion depth exceeded"), "What was read is nested too deeply"),
    ],
)
def test_a_fault_of_the_surroundings_is_a_paragraph(error, words, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    told = capsys.readouterr().err
    assert stopped.value.code == 1 and told.startswith(f"error: {words}") and told.count("\n") == 1


def test_a_fault_that_passed_through_gin_is_told_alike():
    with pytest.raises(OSError) as raised:
        writes_somewhere()
    assert raised.value.errno is None  # gin's copy
    assert surroundings_fault(raised.value).startswith("runs/x: No space left on device. Make room there,")


def test_a_defect_of_ours_is_none_of_the_surroundings():
    assert surroundings_fault(ValueError("x")) is None
    assert surroundings_fault(OSError("no number")) is None


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    for path, number in (
        (tmp_path / "file" / "x", errno.EEXIST),  # its folder is a file
        (tmp_path / "folder", errno.EISDIR),
        (tmp_path / ("x" * 256), errno.ENAMETOOLONG),
    ):
        with pytest.raises(OSError) as raised:
            write_atomically(path, b"new")
        assert raised.value.errno == number and str(raised.value.filename).startswith(str(tmp_path))
        assert ".tmp" not in str(raised.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_a_name_that_is_no_utf8_is_written_as_an_escape():
    assert encoded("caf\udce9 é") == b"caf\\udce9 \xc3\xa9"
    assert encodable("é") and not encodable("caf\udce9")
