"""Handing in: the zip is what the server expects, or it is not written."""

import io
import shutil
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pandas
import pytest
from toy import save_toy

from hiptrack.cli import submit_check
from hiptrack.config import REPO_ROOT
from hiptrack.data.folders import FolderDataset
from hiptrack.errors import DataError, NotFoundError
from hiptrack.evaluation import submission
from hiptrack.evaluation.results import SequenceResult, write_result
from hiptrack.evaluation.submission import FORMS, Expected, check_zip, expected_of, find_problems, write_submission

GOT10K, TRACKINGNET = FORMS["got10k"], FORMS["trackingnet"]
EXPECTED = {"a": Expected(3, (1.0, 2.0, 30.0, 40.5)), "b": Expected(2, (5.0, 6.0, 7.0, 8.0))}


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    for name, expected in EXPECTED.items():
        boxes = np.array([expected.first_xywh] + [[3.1, 4.2, 10.0, 11.0]] * (expected.frames - 1))
        seconds = np.full(expected.frames, 0.01)
        write_result(folder, SequenceResult(name, boxes, seconds, 1.0, np.ones(expected.frames), None, (64, 48)))
    return folder


def accepted_by_the_servers_rules(path, expected):
    """Written from the toolkit's documentation alone: two comma-separated text files a sequence, at the top of the zip.

    expected: {name: (frames, first box xywh)}.
    """
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        for folder in {name.split("/")[0] for name in names}:
            boxes = np.loadtxt(io.BytesIO(archive.read(f"{folder}/{folder}_001.txt")), delimiter=",", ndmin=2)
            times = np.loadtxt(io.BytesIO(archive.read(f"{folder}/{folder}_time.txt")), delimiter=",", ndmin=2)
            frames, first_xywh = expected[folder]
            assert boxes.shape == (frames, 4) and times.shape == (frames, 1)
            assert np.isfinite(boxes).all() and (boxes[:, 2:] > 0).all() and (times > 0).all()
            assert np.abs(boxes[0] - first_xywh).max() < 1e-3
        assert len(names) == 2 * len(expected)


def test_a_zip_of_good_results_passes_and_is_the_same_each_time(results, tmp_path):
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    for name in ("one.zip", "two.zip"):
        write_submission(results, EXPECTED, tmp_path / name, GOT10K)
    accepted_by_the_servers_rules(tmp_path / "one.zip", {"a": (3, (1, 2, 30, 40.5)), "b": (2, (5, 6, 7, 8))})
    assert check_zip(tmp_path / "one.zip", GOT10K, EXPECTED) == [] and check_zip(tmp_path / "one.zip", GOT10K) == []
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert before == {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}  # raw results stay


def spoilt(results, name, old, new):
    path = results / name[0] / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    "name, old, new, words",
    [
        ("a_001.txt", "3.100,4.200", "3.100\t4.200", "a/a_001.txt:2: is '3.100\\t4.200,10.000,11.000'; x,y,w,h: four"),
        ("a_001.txt", "10.000", "nan", "a/a_001.txt:2: is '3.100,4.200,nan,11.000'; x,y,w,h: four finite numbers"),
        ("a_001.txt", "10.000", "0", "a/a_001.txt:2: width and height must be above 0"),
        ("a_001.txt", "1.000,", "1.500,", "a/a_001.txt:1: the first box must be the given one, 1,2,30,40.5"),
        ("b_001.txt", "5.000,6.000,7.000,8.000\n", "", "b/b_001.txt: has 1 lines; the sequence has 2 frames"),
        ("b_time.txt", "0.01", "0.00", "b/b_time.txt:1: the time must be above 0"),
        ("b_time.txt", "0.01", "fast", "b/b_time.txt:1: is 'fast000000'; one finite number was expected"),
    ],
)
def test_results_that_would_be_rejected_are_named_and_nothing_is_written(results, tmp_path, name, old, new, words):
    spoilt(results, name, old, new)
    with pytest.raises(DataError) as raised:
        write_submission(results, EXPECTED, tmp_path / "out.zip", GOT10K)
    assert words in str(raised.value)
    assert not (tmp_path / "out.zip").exists()


def test_a_missing_file_and_a_missing_sequence_are_named(results, tmp_path):
    (results / "a" / "a_time.txt").unlink()
    for path in (results / "b").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"\n  b: missing\n  a/a_time.txt: missing"):
        write_submission(results, EXPECTED, tmp_path / "out.zip", GOT10K)


GOOD = {"a/a_001.txt": b"1,2,3,4\n", "a/a_time.txt": b"0.1\n"}


