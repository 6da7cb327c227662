"""What is killed and started again: a small training and a small evaluation, and how their results are compared."""

import json
from pathlib import Path

from toy import save_toy
from training_runs import launch, same_log, same_tensors, tensorboard_scalars, toy_stages

from hiptrack.extras.world.files import write_world
from hiptrack.signals import MARKER
from hiptrack.training.checkpoint import Checkpoint, finished_checkpoints
from hiptrack.training.log import read_metrics

STEPS = 3  # of an epoch
RUN = [f"Stage.clips={4 * STEPS}", "train.workers=1", "train.save_steps=1", "Validation.every=1"]


def prepare(ground):
    """Write what the jobs below the folder `ground` read."""
    write_world(str(ground / "clips"), "train", 3, 10, (128, 96), 0, sea=1.0)
    write_world(str(ground / "clips"), "val", 2, 6, (128, 96), 0, sea=1.0)
    write_world(str(ground / "tracked"), "val", 6, 30, (128, 96), 0, sea=1.0)
    save_toy(ground / "toy.safetensors")


class Training:
    """A run of tests/support/toy.gin over some processes, in ground/name; epochs: {stage: its length}."""

    def __init__(self, ground, name, processes, epochs):
        self.ground, self.folder, self.processes, self.epochs = ground, ground / name, processes, epochs
        self.whom = ("all", "first", "rank") if processes > 1 else ("all", "first")
        self.changes = 12 * sum(epochs.values())  # of its files, in a third of it or so

    def start(self, script=None, before=(), overrides=()):
        """Train until it ends; returns the process with its output."""
        toy = toy_stages(self.ground / "clips", **self.epochs)
        overrides = [*(o for o in toy if not o.startswith("train.validation")), *RUN, *overrides]
        arguments = [*before, "--gin", "tests/support/toy.gin", "--run", str(self.folder), *overrides]
        return launch(arguments, self.processes, script)

    def is_finished(self):
        """Whether its last result is there."""
        return (self.folder / "model.safetensors").exists()

    def moment(self):
        """What it is doing, as its files tell."""
        if list(self.folder.glob("checkpoints/tmp-*")):
            return "checkpoint"
        checkpoints = finished_checkpoints(self.folder / "checkpoints")
        if not checkpoints:
            return "first step"
        position = Checkpoint.open(checkpoints[-1]).position
        if position.epoch_step:
            return "validation" if position.epoch_step == STEPS else "step"
        return "next epoch" if position.epoch else "next stage"

    def check(self):
        """Raise AssertionError unless it is the same as an uninterrupted one, which is made where it is missing."""
        whole = Training(self.ground, f"whole-{self.processes}", self.processes, self.epochs)
        if not whole.is_finished():
            done = whole.start()
            assert done.returncode == 0, done.stderr
        require_same_run(whole.folder, self.folder)


class Evaluation:
    """hiptrack eval with random weights on six sequences, its results in ground/name."""

    whom = ("all",)
    changes = 16

    def __init__(self, ground, name):
        self.ground, self.folder = ground, ground / name
        self.finished = {}  # {box file: when it was written}, as of the latest start

    def start(self, script=None, before=()):
        """Evaluate until it ends; returns the process with its output."""
        for path in self.folder.glob("*/*_001.txt"):
            self.finished.setdefault(path, path.stat().st_mtime_ns)
        arguments = ["--checkpoint", str(self.ground / "toy.safetensors"), "--root", str(self.ground / "tracked")]
        return launch([*before, *arguments, "--split", "val", "--out", str(self.folder)], 1, script, "eval")

    def is_finished(self):
        """Whether its last result is there."""
        return (self.folder / "report.json").exists()

    def moment(self):
        """What it is doing, as its files tell."""
        return "result file" if list(self.folder.rglob(".*.tmp")) else "tracking"

    def check(self):
        """Raise AssertionError unless it is the same as an uninterrupted one, and did nothing twice."""
        whole = Evaluation(self.ground, "whole-evaluation")
        if not whole.is_finished():
            done = whole.start()
            assert done.returncode == 0, done.stderr
        boxes, expected = _box_files(self.folder), _box_files(whole.folder)
        assert boxes == expected, f"other boxes in {sorted(dict(boxes.items() ^ expected.items()))}"
        assert all(path.stat().st_mtime_ns == written for path, written in self.finished.items()), "tracked twice"
        report, expected = (json.loads((job.folder / "report.json").read_text()) for job in (self, whole))
        for name in ("overall", "success_curve", "classification"):
            assert report[name] == expected[name], f"{name}: {report[name]} instead of {expected[name]}"
        resumed = {name for name, numbers in report["sequences"].items() if numbers["resumed"]}
        assert resumed == {path.parent.name for path in self.finished}, f"read back: {sorted(resumed)}"
        assert not list(self.folder.rglob("*unfinished*")), "a finished sequence is still kept"


def _box_files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*/*_001.txt")}


def require_same_run(whole, cut):
    """Raise AssertionError unless two run folders tell of the same training, and the second holds no leftovers."""
    weights = {path.name for path in whole.glob("*.safetensors")}
    assert weights == {path.name for path in cut.glob("*.safetensors")}
    for name in sorted(weights):
        assert same_tensors(whole / name, cut / name), f"{name} differs"
    assert same_log(whole, cut), "metrics.jsonl differs"
    _require_same_curves("metrics.jsonl", read_metrics(whole), read_metrics(cut))
    _require_same_curves("TensorBoard", tensorboard_scalars(whole), tensorboard_scalars(cut))
    leftovers = [
        path.name
        for path in cut.rglob("*")
        if path.name.startswith(("tmp-", "abandoned-", MARKER)) or (path.name[0] == "." and path.suffix == ".tmp")
    ]
    assert not leftovers, f"left over: {leftovers}"


def _require_same_curves(where, expected, found):
    """Of times the steps only."""
    assert expected.keys() == found.keys(), f"{where} has other names"
    for name, curve in expected.items():
        assert [step for step, _ in found[name]] == [step for step, _ in curve], f"{where}: other steps of {name}"
        assert name.startswith("Time/") or found[name] == curve, f"{where}: other values of {name}"
