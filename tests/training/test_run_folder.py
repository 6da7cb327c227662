"""What a run's folder says about the run, and what is never overwritten."""

import json
import os
import platform
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import hiptrack
from hiptrack import files
from hiptrack.errors import ConfigError, DataError, HiptrackError
from hiptrack.signals import leave_marker
from hiptrack.training import run_folder
from hiptrack.training.checkpoint import prune, remove_unfinished, set_aside_after
from hiptrack.training.log import RunLog
from hiptrack.training.run_folder import (
    TrainRequest,
    default_run_dir,
    open_run,
    record,
    record_operative,
    run_lock,
)


def test_default_run_dir_is_named_after_the_experiment():
    assert default_run_dir(["/somewhere/experiments/two_stage.gin"]) == Path("runs/two_stage")
    assert default_run_dir(["a.gin", "b/small.gin"]) == Path("runs/a+small")
    with pytest.raises(ConfigError, match="--gin FILE"):
        default_run_dir([])


def test_open_run(tmp_path):
    folder = tmp_path / "runs" / "a"
    assert open_run(str(folder), "never") == folder and folder.is_dir()
    assert open_run(folder, "never") == folder
    (folder / "config.gin").write_text("")
    assert open_run(folder, "auto") == folder
    with pytest.raises(HiptrackError) as raised:
        open_run(folder, "never")
    assert str(raised.value) == (
        f"the run folder {folder} is not empty, and --resume never starts anew; continue that run with "
        "--resume auto, choose another folder with --run DIR, or move this one away."
    )
    with pytest.raises(HiptrackError, match="config.gin cannot be used: .*--run DIR"):
        open_run(folder / "config.gin", "auto")


THEIRS = ["notes.txt", ".notes.tmp", "metrics.jsonl", "checkpoints/tmp-mine/a.txt", "config.gin"]


@pytest.mark.parametrize("names", [THEIRS, [".notes.tmp"], ["versions.json"]], ids=len)
def test_a_folder_that_is_no_run_is_not_taken_for_one(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("theirs")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    first = min(Path(name).parts[0] for name in names)
    more = " and more" if len(names) > 1 else ""
    with pytest.raises(HiptrackError, match=f"is no run folder, but holds {re.escape(first)}{more}: .*--run DIR"):
        open_run(tmp_path, "auto")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_nothing_is_left_in_a_folder_that_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("theirs")
    accelerator = SimpleNamespace(is_main_process=True)
    with (
        pytest.raises(HiptrackError, match="is no run folder"),
        run_folder.run_folder(TrainRequest(tmp_path), accelerator),
    ):
        pytest.fail("it was taken")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_is_known_however_far_it_came(tmp_path):
    (tmp_path / ".lock").write_text("")
    (tmp_path / f".hiptrack-{'0' * 32}.tmp").write_text("half")
    open_run(tmp_path, "auto")
    (tmp_path / "slurm-7.out").write_text("where the launcher writes what is printed")
    open_run(tmp_path, "auto")
    leave_marker(tmp_path, "stopped while it read its data")
    open_run(tmp_path, "auto")
    (tmp_path / "config.gin").write_text("")
    open_run(tmp_path, "auto")
    record(tmp_path, "", [])
    (tmp_path / "notes.txt").write_text("on the run")
    open_run(tmp_path, "auto")
    (tmp_path / "versions.json").unlink()
    (tmp_path / "checkpoints" / "step-00000004-end").mkdir(parents=True)
    open_run(tmp_path, "auto")


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "rejected.jsonl", "checkpoints", "tensorboard"])
@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_a_link_in_a_run_folder_is_not_followed(tmp_path, name, link):
    theirs, folder = tmp_path / "theirs", tmp_path / "run"
    record(folder, "", [])
    if "." in name:
        theirs.write_text("theirs")
    elif link is os.symlink:
        (theirs / "tmp-step-00000001").mkdir(parents=True)
    else:
        pytest.skip("there is no hard link to a folder")
    link(theirs, folder / name)
    kept = sorted(theirs.rglob("*")) if theirs.is_dir() else theirs.read_text()
    words = f"{re.escape(name)} is a (hard )?link, and .* would be changed"
    with pytest.raises(HiptrackError, match=words), run_lock(folder):
        open_run(folder, "auto")
    assert kept == (sorted(theirs.rglob("*")) if theirs.is_dir() else theirs.read_text())