@pytest.mark.parametrize(
    "path, words",
    [
        ("tracker/a/a_001.txt", "1 folder levels too deep; a/a_001.txt was expected"),
        ("a_001.txt", "not in its sequence's folder; a/a_001.txt was expected"),
        ("a\\a_001.txt", "folders must be separated by /"),
        ("a//a_001.txt", "written in another way than a/a_001.txt"),
        ("./a/a_001.txt", "written in another way than a/a_001.txt"),
        ("a/./a_001.txt", "written in another way than a/a_001.txt"),
        ("/a/a_001.txt", "folder levels too deep; a/a_001.txt was expected"),
        ("../.._001.txt", "no result file"),
        ("./._001.txt", "no result file"),
        ("a\n/a\n_001.txt", "no result file"),
        ("", "no result file"),
        ("__MACOSX/._a", "no result file; <sequence>/<sequence>_001.txt"),
        ("a/b_001.txt", "no result file"),
    ],
)
def test_files_at_the_wrong_place(path, words):
    problems = find_problems({**GOOD, path: b"1,2,3,4\n"}, GOT10K)
    assert len(problems) == 1 and words in problems[0]


def test_sequences_are_checked_against_the_data_or_the_test_split():
    assert find_problems(GOOD, GOT10K) == []
    assert find_problems({}, GOT10K) == ["it holds no result"]
    assert find_problems(GOOD, GOT10K, {"c": Expected(1, (1, 2, 3, 4))})[:2] == [
        "a: no such sequence in the data",
        "c: missing",
    ]
    one = {"GOT-10k_Test_000007/GOT-10k_Test_000007_001.txt": b"1,2,3,4\n"}
    one["GOT-10k_Test_000007/GOT-10k_Test_000007_time.txt"] = b"0.1\n"
    problems = find_problems(one, GOT10K)
    assert len(problems) == 179 and problems[0] == "GOT-10k_Test_000001: missing"
    data = {f"GOT-10k_Test_{number:06d}": Expected(1, (1, 2, 3, 4)) for number in (7, 8)}  # half a download
    assert (
        find_problems(one, GOT10K, data)[0] == "GOT-10k_Test_000008: missing"
        and len(find_problems(one, GOT10K, data)) == 179
    )


def test_the_test_split_in_wrong_case_is_none():
    names = [f"got-10k_test_{number:06d}" for number in range(1, 181)]
    files = {f"{name}/{name}_001.txt": b"1,2,3,4\n" for name in names}
    problems = find_problems({**files, **{f"{name}/{name}_time.txt": b"1\n" for name in names}}, GOT10K)
    assert problems[0] == "GOT-10k_Test_000001: missing" and len(problems) == 360
    assert problems[-1] == "got-10k_test_000180: no sequence of the GOT-10k test split"


@pytest.mark.parametrize("line", ["1,2,3,4", " 1, 2.,.3 ,4e0", "+1,-2,3,4", "1,2,3,4\r"])
def test_boxes_as_the_servers_read_them(line):
    for form, path in ((GOT10K, "a/a_001.txt"), (TRACKINGNET, "a.txt")):
        files = {**GOOD, path: f"{line}\n".encode()} if form is GOT10K else {path: f"{line}\n".encode()}
        assert not [problem for problem in find_problems(files, form) if "a.txt:" in problem or "a/" in problem]


@pytest.mark.parametrize(
    "text",
    [
        "1_0,2,3,4",
        "\u0661,2,3,4",
        "\uff11,2,3,4",
        "1,2,3,4\x0b1,2,3,4",
        "1,2,3,4\x85",
        "1,2,3,4\u2028",
        "1,2,3,4\r1,2,3,4",
        "0x1,2,3,4",
        "1,2,3,1e999",
        "1,2,3,inf",
        "\t1,2,3,4",
        "\ufeff1,2,3,4",
        "1,2,3,4\n\n",
        "\n1,2,3,4",
        "1,2,3,4,",
        ",",
    ],
)
def test_numbers_and_line_ends_that_a_server_may_read_otherwise_are_refused(text):
    for form, path in ((GOT10K, "a/a_001.txt"), (TRACKINGNET, "a.txt")):
        problems = find_problems({path: f"{text}\n".encode()}, form)
        assert any("four finite numbers, separated by commas, was expected" in problem for problem in problems)
        assert all(problem.isprintable() for problem in problems)


def test_files_of_unequal_length_are_named_without_data_too():
    assert find_problems({**GOOD, "a/a_time.txt": b"0.1\n0.1\n"}, GOT10K) == ["a: 1 boxes, but 2 times"]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + bytes(50)])
def test_what_is_no_zip_is_an_error(tmp_path, content):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a zip"):
        check_zip(path, GOT10K)
    with pytest.raises(NotFoundError):
        check_zip(tmp_path / "absent.zip", GOT10K)


def test_a_zip_that_unpacks_to_too_much_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/a_001.txt", bytes(2**28 + 1))
    with pytest.raises(DataError, match="would unpack to more than"):
        check_zip(tmp_path / "bomb.zip", GOT10K)


