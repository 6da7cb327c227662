"""The text files of a sequence and the files of a result: read as they say, or refused with file and line."""

import io
import math
import re
import zipfile

import numpy as np
from hypothesis import strategies as st
from soak.fuzz_core import Folder, Tally, check_words, damaged, damages, made, run

from hiptrack.data.folders import FolderDataset
from hiptrack.errors import DataError
from hiptrack.evaluation.results import SequenceResult, as_written, read_result, write_result

FRAMES = 3
IMAGES = [f"{i:08d}.jpg" for i in range(1, FRAMES + 1)]
SOUND = {
    "absence.label": b"0\n0\n1\n", "cover.label": b"8\n3\n0\n", "groundtruth.txt": b"1,2,10,8\n2.5\t2\t10\t8\n0,0,0,0\n", "list.txt": b"a\n",
}  # fmt: skip
LINES = [
    "0", "1", "8", "9", "-1", " 1 ", "01", "1.0", "", "\t", "x", "1,2,3,4", "1 2 3 4", "0,0,0,0", "1,2,3", "1,2,3,4,5", "1,,3,4", "nan,1,2,3",
    "inf,1,2,3", "1e999,1,1,1", "1e6,1,1,1", "2e6,1,1,1", "1,2,-3,4", "1,2,0,4", "1_0,2,3,4", "0x1,2,3,4", "١,٢,٣,٤", "1;2;3;4", "a", "A", "b",
    "a/", "../a", "./a", "/etc", ".", "..", "a b", "\x00", "\u2028", "\x1b", "x" * 9000, "1," * 9000, "9" * 400 + ",1,1,1", "\ufeff1", "é",
]  # fmt: skip
texts = made(lambda rng: "\n".join(rng.choices(LINES, k=rng.randint(0, 4)))) | made(
    lambda rng: "\n".join(rng.choices(LINES[:14], k=3))
)
folder_cases = st.tuples(
    st.sampled_from(sorted(SOUND)),
    texts | damages(3) | st.sampled_from((b"\xff\xfe1", b"\xef\xbb\xbf", b"\r\r\r", b"\n" * 50000, b"1\r\n2\r\n3")),
)

RESULT = SequenceResult(
    name="a",
    boxes_xywh=np.array([[1, 2, 10, 8], [2.5, 2, 10, 8], [3.25, 2, 10, 8]]),
    seconds=np.array([0.1, 0.02, 0.03]),
    end_to_end_seconds=0.5,
    scores=np.array([1, 0.5, 0.25]),
    challenges=np.eye(FRAMES, 10),
    image_size=(120, 90),
    made_of="0a1b",
)
result_cases = st.tuples(st.sampled_from(("a_001.txt", "a_time.txt", "a_details.npz")), damages(3) | texts)


def fuzz_sequences(count: int, seed: int) -> Tally:
    """Each case: a data set of one sequence, one of whose text files may hold anything."""
    with Folder() as folder:
        for image in IMAGES:
            folder.write(f"a/{image}", b"")
        return run("files of a sequence", folder_cases, lambda case: _check_sequence(folder, *case), count, seed)


def fuzz_results(count: int, seed: int) -> Tally:
    """Each case: the files of one tracked sequence, one of which is damaged."""
    with Folder() as folder:
        write_result(folder.path, RESULT)
        sound = {path.name: path.read_bytes() for path in (folder.path / "a").iterdir()}
        return run("files of a result", result_cases, lambda case: _check_result(folder, sound, *case), count, seed)


def _check_sequence(folder, name, content):
    files = SOUND | {name: _content(SOUND[name], content)}
    for file, data in files.items():
        folder.write(file if file == "list.txt" else f"a/{file}", data)
    expected = _expected(files)
    try:
        (sequence,) = FolderDataset(str(folder.path), name="set").sequences
    except DataError as error:
        assert expected is None, f"refused: {error}"
        check_words(error, "data set is empty" if "is empty" in str(error) else name)
        return False
    finally:
        folder.check()
    assert expected is not None, f"taken as {sequence}"
    boxes, visible, cover = expected
    assert sequence.boxes_xywh.tolist() == boxes
    assert sequence.visible.tolist() == visible and sequence.cover.tolist() == cover
    return True


def _content(sound, content):
    if isinstance(content, list):
        return damaged(sound, content)
    return content if isinstance(content, bytes) else content.encode()


def _expected(files):
    """(boxes, visible, cover) by the words of the format; None where a file is malformed."""
    try:
        lines = {name: _lines(data) for name, data in files.items()}
        absence = [_number(line, 1) for line in lines["absence.label"]]
        cover = [_number(line, 8) for line in lines["cover.label"]]
        boxes = [_box(line) for line in lines["groundtruth.txt"]]
    except ValueError:
        return None
    named = [line.strip() for line in lines["list.txt"] if line.strip()]
    if named != ["a"] or not len(absence) == len(cover) == len(boxes) == FRAMES:
        return None
    present = [not gone and covered > 0 for gone, covered in zip(absence, cover)]
    solid = [w > 0 and h > 0 for _, _, w, h in boxes]
    if not solid[0] or any(here and not full for here, full in zip(present, solid)):
        return None
    return boxes, [here and full for here, full in zip(present, solid)], cover


def _lines(data):
    text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").rstrip()
    return text.split("\n") if text else []


def _number(line, highest):
    digit = line.strip()
    if not re.fullmatch("[0-9]", digit) or int(digit) > highest:
        raise ValueError
    return int(digit)


def _box(line):
    fields = line.split(",") if "," in line else line.split()
    if len(fields) != 4 or "_" in line:
        raise ValueError
    box = [float(field) for field in fields]
    if not all(abs(value) <= 1e6 for value in box):
        raise ValueError
    return box


def _check_result(folder, sound, name, content):
    files = sound | {name: _content(sound[name], content)}
    for file, data in files.items():
        folder.write(f"a/{file}", data)
    try:
        result = read_result(folder.path, "a", FRAMES, RESULT.boxes_xywh[0], 10)
    except DataError as error:
        check_words(error, name)
        return False
    finally:
        folder.check()
    written = as_written(RESULT)
    if name == "a_details.npz":
        assert result.scores.shape == (FRAMES,) and isinstance(result.end_to_end_seconds, float)
        assert len(result.image_size) == 2 and all(type(length) is int for length in result.image_size)
        assert result.challenges is None or result.challenges.shape == (FRAMES, 10)
        assert _unpacks_to_its_size(files[name])
    else:
        lines = [[float(field) for field in line.split(",")] for line in files[name].decode("utf-8-sig").splitlines()]
        read = result.boxes_xywh if name == "a_001.txt" else result.seconds[:, None]
        assert read.tolist() == lines and all(math.isfinite(value) for row in lines for value in row)
        assert np.array_equal(result.scores, written.scores)
    return True


def _unpacks_to_its_size(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return sum(entry.file_size for entry in archive.infolist()) <= len(data)
