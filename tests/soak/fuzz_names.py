"""Names of every kind: frames come in the order in which they were named, or not at all; tables and results keep the names."""

import csv
import io
import os
import shutil

from soak.fuzz_core import Folder, Tally, check_words, made, run, snapshot

from hiptrack.data.folders import FolderDataset
from hiptrack.data.listing import SYSTEM_FOLDERS
from hiptrack.errors import DataError
from hiptrack.evaluation.results import claim_folder
from hiptrack.screen import shown
from hiptrack.tables import FORMULA_STARTS, as_csv, as_latex, as_markdown, as_text
from hiptrack.taxonomy import TEN

STEMS = (
    "", "", "frame", "img_", "a b ", "(", "é", "漢字", "\udce9", "\x1b[31m", "x\ny", "\u202e", "cam2-", "2024-05-01T10.30 ", "v1.2_", "%s{}", "-", "٣",
    "=", "'", "\t",
)  # fmt: skip
ENDS = ("", "", ")", "_x", " é", "\n", "\udcff")
SUFFIXES = (".jpg", ".jpg", ".JPG", ".jpeg", ".png", ".bmp")
STRANGE = ("._1.jpg", ".hidden.png", "Thumbs.db", "notes.txt", "1.jpg.part", "desktop.ini")
NAMES = (
    "a", "10", "9", "x\n1 sequences, 5 lines, 0 problems", "\x1b[2J\x07", "\udce9\udc80", "漢", "a\rb", "=1+1", "@eadir2", "key", "a|b", "$x_1$ & %", "-rf",
    "s" * 255, "é" * 110, "report.json", "Key.JSON", " ", "~", "con", "a\\b", "\u2028", "...", "CAFÉ", "{0}", "%n", "<script>", '"', "'",
)  # fmt: skip
BOX = b"1,2,10,8\n"


def _frames(rng):
    """(names in the order of time, whether it may be that it cannot be told): numbers written in one of many ways."""
    count, first = rng.randint(1, 12), rng.choice((0, 1, 1, 8, 95, 10**9 + 7))
    numbers = list(range(first, first + count))
    stem, end, suffix = rng.choice(STEMS), rng.choice(ENDS), rng.choice(SUFFIXES)
    way = rng.choice(("padded", "plain", "plain", "fixed", "decimals", "parts", "seconds", "long"))
    if way == "padded":
        texts = [f"{number:012d}" for number in numbers]
    elif way == "fixed":
        texts = [f"{number / 30:.3f}" for number in numbers]
    elif way == "decimals":
        texts = [f"{number % 100 * 0.05:.2f}".rstrip("0") for number in numbers]
        texts = [text + "0" if text.endswith(".") else text for text in texts]
    elif way == "parts":
        texts = [f"{number // 10}.{number % 10}" for number in numbers]
    elif way == "seconds":
        texts = [f"17000000{number // 7:02d}.{number % 7 * 1_000_003}" for number in numbers]
    elif way == "long":
        texts = [f"{number:0{rng.choice((100, 180))}d}" for number in numbers]
    else:
        texts = [str(number) for number in numbers]
    names = [f"{stem}{text}{end}{suffix}" for text in texts]
    return names, way in ("decimals", "seconds", "parts") or "." in stem


def _case(rng):
    names, may_fail = _frames(rng)
    beside = rng.sample(STRANGE, rng.randint(0, 2))
    sequences = rng.sample(NAMES, rng.randint(1, 4))
    system = rng.sample([*SYSTEM_FOLDERS, "@EADIR", ".git", ".hidden"], rng.randint(0, 3))
    return tuple(names), may_fail, tuple(beside), tuple(sequences), tuple(system)


def fuzz_names(count: int, seed: int) -> Tally:
    """Each case: sequences of these names, the folders of systems beside them, and frames of those names in each."""
    with Folder() as folder:
        return run("names", made(_case), lambda case: _check(folder.path, *case), count, seed)


def _check(ground, names, may_fail, beside, sequences, system):
    root = ground / "data"
    for name in (*sequences, *system):
        (root / name).mkdir(parents=True)
        (root / name / "Thumbs.db").write_bytes(b"\0")
    for name in sequences:
        for file in (*names[::-1], *beside):
            (root / name / file).write_bytes(b"")
        (root / name / "groundtruth.txt").write_bytes(BOX * len(names))
    before = snapshot(root)
    try:
        right = _check_order(root, names, may_fail, sequences)
        assert snapshot(root) == before, "a file was changed"
        _check_results(ground / "results", sequences)
        _check_tables(sequences, names)
        return right
    finally:
        shutil.rmtree(ground)
        ground.mkdir()


def _check_order(root, names, may_fail, sequences):
    wanted = {name for name in sequences if not name.startswith(".")}
    try:
        found = FolderDataset(str(root), name="set").sequences
    except DataError as error:
        assert may_fail or not wanted, f"refused: {error}"
        check_words(error, shown(root), *(["the order of the frames cannot be told"] if wanted else []))
        return False
    assert {sequence.name for sequence in found} == wanted and len(found) == len(wanted), "other sequences"
    for sequence in found:
        told = [os.path.basename(path) for path in sequence.frames]
        assert told == list(names), f"another order: {told}"
        assert all(os.path.exists(path) for path in sequence.frames) and len(sequence.boxes_xywh) == len(names)
    return True


def _check_results(folder, sequences):
    """A folder of results takes all of the names, or says before anything is tracked which of them it cannot."""
    hard = [name for name in sequences if len(os.fsencode(name)) > 230 or name.lower() in ("key.json", "report.json")]
    try:
        claim_folder(folder, "k", sequences, TEN)
    except DataError as error:
        assert hard, f"no results: {error}"
        check_words(error, "Rename its folder")
        assert not folder.exists(), "written before it was refused"
    else:
        assert not hard and os.listdir(folder) == ["key.json"]


def _check_tables(sequences, names):
    """Each form of a table has a line for each name, and CSV gives them back."""
    columns, rows = ("name", "frame"), [[sequence, name] for sequence in sequences for name in names[:2]]
    back = list(csv.reader(io.StringIO(as_csv(columns, rows), newline="")))
    assert back == [list(columns)] + [[_quoted(cell) for cell in row] for row in rows], "CSV gives other names"
    for text, more in ((as_text(columns, rows), 1), (as_markdown(columns, rows), 2)):
        assert len(text.split("\n")) == len(rows) + more, f"other lines: {text!r}"
        assert all(line.isprintable() for line in text.split("\n")), f"unprintable: {text!r}"
    as_latex(columns, [rows])


def _quoted(cell):
    return f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell
