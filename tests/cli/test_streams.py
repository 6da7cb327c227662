"""Work is never lost to the screen: streams that are closed, full or of ASCII alone, readers that leave, names of any bytes."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
from toy import save_toy
from training_runs import toy_stages

from hiptrack.config import REPO_ROOT
from hiptrack.errors import HiptrackError
from hiptrack.extras.world.files import write_world
from hiptrack.training.run_folder import open_run

NAMES = (b"caf\xe9", b"a\n1 sequences, 5 lines, 0 problems", b"x\x1b[2J\x07", "\u202e漢".encode(), b"a\rb", b"=1+1")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A data set whose sequences have NAMES, with annotations, and a toy tracker with a branch."""
    folder = tmp_path_factory.mktemp("odd")
    write_world(str(folder / "plain"), "val", 1, 4, (160, 120), 0, sea=1.0)
    (name,) = os.listdir(folder / "plain" / "annotations")
    lines = (folder / "plain" / "annotations" / name / f"{name}.jsonl").read_text().splitlines()
    for own in map(os.fsdecode, NAMES):
        shutil.copytree(folder / "plain" / "val" / name, folder / "val" / own)
        (folder / "annotations" / own).mkdir(parents=True)
        theirs = [json.dumps({**json.loads(line), "sequence_name": own}) for line in lines]
        (folder / "annotations" / own / f"{own}.jsonl").write_text("\n".join(theirs))
    save_toy(folder / "toy.safetensors", challenge="ChallengeBranch")
    return folder


def hiptrack(*words, stdout=subprocess.PIPE, before=None, **environment):
    """The finished process of `hiptrack WORDS`, with its output as bytes. before: called in it before it starts."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO_ROOT), **environment}
    command = [sys.executable, "-m", "hiptrack", *map(str, words)]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, preexec_fn=before, env=variables, timeout=300, check=False
    )


def harmless(text):
    """Whether nothing in it steers a terminal or begins a line of its own; a progress bar's carriage return may."""
    lines = text.decode().replace("\r", "").split("\n")
    return all(line.isprintable() for line in lines) and not any(line.startswith("1 sequences, 5") for line in lines)


@pytest.fixture
def left():
    """A pipe whose reader has left."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def test_an_evaluation_that_nobody_reads_is_whole(odd, tmp_path, left):
    words = ["eval", "--checkpoint", odd / "toy.safetensors", "--root", odd, "--split", "val", "Tracker.branch=on"]
    words += ["--annotations", odd / "annotations", "--out", tmp_path / "out"]
    done = hiptrack(*words, stdout=left, PYTHONIOENCODING="ascii")
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert harmless(done.stderr) and done.stderr.isascii() and rb"caf\udce9: 4 frames in" in done.stderr
    assert b"caf\\udce9" in (tmp_path / "out" / "report.html").read_bytes()
    with open(tmp_path / "out" / "report.csv", newline="", encoding="utf-8") as file:
        rows = {row["row"] for row in csv.DictReader(file) if row["table"] == "sequence"}
    assert {"a\n1 sequences, 5 lines, 0 problems", "a\rb", "\u202e漢", "'=1+1", "caf\\udce9"} <= rows

    again = hiptrack(*words, before=lambda: os.close(2))  # all is read back; the table's names are harmless too
    assert again.returncode == 0 and harmless(again.stdout)
    assert b"\na\\n1 sequences, 5 lines, 0 problems  " in again.stdout


def test_a_ranking_that_cannot_be_printed_is_written_and_told(odd, tmp_path):
    out = os.fsencode(tmp_path) + b"/caf\xe9.csv"
    words = ["rank-hard", "--checkpoint", odd / "toy.safetensors", "--root", odd, "--split", "val", "--out"]
    with open("/dev/full", "wb") as full:
        done = hiptrack(*words, os.fsdecode(out), stdout=full)
    with open(out, newline="", encoding="utf-8") as file:
        assert csv.DictReader(file).fieldnames[0] == "sequence"
    assert done.returncode == 1 and b"What was printed could not be written (No space left on device)" in done.stderr
    assert b"Traceback" not in done.stderr and harmless(done.stderr)


def test_a_help_that_cannot_be_printed_is_told():
    with open("/dev/full", "wb") as full:
        done = hiptrack("submit-check", "--help", stdout=full)
    assert done.returncode == 1 and b"What was printed could not be written (No space left on device)" in done.stderr


def test_a_training_whose_reader_leaves_ends_whole(odd, tmp_path, left):
    (tmp_path / "train").symlink_to(odd / "val")
    (tmp_path / "annotations").symlink_to(odd / "annotations")
    run = tmp_path / "läuft"
    words = ["train", "--gin", REPO_ROOT / "tests/support/toy.gin", "--run", run, *toy_stages(tmp_path, tracker=1)]
    done = hiptrack(*words, stdout=left, before=lambda: os.close(0), PYTHONIOENCODING="ascii", PYTHONUNBUFFERED="1")
    assert done.returncode == 0, done.stderr
    assert (run / "model.safetensors").exists() and b"Traceback" not in done.stderr


def test_a_run_folder_that_tensorboard_cannot_name_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(HiptrackError, match="has a name that is no UTF-8 text; choose another with --run"):
        open_run(os.fsdecode(os.fsencode(tmp_path) + b"/run\xe9"), "auto")
    assert list(tmp_path.iterdir()) == []


def test_a_list_that_is_cut_by_its_reader_is_no_error(odd, left):
    for words in (["--help"], ["check-annotations", odd / "annotations", "--data", odd]):
        done = hiptrack(*words, stdout=left)
        assert (done.returncode, done.stderr) == (0, b"")
    shown = hiptrack("check-annotations", odd / "annotations", "--data", odd / "annotations")
    assert shown.returncode == 1 and harmless(shown.stdout)  # no frames there: a problem for each
    closed = hiptrack("trian", before=lambda: (os.close(1), os.close(2)))
    assert closed.returncode == 1
