"""Zips that are to be handed in: in order only where an unzip and NumPy, as servers use them, get what was expected."""

import io
import random
import stat
import warnings
import zipfile
from dataclasses import replace

import numpy as np
from soak.fuzz_core import Folder, Tally, check_words, damaged, draw_damages, made, run

from hiptrack.errors import DataError
from hiptrack.evaluation.submission import FORMS, SAME_BOX, Expected, check_zip

SEQUENCES = ("a", "b c", "GOT-é", "x_001", "7")
ALIASES = ("./{}", "/{}", "{0}/", "x/{}", "../{}", "x/../{}", "__MACOSX/._{}", "{}.txt", ".{}", "{} ", "C:{}", "{}\0")
NUMBERS = (
    b"nan", b"inf", b"1_0", b"1e999", b"", b"0x1", "١".encode(), "１".encode(), b"1;2;3;4", b"1 2 3 4", b"1,2,3", b"1,2,3,4,5", b"-", b"\xff",
    b"1,2,0,4", b"1,2,-3,4", b"1,2,3,4\x0b", b"1\x0c", b"1,2,3,4\x1c1,2,3,4", b"1,2,3,4\xc2\x85", b"0", b"-1", b"1,2,3,nan", b"#1", b"1e", b"1,2,3,4,",
    b'"1"', b"1d0", b"1\r1", b"1j", b"+1,+2,+3,+4", b"1e0,2,3,4", b" 1, 2, 3, 4 ", b".5", b"5.",
)  # fmt: skip
METHODS = {
    "method": (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
    "rare method": (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA),  # not every program unpacks it
}
HARMLESS = ("none", "folders", "crlf", "method", "no last line end", "order")
CHANGES = (
    *HARMLESS, "rare method", "alias", "alias", "twice", "link", "device", "missing", "case", "backslash", "number", "number", "line", "first box", "bytes", "bytes",
    "foreign", "huge", "encrypted", "no zip",
)  # fmt: skip


def _case(rng):
    return (
        rng.choice(sorted(FORMS)),
        rng.sample(SEQUENCES, rng.randint(1, 3)),
        rng.choice(CHANGES),
        rng.randrange(2**20),
    )


def fuzz_zips(count: int, seed: int) -> Tally:
    """Each case: a sound zip of some sequences, with one change.

    TrackingNet's rule that there are 511 sequences is left out.
    """
    forms = {**FORMS, "trackingnet": replace(FORMS["trackingnet"], missing=lambda names: [])}
    with Folder() as folder:
        return run("submissions", made(_case), lambda case: _check(folder, forms, *case), count, seed)


def _check(folder, forms, server, names, change, seed):
    rng, form = random.Random(seed), forms[server]
    expected = {name: Expected(rng.randint(1, 5), tuple(rng.randint(1, 99) / 4 for _ in range(4))) for name in names}
    data = _changed(_sound(form, expected, rng), change, rng)
    path = folder.write("é\n.zip" if seed % 9 == 0 else "submission.zip", data)
    try:
        problems = check_zip(path, form, expected if seed % 4 else None)
    except DataError as error:
        assert change not in HARMLESS, f"refused: {error}"
        check_words(error, "submission.zip" if seed % 9 else r"é\n.zip")
        return False
    finally:
        folder.check()
        path.unlink()
        del folder.files[path]
    assert not (problems and change in HARMLESS), f"{change}: {problems}"
    assert all(len(line) < 2000 and line.isprintable() for line in problems), f"unreadable: {problems}"
    if problems:
        return False
    wrong = _seen_by_a_server(data, form, expected, bool(seed % 4))
    assert wrong is None, f"said to be in order, but {wrong}"
    return True


def _sound(form, expected, rng):
    """[(name in the zip, bytes)] of results in order."""
    files = []
    for name, own in expected.items():
        boxes = [own.first_xywh] + [[rng.uniform(1, 99) for _ in range(4)] for _ in range(own.frames - 1)]
        lines = {
            "_001.txt": [",".join(f"{value:.3f}" for value in box).encode() for box in boxes],
            "_time.txt": [b"%.8f" % rng.uniform(0.001, 1) for _ in boxes],
        }
        files += [(place.format(name), b"\n".join(lines[ending]) + b"\n") for ending, place in form.paths.items()]
    return files


def _changed(files, change, rng):
    """The bytes of a zip of the files with a change."""
    at = rng.randrange(len(files))
    name, content = files[at]
    lines = content.split(b"\n")
    line = rng.randrange(len(lines) - 1)
    entry, method = zipfile.ZipInfo(name), rng.choice(METHODS.get(change, [zipfile.ZIP_DEFLATED]))
    entry.external_attr = {"link": stat.S_IFLNK | 0o777, "device": stat.S_IFCHR | 0o666}.get(
        change, stat.S_IFREG | 0o644
    ) << 16
    if change == "crlf":
        content = content.replace(b"\n", b"\r\n")
    elif change == "no last line end":
        content = content.removesuffix(b"\n")
    elif change == "number":
        fields = lines[line].split(b",")
        fields[rng.randrange(len(fields))] = rng.choice(NUMBERS)
        lines[line] = b",".join(fields) if rng.random() < 0.5 else rng.choice(NUMBERS)
        content = b"\n".join(lines)
    elif change == "line":
        lines[line : line + 1] = rng.choice(([], [lines[line]] * 2, [b"", lines[line]]))
        content = b"\n".join(lines)
    elif change == "first box":
        content = b"1,1,1,1\n" + b"\n".join(lines[1:])
    elif change == "huge":
        content = rng.choice((b"1,1,1,1\n", b"\n", b"0")) * 2**21
    elif change == "case":
        entry.filename = name.swapcase()
    elif change == "backslash":
        entry.filename = name.replace("/", "\\") if "/" in name else f"x\\{name}"
    files = [*files[:at], (entry, content), *files[at + 1 :]]
    folders = sorted({f"{own.split('/')[0]}/" for own, _ in files[:at] + files[at + 1 :] if "/" in own})
    if change == "missing":
        del files[at]
    elif change == "order":
        rng.shuffle(files)
    elif change == "folders":
        files = [(own, b"") for own in folders] + files
    elif change == "alias":
        alias = rng.choice((rng.choice(ALIASES).format(name), name.replace("/", "//"), name.replace("/", "/./")))
        files.insert(rng.choice((0, len(files))), (alias, content))
    elif change == "twice":
        files.append((name, rng.choice((content, b"1,1,1,1\n", b""))))
    elif change == "foreign":
        files.append(
            (rng.choice(("readme.md", "c/", "c/c_001.txt", "\x1b[2J.txt", "a", "..", "", "é" * 999)), b"1,1,1,1\n")
        )
    return _packed(files, method, change, rng)


def _packed(files, method, change, rng):
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # of names that come again
        for entry, content in files:
            if isinstance(entry, zipfile.ZipInfo):
                archive.writestr(entry, content, method)
            elif entry.endswith("/"):
                archive.writestr(zipfile.ZipInfo(entry), b"")
            else:
                archive.writestr(zipfile.ZipInfo(entry), content, zipfile.ZIP_DEFLATED)
    data = buffer.getvalue()
    if change == "encrypted":
        return data[:6] + b"\x01" + data[7:].replace(b"PK\x01\x02\x14\x03\x14\0\0", b"PK\x01\x02\x14\x03\x14\0\x01", 1)
    if change == "no zip":
        return rng.choice((b"", data[:-30], b"PK\x05\x06" + bytes(18), b"<html>", data[len(data) // 2 :]))
    return damaged(data, draw_damages(rng, 3)) if change == "bytes" else data


def _seen_by_a_server(data, form, expected, known):
    """What is wrong with a zip for one that unpacks all of it and reads with NumPy; None where nothing is."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
        wanted = {place.format(name) for name in expected for place in form.paths.values()}
        names = [entry.filename for entry in entries]
        if (
            len(set(names)) < len(names)
            or known
            and set(names) != wanted
            or any(stat.S_ISLNK(e.external_attr >> 16) for e in entries)
        ):
            return f"it holds {names}"
        for entry in entries:
            if entry.compress_type in METHODS["rare method"]:
                return f"{entry.filename} is compressed by the method {entry.compress_type}"
            text = archive.read(entry).decode("ascii")
            columns = 1 if entry.filename.endswith("_time.txt") and "/" in entry.filename else 4
            rows = np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2)
            if (
                not np.isfinite(rows).all()
                or rows.shape[1:] != (columns,)
                or not len(rows)
                or (rows[:, -2:] <= 0).any()
            ):
                return f"{entry.filename} is {rows.tolist()}"
            own = next(
                (expected[name] for name in expected for p in form.paths.values() if p.format(name) == entry.filename),
                None,
            )
            if known and len(rows) != own.frames:
                return f"{entry.filename} has {len(rows)} lines"
            if known and columns == 4 and np.abs(rows[0] - own.first_xywh).max() > SAME_BOX:
                return f"{entry.filename} begins with {rows[0]}"
    return None