def test_only_checkpoints_of_a_run_s_own_making_are_deleted_or_set_aside(tmp_path):
    theirs = ["tmp-mine", "tmp-step-12", "step-notes", "step-00000009-mine", "tmp-step-00000001.bak"]
    for name in (*theirs, "tmp-step-00000001", "tmp-step-00000002-end", "step-00000001", "step-00000002"):
        (tmp_path / name).mkdir()
    remove_unfinished(tmp_path)
    set_aside_after(tmp_path, "")
    prune(tmp_path, 1, None)
    kept = ["abandoned-step-00000001", "abandoned-step-00000002"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*theirs, *kept])


def test_the_lock_removes_only_a_folder_that_it_made(tmp_path):
    (tmp_path / "theirs").mkdir()
    for folder in (tmp_path / "theirs", tmp_path / "new"):
        with run_lock(folder):
            assert (folder / ".lock").read_text().startswith("process ")
    assert list(tmp_path.rglob("*")) == [tmp_path / "theirs"]


def test_record(tmp_path):
    record(tmp_path, "Stage.epochs = 1\n", ["tools/train.py", "--gin", "a b.gin"])
    assert (tmp_path / "config.gin").read_text() == "Stage.epochs = 1\n"
    assert (tmp_path / "command.txt").read_text() == "tools/train.py --gin 'a b.gin'\n"
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert (versions["hiptrack"], versions["python"]) == (hiptrack.__version__, platform.python_version())
    assert all(versions[name] for name in ("torch", "accelerate", "timm", "gin", "numpy", "cv2", "platform"))
    assert versions["gin"] == "0.5.0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["command.txt", "config.gin", "versions.json"]


def test_record_of_a_later_start_keeps_the_first(tmp_path):
    record(tmp_path, "one\n", ["train", "1"])
    record(tmp_path, "one\n", ["train", "2"])
    assert (tmp_path / "command.txt").read_text() == "train 1\ntrain 2\n"
    assert not (tmp_path / "config-2.gin").exists() and not (tmp_path / "versions-2.json").exists()
    for text in ("two\n", "two\n", "one\n"):
        record(tmp_path, text, ["train"])
    written = {path.name: path.read_text() for path in tmp_path.glob("config*")}
    assert written == {"config.gin": "one\n", "config-2.gin": "two\n", "config-3.gin": "one\n"}


def test_a_record_that_is_no_text_stays_and_the_run_goes_on(tmp_path):
    for name in ("config.gin", "versions.json", "command.txt"):
        (tmp_path / name).write_bytes(b'\xff"hiptrack"\n')
    open_run(tmp_path, "auto")
    record(tmp_path, "one\n", ["train", "\udcff"])
    assert (tmp_path / "config.gin").read_bytes() == b'\xff"hiptrack"\n'
    assert (tmp_path / "config-2.gin").read_text() == "one\n" and (tmp_path / "versions-2.json").exists()
    assert (tmp_path / "command.txt").read_bytes() == b"\xff\"hiptrack\"\ntrain '\\udcff'\n"


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    os.mkfifo(tmp_path / "command.txt")
    with pytest.raises(HiptrackError, match=r"command\.txt cannot be read: not a regular file"):
        record(tmp_path, "one\n", ["train"])


@pytest.mark.parametrize("line", ['{"Loss/total": 1}', "[1]", '{"step": 1, "IoU": "x"}', "[" * 9999, "x" * 2**20])
def test_a_damaged_log_is_named_where_a_run_goes_on(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "IoU": NaN}}\n{line}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: (no JSON object|longer than)"):
        RunLog(tmp_path, 1, {"metrics.jsonl": 2**30})


def test_commit_and_local_changes(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def recorded(name):
        folder = open_run(tmp_path / "runs" / name, "never")
        record(folder, "", [])
        versions = json.loads((folder / "versions.json").read_text())
        return versions["git_commit"], versions["git_dirty"]

    monkeypatch.setattr(run_folder, "REPO_ROOT", tmp_path)
    assert recorded("outside a checkout") == (None, None)
    git("init", "-q")
    (tmp_path / ".gitignore").write_text("runs/\n")
    git("add", ".gitignore")
    git("commit", "-q", "-m", "one")
    assert recorded("clean") == (git("rev-parse", "HEAD"), False)
    (tmp_path / "new.py").write_text("")
    assert recorded("changed") == (git("rev-parse", "HEAD"), True)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    record_operative(tmp_path, "warmup", "old\n")

    def fail(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        record_operative(tmp_path, "warmup", "new\n")
    assert (tmp_path / "operative-warmup.gin").read_text() == "old\n"


def test_operative_record_of_each_stage(tmp_path):
    record_operative(tmp_path, "warmup", "a\n")
    record_operative(tmp_path, "big/finetune", "b\n")
    assert (tmp_path / "operative-warmup.gin").read_text() == "a\n"
    assert (tmp_path / "operative-big-finetune.gin").read_text() == "b\n"
