"""Running experiments at toy size."""

import os
import subprocess
import sys

import gin
from accelerate.state import AcceleratorState

from hiptrack import config
from hiptrack.config import REPO_ROOT
from hiptrack.training.train import RunOptions, train

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


def toy_demo(root, **epochs):
    """Overrides that make experiments/demo.gin a matter of seconds on the data below `root`.

    epochs: the stages to run and their lengths, by default one epoch each of all three.
    """
    epochs = epochs or {"tracker": 1, "branch": 1, "finetune": 1}
    stages = [f"{name}/Stage.epochs={number}" for name, number in epochs.items()]
    stages.append(f"train.stages=[{', '.join(f'@{name}/Stage()' for name in epochs)}]")
    return [*TOY_MODEL, *TOY_BRANCH, *TOY_RUN, *stages, f"DATA_ROOT={root}", f"ANNOTATIONS={root}/annotations"]


def run_here(files, overrides, folder, resume="auto", dry_run=False):
    """Train in this process, whatever was trained in it before."""
    AcceleratorState._reset_state(reset_partial_state=True)
    config.load(files, overrides, root="train")
    try:
        return train(RunOptions(folder, ("train.py",), resume, dry_run))
    finally:
        gin.clear_config()


def launch(arguments, processes=1, script="tools/train.py", accelerate=("--multi_gpu", "--num_machines", "1")):
    """Run a script of the repository as a user would; returns the finished process with its output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO_ROOT)}
    command = [sys.executable, str(REPO_ROOT / script), *arguments]
    if processes > 1:
        environment["ACCELERATE_USE_CPU"] = "true"
        launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *accelerate]
        launcher += ["--num_processes", str(processes), "--mixed_precision", "no", "--dynamo_backend", "no"]
        command = [*launcher, "--main_process_port", "0", *command[1:]]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
