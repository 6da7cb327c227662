"""The file one hands in to a benchmark's server: a zip of result files, looked through before it is written.

GOT-10k's server expects at the top of the zip (GOT-10k toolkit, ExperimentGOT10k.report)

    <seq>/<seq>_001.txt    a box a line, x,y,w,h in pixels, the first one as it was given
    <seq>/<seq>_time.txt   the seconds of each frame, all above 0

and TrackingNet's

    <seq>.txt              a box a line, x,y,w,h in pixels

The server runs metrics.py of github.com/SilvioGiancola/TrackingNet-devkit. It looks for a file of each sequence's name,
reads four columns separated by commas, rounds them to whole pixels and puts the given box in the place of the first. A
sequence without a file counts as lost throughout. Its author says in issue 12 there: commas, a box a line, no folder
around the files. pytracking's util_scripts/pack_trackingnet_results.py (github.com/visionml/pytracking) writes the same.

A line ends in a newline, or in carriage return and newline as on Windows: NumPy's loadtxt and pandas' read_csv, which such
servers read with, take both. Numbers are those of ASCII that both read alike. Files are stored or deflated: many
programs unpack no other method. Nothing else is taken.

Raw results are only read.
"""

import io
import math
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hiptrack.errors import DataError, NotFoundError
from hiptrack.files import check_file, excerpt, read_bytes, write_atomically

SUBMISSION = "submission.zip"  # its name in a results folder
BOXES, TIMES = "_001.txt", "_time.txt"
TEST_SEQUENCE = re.compile("GOT-10k_Test_[0-9]{6}", re.IGNORECASE)  # one in wrong case is meant to be of the test split
TEST_SEQUENCES = 180
TRACKINGNET_SEQUENCES = 511
MAX_ZIP_BYTES = 2**26
MAX_UNPACKED_BYTES = 2**28
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of compression
MAX_BYTES, MAX_LINES = 2**24, 10**5  # of a result file
NUMBER = re.compile(rb" *[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)? *")
SAME_BOX = 0.01  # pixels between the first box and the given one: results are rounded
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal results make equal zips


@dataclass(frozen=True)
class Expected:
    """What the data say of a sequence: its frames, and the given box xywh [4] in pixels."""

    frames: int
    first_xywh: tuple[float, float, float, float]


@dataclass(frozen=True)
class Form:
    """What a server takes: for each ending of a result file its path in the zip, with {0} for the sequence's name.

    place: matches such a path, and its first group the name; missing: called with the set of names to say what is missing
    of the test split, a line each.
    """

    paths: dict[str, str]
    place: re.Pattern
    missing: Callable[[set[str]], list[str]]

    @property
    def has_folders(self):
        """Whether the files of a sequence lie in a folder of its own."""
        return any("/" in place for place in self.paths.values())

    def name_of(self, path):
        """The sequence of a path in the zip, as it stands there; None where it is not in its place."""
        found = self.place.fullmatch(path)
        return found[1] if found and found[1] not in (".", "..") and found[1].isprintable() else None


def expected_of(sequences):
    return {s.name: Expected(len(s), tuple(map(float, s.boxes_xywh[0]))) for s in sequences}


def write_submission(results_dir, expected, path, form):
    """Zip the result files of all sequences of {name: Expected} in a Form, unless they have problems.

    Raises DataError that lists them; nothing is written then.
    """
    files = {}
    for name in expected:
        for ending, place in form.paths.items():
            source = Path(results_dir) / name / f"{name}{ending}"
            if source.exists():  # what is missing is among the problems
                files[place.format(name)] = _read(source)
    problems = find_problems(files, form, expected)
    if problems:
        raise DataError(f"{results_dir} cannot be handed in:", *listed(problems))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}.") from error


def check_zip(path, form, expected=None):
    """What is wrong with a zip that should have a Form, one line each; an empty list: nothing.

    expected: {name: Expected}; without it the sequences are taken as they are. A zip of GOT-10k test sequences
    must hold all 180 in any case, one for TrackingNet all 511. Raises NotFoundError, or DataError for what is no zip.
    """
    if not Path(path).is_file():
        raise NotFoundError(f"not found: {path} (a zip file was expected)", str(path))
    try:
        check_file(path, MAX_ZIP_BYTES)
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED_BYTES:
                raise DataError(f"{path} would unpack to more than {MAX_UNPACKED_BYTES} bytes, which no results are.")
            members = Members(archive)
            return _odd_members(members.entries, form) + find_problems(members, form, expected)
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as a zip: {excerpt(str(error))}.") from error


class Members(Mapping):
    """The files in a zip {path as it stands there: bytes}, each unpacked when it is asked for. entries: its ZipInfos."""

    def __init__(self, archive):
        self._archive, self.entries = archive, archive.infolist()
        self._files = {entry.orig_filename: entry for entry in self.entries if not _is_folder(entry)}

    def __iter__(self):
        return iter(self._files)

    def __len__(self):
        return len(self._files)

    def __contains__(self, path):
        return path in self._files

    def __getitem__(self, path):
        """Raises DataError for a file that cannot be unpacked, or is larger than any result."""
        entry = self._files[path]
        if entry.file_size > MAX_BYTES:
            raise DataError(f"it unpacks to {entry.file_size} bytes; the most that a result file has is {MAX_BYTES}")
        if entry.compress_type not in METHODS:
            raise DataError(
                f"it is compressed by the method {entry.compress_type}, which not every program unpacks; deflate (8) was expected"
            )
        try:
            return self._archive.read(entry)
        except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"it cannot be unpacked ({excerpt(str(error))})") from error


