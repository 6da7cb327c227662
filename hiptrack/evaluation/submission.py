"""The file one hands in to GOT-10k's server: a zip of result files, looked through before it is written.

    <seq>/<seq>_001.txt    a box a line, x,y,w,h in pixels, the first one as it was given
    <seq>/<seq>_time.txt   the seconds of each frame, all above 0

at the top of the zip, as the server expects it (GOT-10k toolkit, ExperimentGOT10k.report). Raw results are only read.
"""

import io
import math
import re
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hiptrack.errors import DataError, NotFoundError
from hiptrack.files import check_file, excerpt, read_bytes, write_atomically

SUBMISSION = "submission.zip"  # its name in a results folder
BOXES, TIMES = "_001.txt", "_time.txt"
TEST_SEQUENCE = re.compile(r"GOT-10k_Test_\d{6}")
TEST_SEQUENCES = 180
MAX_BYTES = 2**28  # of a zip, of what it unpacks to, and of a result file
SAME_BOX = 0.01  # pixels between the first box and the given one: results are rounded
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal results make equal zips


@dataclass(frozen=True)
class Expected:
    """What the data say of a sequence: its frames, and the given box xywh [4] in pixels."""

    frames: int
    first_xywh: tuple[float, float, float, float]


def expected_of(sequences):
    return {s.name: Expected(len(s), tuple(map(float, s.boxes_xywh[0]))) for s in sequences}


def write_submission(results_dir, expected, path):
    """Zip the result files of all sequences of {name: Expected}, unless they have problems.

    Raises DataError that lists them; nothing is written then.
    """
    files = {}
    for name in expected:
        for ending in (BOXES, TIMES):
            source = Path(results_dir) / name / f"{name}{ending}"
            if source.exists():  # what is missing is among the problems
                files[f"{name}/{name}{ending}"] = _read(source)
    problems = find_problems(files, expected)
    if problems:
        raise DataError(f"{results_dir} cannot be handed in: {listed(problems)}")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}.") from error


def check_zip(path, expected=None):
    """What is wrong with a zip, one line each; an empty list: nothing.

    expected: {name: Expected}; without it the sequences are taken as they are. A zip of GOT-10k test sequences
    must hold all 180 in any case. Raises NotFoundError, or DataError for what is no zip.
    """
    if not Path(path).is_file():
        raise NotFoundError(f"not found: {path} (a zip file was expected)", str(path))
    try:
        check_file(path, MAX_BYTES)
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise DataError(f"{path} would unpack to more than {MAX_BYTES} bytes, which no results are.")
            files = {entry.filename: archive.read(entry) for entry in entries}
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f"{path} cannot be read as a zip: {excerpt(str(error))}.") from error
    twice = [name for name, count in Counter(entry.filename for entry in entries).items() if count > 1]
    return [f"{excerpt(name)}: stands in the zip more than once" for name in twice] + find_problems(files, expected)


def find_problems(files, expected=None):
    """What is wrong with result files {path in the zip: bytes}, one line each, as `check_zip` takes it."""
    names = {PurePosixPath(path).parts[0] for path in files if _is_in_place(path)}
    problems = [_misplaced(path) for path in sorted(files) if not _is_in_place(path)]
    if expected is not None:
        problems += [f"{name}: no such sequence in the data" for name in sorted(names - expected.keys())]
        problems += [f"{name}: missing" for name in sorted(expected.keys() - names)]
    problems += [line for line in _missing_test_sequences(names) if line not in problems]  # the data may lack some, too
    if not names and not problems:
        problems.append("it holds no result")
    for name in sorted(names):
        problems += _sequence_problems(name, files, None if expected is None else expected.get(name))
    return problems


def listed(problems, most=20):
    more = [f"and {len(problems) - most} more"] if len(problems) > most else []
    return "".join(f"\n  {line}" for line in problems[:most] + more)


def _is_in_place(path):
    parts = PurePosixPath(path).parts
    return len(parts) == 2 and parts[1] in (parts[0] + BOXES, parts[0] + TIMES)


def _misplaced(path):
    parts = PurePosixPath(path.replace("\\", "/")).parts
    inner = "/".join(parts[-2:])
    shown = excerpt(path)
    if "\\" in path:
        return f"{shown}: folders must be separated by /"
    if len(parts) > 2 and _is_in_place(inner):
        return f"{shown}: {len(parts) - 2} folder levels too deep; {inner} was expected"
    if len(parts) == 1 and parts[0].endswith((BOXES, TIMES)):
        name = parts[0].removesuffix(BOXES).removesuffix(TIMES)
        return f"{shown}: not in its sequence's folder; {name}/{shown} was expected"
    return f"{shown}: no result file; <sequence>/<sequence>{BOXES} and <sequence>/<sequence>{TIMES} were expected"


def _missing_test_sequences(names):
    if not any(TEST_SEQUENCE.fullmatch(name) for name in names):
        return []
    test = {f"GOT-10k_Test_{number:06d}" for number in range(1, TEST_SEQUENCES + 1)}
    return [f"{name}: missing" for name in sorted(test - names)] + [
        f"{name}: no sequence of the GOT-10k test split" for name in sorted(names - test)
    ]


def _sequence_problems(name, files, expected):
    problems, counts = [], {}
    for ending, columns in ((BOXES, 4), (TIMES, 1)):
        path = f"{name}/{name}{ending}"
        if path not in files:
            problems.append(f"{path}: missing")
            continue
        rows, wrong = _parse(files[path], columns, path)
        problems += wrong
        if wrong:
            continue
        counts[ending] = len(rows)
        if expected is not None and len(rows) != expected.frames:
            problems.append(f"{path}: has {len(rows)} lines; the sequence has {expected.frames} frames")
        if not rows:
            continue
        if ending == TIMES:
            bad = [number for number, (seconds,) in enumerate(rows, 1) if seconds <= 0]
            problems += [f"{path}:{number}: the time must be above 0" for number in bad[:1]]
            continue
        bad = [number for number, box in enumerate(rows, 1) if min(box[2:]) <= 0]
        problems += [f"{path}:{number}: width and height must be above 0" for number in bad[:1]]
        if expected is not None and _distance(rows[0], expected.first_xywh) > SAME_BOX:
            given = ",".join(f"{value:g}" for value in expected.first_xywh)
            problems.append(f"{path}:1: the first box must be the given one, {given}")
    if expected is None and len(set(counts.values())) > 1:
        problems.append(f"{name}: {counts[BOXES]} boxes, but {counts[TIMES]} times")
    return problems


def _parse(content, columns, path):
    """(rows of finite numbers, what is wrong with the first line that is none)."""
    rows = []
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        try:
            row = [float(field) for field in line.split(",")]
        except ValueError:
            row = []
        if len(row) != columns or not all(map(math.isfinite, row)):
            what = "x,y,w,h: four finite numbers, separated by commas," if columns == 4 else "one finite number"
            return rows, [f"{path}:{number}: is '{excerpt(line)}'; {what} was expected"]
        rows.append(row)
    return rows, []


def _read(path):
    try:
        return read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def _distance(box, other):
    return max(abs(a - b) for a, b in zip(box, other, strict=True))
