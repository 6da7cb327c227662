"""Running experiments at toy size."""

import os
import subprocess
import sys

import gin
import torch
from accelerate.state import AcceleratorState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hiptrack import config
from hiptrack.config import REPO_ROOT
from hiptrack.models.weights import read_tensors
from hiptrack.training.log import read_metrics
from hiptrack.training.run_folder import TrainRequest
from hiptrack.training.train import Training

MANY = ("--multi_gpu", "--num_machines", "1")
TOY_MODEL = [
    "Backbone.name=vit_tiny_patch16_224",
    "Backbone.patch=8",
    "Backbone.width=32",
    "Backbone.depth=2",
    "Backbone.heads=2",
    "Backbone.template_size=32",
    "Backbone.search_size=64",
    "Backbone.elimination_blocks=(1,)",
    "Backbone.drop_path=0.1",
    "HistoricalPrompt.key_width=8",
    "HistoricalPrompt.trunk_width=8",
    "CenterHead.widths=(8,)",
]
TOY_BRANCH = ["ChallengeBranch.hidden_width=16", "ChallengeBranch.fusion_width=8"]
TOY_RUN = ["Stage.batch=4", "Stage.clips=12", "train.validation=None", "train.log_every=1", "train.workers=0"]


def toy_stages(root, **epochs):
    """Overrides that make tests/support/toy.gin a matter of seconds on the data below `root`.

    epochs: the stages to run and their lengths, by default one epoch each of all three.
    """
    epochs = epochs or {"tracker": 1, "branch": 1, "finetune": 1}
    stages = [f"{name}/Stage.epochs={number}" for name, number in epochs.items()]
    stages.append(f"train.stages=[{', '.join(f'@{name}/Stage()' for name in epochs)}]")
    return [*TOY_MODEL, *TOY_BRANCH, *TOY_RUN, *stages, f"DATA_ROOT={root}", f"ANNOTATIONS={root}/annotations"]


def run_here(files, overrides, folder, resume="auto", **options):
    """Train in this process, whatever was trained in it before; on one thread, as `launch` does, so that results are equal."""
    AcceleratorState._reset_state(reset_partial_state=True)
    config.load(files, overrides, root="train")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return Training().run(TrainRequest(folder, ("train.py",), resume, **options))
    finally:
        torch.set_num_threads(threads)
        gin.clear_config()


def same_tensors(a, b):
    """Whether two weights files hold the same, bit by bit."""
    a, b = read_tensors(a), read_tensors(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same_log(a, b):
    """Whether two runs logged the same in metrics.jsonl, the times left out."""
    a, b = read_metrics(a), read_metrics(b)
    timeless = [name for name in a if not name.startswith("Time/")]
    return a.keys() == b.keys() and all(a[name] == b[name] for name in timeless)


def tensorboard_scalars(run_dir):
    """{name: [(step, value), ...]} as TensorBoard shows it."""
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def launch(arguments, processes=1, script=None, command="train", accelerate=MANY):
    """Run `hiptrack COMMAND` as a user would, or a script of the repository; returns the finished process with its output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO_ROOT)}
    words = [*(["-m", "hiptrack", command] if script is None else [str(REPO_ROOT / script)]), *arguments]
    python = [sys.executable]
    if processes > 1 or accelerate is not MANY:
        environment["ACCELERATE_USE_CPU"] = "true"
        python += ["-m", "accelerate.commands.accelerate_cli", "launch", *accelerate, "--main_process_port", "0"]
        python += ["--num_processes", str(processes), "--mixed_precision", "no", "--dynamo_backend", "no"]
    return subprocess.run([*python, *words], env=environment, capture_output=True, text=True, timeout=300, check=False)