def _is_folder(entry):
    return entry.orig_filename.endswith("/")  # is_dir fails for one without name


def _odd_members(entries, form):
    """What is wrong with the entries of a zip whatever they hold, one line each."""
    problems = []
    for path, count in Counter(entry.orig_filename for entry in entries).items():
        if count > 1:
            problems.append(f"{excerpt(path)}: stands in the zip more than once")
    names = {form.name_of(entry.orig_filename) for entry in entries} - {None}
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)  # of what Unix made
        if kind not in (0, stat.S_IFDIR if _is_folder(entry) else stat.S_IFREG):
            problems.append(f"{excerpt(entry.orig_filename)}: a link or the like; a plain file was expected")
        if _is_folder(entry) and not (form.has_folders and entry.orig_filename[:-1] in names):
            problems.append(f"{excerpt(entry.orig_filename)}: no folder of a sequence in the zip")
    return problems


def find_problems(files, form, expected=None):
    """What is wrong with result files {path in the zip: bytes}, one line each, as `check_zip` takes it.

    They are asked for one after the other.
    """
    names = {form.name_of(path) for path in files} - {None}
    problems = [_misplaced(path, form) for path in sorted(files) if form.name_of(path) is None]
    if expected is not None:
        problems += [f"{name}: no such sequence in the data" for name in sorted(names - expected.keys())]
        problems += [f"{name}: missing" for name in sorted(expected.keys() - names)]
    told = set(problems)
    problems += [line for line in form.missing(names) if line not in told]  # the data may lack some, too
    if not names and not problems:
        problems.append("it holds no result")
    for name in sorted(names):
        problems += _sequence_problems(name, files, form, None if expected is None else expected.get(name))
    return problems


def listed(problems, most=20):
    """The first of some lines, and one that counts the others."""
    return problems[:most] + ([f"and {len(problems) - most} more"] if len(problems) > most else [])


def _misplaced(path, form):
    wanted = [place.format("<sequence>") for place in form.paths.values()]
    depth = wanted[0].count("/") + 1
    parts = PurePosixPath(path.replace("\\", "/")).parts
    inner = "/".join(parts[-depth:])
    shown = excerpt(path)
    if "\\" in path:
        return f"{shown}: folders must be separated by /"
    if len(parts) > depth and form.name_of(inner):
        return f"{shown}: {len(parts) - depth} folder levels too deep; {inner} was expected"
    if form.name_of(inner):
        return f"{shown}: written in another way than {inner}, which was expected"
    name = path.removesuffix(BOXES).removesuffix(TIMES)
    if form.name_of(f"{name}/{path}"):
        return f"{shown}: not in its sequence's folder; {name}/{shown} was expected"
    return f"{shown}: no result file; {' and '.join(wanted)} {'were' if len(wanted) > 1 else 'was'} expected"


def _missing_of_got10k(names):
    if not any(TEST_SEQUENCE.fullmatch(name) for name in names):
        return []
    test = {f"GOT-10k_Test_{number:06d}" for number in range(1, TEST_SEQUENCES + 1)}
    return [f"{name}: missing" for name in sorted(test - names)] + [
        f"{name}: no sequence of the GOT-10k test split" for name in sorted(names - test)
    ]


def _missing_of_trackingnet(names):
    if len(names) == TRACKINGNET_SEQUENCES:
        return []
    return [
        f"{len(names)} sequences; the test split has {TRACKINGNET_SEQUENCES}, and one that is missing counts as lost"
    ]


FORMS = {
    "got10k": Form(
        {BOXES: "{0}/{0}_001.txt", TIMES: "{0}/{0}_time.txt"},
        re.compile(r"([^/]+)/\1_(?:001|time)\.txt"),
        _missing_of_got10k,
    ),
    "trackingnet": Form({BOXES: "{0}.txt"}, re.compile(r"([^/]+)\.txt"), _missing_of_trackingnet),
}


def _sequence_problems(name, files, form, expected):
    problems, counts = [], {}
    for ending, place in form.paths.items():
        path, columns = place.format(name), 1 if ending == TIMES else 4
        if path not in files:
            problems.append(f"{path}: missing")
            continue
        try:
            rows, wrong = _parse(files[path], columns, path)
        except DataError as error:
            rows, wrong = [], [f"{path}: {error}"]
        problems += wrong
        if wrong:
            continue
        counts[ending] = len(rows)
        if expected is not None and len(rows) != expected.frames:
            problems.append(f"{path}: has {len(rows)} lines; the sequence has {expected.frames} frames")
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
    lines = content.removesuffix(b"\n").split(b"\n", MAX_LINES) if content else []
    if not lines:
        return [], [f"{path}: is empty"]
    if len(lines) > MAX_LINES:
        return [], [f"{path}: has more than {MAX_LINES} lines, which no sequence has frames"]
    rows = []
    for number, line in enumerate(lines, 1):
        fields = line.removesuffix(b"\r").split(b",", columns)
        row = [float(field) for field in fields if NUMBER.fullmatch(field)]
        if not len(row) == len(fields) == columns or not all(map(math.isfinite, row)):
            what = "x,y,w,h: four finite numbers, separated by commas," if columns == 4 else "one finite number"
            return rows, [f"{path}:{number}: is '{excerpt(line.decode('utf-8', 'replace'))}'; {what} was expected"]
        rows.append(row)
    return rows, []


def _read(path):
    try:
        return read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def _distance(box, other):
    return max(abs(a - b) for a, b in zip(box, other, strict=True))
