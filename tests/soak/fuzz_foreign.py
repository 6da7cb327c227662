"""Folders of runs and of results that come from elsewhere: what is not ours is left as it is, whatever links lead to it."""

import os
import shutil
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from soak.fuzz_core import Folder, Tally, damaged, draw_damages, made, run, snapshot
from soak.fuzz_folders import RESULT
from toy import toy_model

from hiptrack.errors import HiptrackError, surroundings_fault
from hiptrack.evaluation.results import claim_folder, is_finished, read_result, write_result
from hiptrack.extras.sweep.records import is_finished as is_run_finished
from hiptrack.extras.sweep.records import read_run
from hiptrack.screen import shown
from hiptrack.taxonomy import TEN
from hiptrack.training.checkpoint import Position, newest_sound, save_checkpoint
from hiptrack.training.run_folder import TrainRequest, run_folder

FOREIGN = (
    ".notes.tmp", "notes.txt", ".hiptrack-notes.tmp", "checkpoints/tmp-notes", "checkpoints/step-old/mine", "checkpoints/notes", "tensorboard/mine",
    "a/mine.txt", "a/.a_001.txt.tmp", "evaluation/mine", "checkpoints/tmp-step-1/mine", "é\n", "\udce9",
)  # fmt: skip
WAYS = ("link", "link", "link", "hard link", "dangling", "loop", "pipe", "folder", "bytes", "bytes", "empty", "absent")
JOBS = ("start", "start", "compare", "evaluate", "evaluate")


def _case(rng):
    changes = [(rng.choice(WAYS), rng.random(), draw_damages(rng, 2)) for _ in range(rng.randint(0, 2))]
    return rng.choice(JOBS), tuple(changes), tuple(rng.sample(FOREIGN, rng.randint(0, 3)))


def fuzz_foreign(count: int, seed: int) -> Tally:
    """Each case: a run's folder and one of results, changed in places, with files of others in and beside them."""
    with Folder() as folder:
        sound = folder.path / "sound"
        Run(sound / "run").start("first")
        claim_folder(sound / "results", "k", ["a", "b"], TEN)
        write_result(sound / "results", RESULT)
        return run("foreign folders", made(_case), lambda case: _check(folder.path, sound, *case), count, seed)


class Run:
    """A training in a folder as far as it writes there, without its steps."""

    def __init__(self, path):
        self.path, self.accelerator, self.model = path, Accelerator(cpu=True), toy_model()

    def start(self, command):
        with run_folder(TrainRequest(self.path), self.accelerator) as folder:
            newest, _ = newest_sound(folder.checkpoints)
            at = Position(0, 0, 1, 1) if newest else Position()
            folder.open(newest, at, {}, (command,), {"a": "b"}, chooses=True)
            folder.log.scalars(at.step + 1, {"Loss/total": 0.5})
            at.advance()
            state = {"validation": {"AO": 0.5}}
            save_checkpoint(folder.checkpoints, self.accelerator, self.model, "", None, at, state, keep=2, chooses=True)
            if folder.log.failure:
                raise folder.log.failure


def _check(ground, sound, job, changes, foreign):
    here, outside = ground / "here", ground / "outside"
    try:
        shutil.copytree(sound, here)
        shutil.copytree(sound, outside)
        folder = here / ("results" if job == "evaluate" else "run")
        _change(folder, here, outside, changes)
        mine = _add_foreign(folder, foreign)
        before = snapshot(outside), [_seen(path) for path in mine]
        told = _told(job, here)
        assert snapshot(outside) == before[0], (
            f"what links lead to was changed: {_differences(before[0], snapshot(outside))}"
        )
        assert [_seen(path) for path in mine] == before[1], "a file of someone else was changed"
        assert not told or changes or foreign, f"refused: {told}"
        return not told
    finally:
        shutil.rmtree(here, ignore_errors=True)
        shutil.rmtree(outside, ignore_errors=True)


def _differences(before, after):
    return sorted(path for path in {*before, *after} if before.get(path) != after.get(path))


def _told(job, here):
    """What the job's error tells a user, with the place; None without one."""
    try:
        _do(job, here)
    except (HiptrackError, OSError) as error:
        told = str(error) if isinstance(error, HiptrackError) else surroundings_fault(error)
        assert told and shown(here) in told, f"the place is not named: {error!r}"
        return told
    return None


def _do(job, here):
    if job == "start":
        Run(here / "run").start("second")
        assert newest_sound(here / "run" / "checkpoints")[0] is not None, "there is no checkpoint"
        assert (here / "run" / "command.txt").read_text().endswith("second\n")
    elif job == "compare":
        read_run(here / "run")
        is_run_finished(here / "run")
    else:
        claim_folder(here / "results", "k", ["a", "b"], TEN)
        if is_finished(here / "results", "a"):
            _read(here / "results")
        write_result(here / "results", RESULT)
        _read(here / "results")
    return True


def _read(folder):
    """The result of a damaged text may have other numbers, which the text then says; all of it has its form."""
    result = read_result(folder, "a", 3, RESULT.boxes_xywh[0], 10)
    text = (folder / "a" / "a_001.txt").read_text("utf-8-sig")
    assert np.array_equal(result.boxes_xywh, [[float(field) for field in line.split(",")] for line in text.split()])


def _change(folder, here, outside, changes):
    """Put something else in the place of a file or folder, after each other."""
    for way, share, bytes_changed in changes:
        paths = sorted(
            path for path in folder.rglob("*") if not path.is_symlink() and (path.is_file() or path.is_dir())
        )
        if not paths:
            return
        path = paths[int(share * len(paths))]
        twin, content = outside / path.relative_to(here), path.read_bytes() if path.is_file() else b""
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if way == "link":
            path.symlink_to(twin)
        elif way == "hard link" and twin.is_file():
            os.link(twin, path)
        elif way in ("dangling", "loop"):
            path.symlink_to(path if way == "loop" else outside / "nothing")
        elif way == "pipe":
            os.mkfifo(path)
        elif way == "folder":
            path.mkdir()
        elif way in ("bytes", "empty"):
            path.write_bytes(damaged(content, bytes_changed) if way == "bytes" else b"")


def _add_foreign(folder, names):
    """Files of someone else in the folder; those for which there is room."""
    added = []
    for path in (folder / name for name in names):
        if not _below_a_link(path, folder):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"mine")
            except OSError:
                continue
            added.append(path)
    return added


def _below_a_link(path, folder):
    return any(parent.is_symlink() for parent in path.parents if parent.is_relative_to(folder))


def _seen(path: Path):
    status = os.lstat(path)
    return path.read_bytes(), status.st_mtime_ns, status.st_ino