def zipped(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_file_of_millions_of_rows_is_refused_in_little_memory(tmp_path):
    rows, larger = zipped(tmp_path / "rows.zip", {"a.txt": b"1,2,3,4\n" * 10**6}), {"a.txt": b"\n" * (2**24 + 1)}
    tracemalloc.start()
    try:
        (problem, _) = check_zip(rows, TRACKINGNET)[::-1]
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert problem == "a.txt: has more than 100000 lines, which no sequence has frames"
    assert "it unpacks to 16777217 bytes" in check_zip(zipped(tmp_path / "large.zip", larger), TRACKINGNET)[-1]


def test_files_are_unpacked_one_after_the_other(tmp_path):
    path = zipped(tmp_path / "x.zip", {f"{number}.txt": b"1,2,3,4" + b" " * 2**23 for number in range(8)})
    tracemalloc.start()
    try:
        assert len(check_zip(path, TRACKINGNET)) == 1
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_an_empty_file_is_no_result():
    assert find_problems({"a/a_001.txt": b"", "a/a_time.txt": b""}, GOT10K) == [
        "a/a_001.txt: is empty",
        "a/a_time.txt: is empty",
    ]
    assert "a.txt: is empty" in find_problems({"a.txt": b""}, TRACKINGNET, {"a": Expected(1, (1, 2, 3, 4))})


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_method_that_few_programs_unpack_is_refused(tmp_path, method):
    problems = check_zip(zipped(tmp_path / "x.zip", GOOD, method), GOT10K)
    assert len(problems) == 2 and all("deflate (8) was expected" in problem for problem in problems)
    assert check_zip(zipped(tmp_path / "x.zip", GOOD, zipfile.ZIP_STORED), GOT10K) == []


def test_a_damaged_member_is_named(tmp_path):
    path = zipped(tmp_path / "x.zip", {**GOOD, "a/a_001.txt": b"1,2,3,4\n" * 100})
    data = bytearray(path.read_bytes())
    data[45:50] = b"\xff" * 5
    path.write_bytes(data)
    (problem,) = check_zip(path, GOT10K)
    assert problem.startswith("a/a_001.txt: it cannot be unpacked (")


def test_what_is_no_plain_file_is_named(tmp_path):
    link = zipfile.ZipInfo("a/a_001.txt")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    files = {link: "/etc/passwd", "a/a_time.txt": b"0.1\n", "a/": b"", "b/": b"", "../": b""}
    assert check_zip(zipped(tmp_path / "x.zip", files), GOT10K) == [
        "a/a_001.txt: a link or the like; a plain file was expected",
        "b/: no folder of a sequence in the zip",
        "../: no folder of a sequence in the zip",
        "a/a_001.txt:1: is '/etc/passwd'; x,y,w,h: four finite numbers, separated by commas, was expected",
    ]
    assert check_zip(zipped(tmp_path / "x.zip", {**GOOD, "a/": b""}), GOT10K) == []
    assert "a/: no folder of a sequence in the zip" in check_zip(tmp_path / "x.zip", TRACKINGNET)
    zipped(tmp_path / "x.zip", {zipfile.ZipInfo(""): b""})
    assert ": no result file; <sequence>.txt was expected" in check_zip(tmp_path / "x.zip", TRACKINGNET)


def test_a_file_twice_in_a_zip_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path, text in GOOD.items():
            archive.writestr(path, text)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/a_001.txt", b"1,2,3,4\n")
    assert check_zip(tmp_path / "x.zip", GOT10K) == ["a/a_001.txt: stands in the zip more than once"]


@pytest.fixture
def complete(results, monkeypatch):
    """As if TrackingNet had as many test sequences as there are results."""
    monkeypatch.setattr(submission, "TRACKINGNET_SEQUENCES", len(EXPECTED))
    return results


def test_trackingnet_gets_a_text_file_a_sequence(complete, tmp_path):
    for name in ("one.zip", "two.zip"):
        write_submission(complete, EXPECTED, tmp_path / name, TRACKINGNET)
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["a.txt", "b.txt"]
        for name, expected in EXPECTED.items():  # as the server's metrics.py reads it
            with archive.open(f"{name}.txt") as file:
                table = pandas.read_csv(file, sep=",", names=["x", "y", "w", "h"])
            assert table.shape == (expected.frames, 4) and table.loc[0].tolist() == list(expected.first_xywh)
            assert table.loc[1].tolist() == [3.1, 4.2, 10, 11]
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert check_zip(tmp_path / "one.zip", TRACKINGNET, EXPECTED) == check_zip(tmp_path / "one.zip", TRACKINGNET) == []
    assert len(check_zip(tmp_path / "one.zip", GOT10K)) == 2  # neither file is in GOT-10k's place


@pytest.mark.parametrize(
    "name, old, new, words",
    [
        ("a_001.txt", "3.100,4.200", "3.100 4.200", "a.txt:2: is '3.100 4.200,10.000,11.000'; x,y,w,h: four"),
        ("a_001.txt", "10.000", "-1", "a.txt:2: width and height must be above 0"),
        ("b_001.txt", "5.000,6.000,7.000,8.000\n", "", "b.txt: has 1 lines; the sequence has 2 frames"),
    ],
)
def test_trackingnet_results_that_are_wrong_are_named_and_nothing_is_written(complete, tmp_path, name, old, new, words):
    spoilt(complete, name, old, new)
    with pytest.raises(DataError) as raised:
        write_submission(complete, EXPECTED, tmp_path / "out.zip", TRACKINGNET)
    assert words in str(raised.value) and not (tmp_path / "out.zip").exists()


def test_a_part_of_trackingnets_test_split_is_not_handed_in(results, tmp_path):
    with pytest.raises(DataError, match="2 sequences; the test split has 511"):
        write_submission(results, EXPECTED, tmp_path / "out.zip", TRACKINGNET)
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize(
    "path, words",
    [
        ("results/b.txt", "1 folder levels too deep; b.txt was expected"),
        ("readme", "no result file; <sequence>.txt was expected"),
        ("a_time.txt", "a_time: no such sequence in the data"),
    ],
)
def test_files_at_the_wrong_place_for_trackingnet(path, words):
    problems = find_problems({"a.txt": b"1,2,3,4\n", path: b"1,2,3,4\n"}, TRACKINGNET, {"a": Expected(1, (1, 2, 3, 4))})
    assert any(words in problem for problem in problems)


def test_no_name_in_a_zip_fakes_a_line(tmp_path, monkeypatch, capsys):
    path = zipped(tmp_path / "x.zip", {**GOOD, "b\nx.zip: in order\x1b[2J": b""})
    monkeypatch.setattr(sys, "argv", ["hiptrack submit-check", str(path)])
    assert submit_check.main() == 1
    assert capsys.readouterr().out == (
        f"{path}: 1 problems:\n  b\\nx.zip: in order\\x1b[2J: no result file; <sequence>/<sequence>_001.txt and "
        "<sequence>/<sequence>_time.txt were expected\n"
    )
    odd = zipped(tmp_path / "x\x1b[2J\ny.zip", {**GOOD})
    monkeypatch.setattr(sys, "argv", ["hiptrack submit-check", str(odd)])
    assert submit_check.main() == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/x\\x1b[2J\\ny.zip: in order")


def test_the_tool_says_what_is_wrong(results, tmp_path):
    write_submission(results, EXPECTED, tmp_path / "good.zip", GOT10K)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("a/a_001.txt", b"1;2;3;4\n")
    command = [sys.executable, "-m", "hiptrack", "submit-check"]
    good, bad = (
        subprocess.run([*command, str(tmp_path / name)], capture_output=True, text=True, timeout=120, check=False)
        for name in ("good.zip", "bad.zip")
    )
    assert good.returncode == 0 and "in order" in good.stdout
    assert bad.returncode == 1 and "2 problems:\n  a/a_001.txt:1: is '1;2;3;4'; x,y,w,h: four" in bad.stdout
    assert "\n  a/a_time.txt: missing" in bad.stdout
    command += ["--dataset", "trackingnet", str(tmp_path / "good.zip")]
    other = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert other.returncode == 1 and "0 sequences; the test split has 511" in other.stdout


def test_evaluating_a_test_split_leaves_the_zip_to_hand_in_and_a_report(synthetic, tmp_path):
    root, weights = tmp_path / "data", tmp_path / "model.safetensors"
    save_toy(weights)
    shutil.copytree(synthetic / "val", root / "test")
    for path in root.glob("test/*/groundtruth.txt"):
        path.write_text(path.read_text().splitlines()[0] + "\n")
    command = [
        sys.executable,
        str(REPO_ROOT / "tools" / "eval.py"),
        "--checkpoint",
        str(weights),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        [*command, "--root", str(root), "--split", "test"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (
        check_zip(tmp_path / "out" / "submission.zip", GOT10K, expected_of(FolderDataset(str(root), "test").sequences))
        == []
    )
    given = {}
    for path in root.glob("test/*/groundtruth.txt"):
        frames = len(list(path.parent.glob("*.jpg")))
        given[path.parent.name] = frames, np.array(path.read_text().split(","), float)
    accepted_by_the_servers_rules(tmp_path / "out" / "submission.zip", given)
    assert "to hand in" in done.stdout and (tmp_path / "out" / "report.html").exists()
    assert len(list((tmp_path / "out").glob("*/*_001.txt"))) == 2
