"""What a run's folder says about the run, and what is never overwritten."""

import json
import platform
import subprocess
from pathlib import Path

import pytest

import hiptrack
from hiptrack import files
from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.training import run_folder
from hiptrack.training.run_folder import default_run_dir, open_run, record, record_operative


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
