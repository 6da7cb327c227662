"""What the steps of the GPU check have in common: the tools they run, short trainings, timing."""

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
HIPTRACK = ("-m", "hiptrack")  # the project's command, after the interpreter
SMALL = "experiments/demo.gin"  # hiptrack-nano with the branch: stages branch and finetune
LARGE = "experiments/two_stage.gin"  # B/384


def tell(**row):
    """Keep a row of what was found; `ok`: False makes the step fail."""
    row = {
        name: repr(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    with open(os.environ["ROWS"], "a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def command(args, *words, limit=100, cpu=False, check=True, **environment):
    """Run Python with some words, as in *HIPTRACK, "train"; returns (exit code, its output)."""
    environment = {**os.environ, **environment}
    if cpu or args.device == "cpu":
        environment["ACCELERATE_USE_CPU"] = "true"
    words = [sys.executable, *map(str, words)]
    print("$", " ".join(words), flush=True)
    done = subprocess.run(
        words, check=False, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit
    )
    print(done.stdout[-8000:], flush=True)
    if check and done.returncode:
        raise SystemExit(f"exit code {done.returncode}")
    return done.returncode, done.stdout


def stage_steps(args):
    """Steps of each of the two stages of a short training."""
    return 3 if args.toy else 10


def train_words(args, experiment, run, precision="fp32", steps=None, batch=8, **overrides):
    """The command line of a short two-stage training on the small synthetic data."""
    data, steps, batch = args.work / "small", steps or stage_steps(args), 2 if args.toy else batch
    values = {
        "DATA_ROOT": f"'{data}'",
        "ANNOTATIONS": f"'{data / 'annotations'}'",
        "Stage.batch": batch,
        "Stage.clips": steps * batch,
        "branch/Stage.epochs": 1,
        "finetune/Stage.epochs": 1,
        "train.mixed_precision": f"'{PRECISIONS[precision]}'",
        "train.log_every": 1,
        "train.workers": 2,
        "Validation.sequences": 1,
        **overrides,
    }
    if experiment == LARGE:
        values |= {"train.initial_weights": "[]", "train.validation": "None"}
    if values.get("train.validation") == "None":
        del values["Validation.sequences"]  # hiptrack refuses what nothing reads
    values = [f"{name}={value}" for name, value in values.items()]
    return [*HIPTRACK, "train", "--gin", experiment, "--run", run, *values]


def metrics(run):
    """The logged lines of a run."""
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def losses(run):
    """{step: Loss/total} of a run."""
    return {entry["step"]: entry["Loss/total"] for entry in metrics(run) if "Loss/total" in entry}


def set_tf32(way):
    """ieee: float32 products are float32; default: as PyTorch starts (convolutions in TF32, products not); tf32: all."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = way == "tf32"
    torch.backends.cudnn.allow_tf32 = way != "ieee"


def synchronise(args):
    import torch

    if args.device == "cuda":
        torch.cuda.synchronize()


def timed(args, task, repetitions, warm_up=3):
    """Median seconds of a call."""
    seconds = []
    for number in range(warm_up + repetitions):
        synchronise(args)
        start = time.perf_counter()
        task()
        synchronise(args)
        if number >= warm_up:
            seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]


def peak_gb(args):
    import torch

    return torch.cuda.max_memory_allocated() / 1e9 if args.device == "cuda" else 0.0


def forget_peak(args):
    import gc

    import torch

    gc.collect()
    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


class Alone:
    """What TrainingStep asks of an Accelerator, for one process."""

    num_processes, scaler = 1, None

    def __init__(self, device):
        import torch

        self.device = torch.device(device)

    def reduce(self, tensor):
        return tensor

    def no_sync(self, model):
        return contextlib.nullcontext()

    def backward(self, loss):
        loss.backward()


def large_model(args):
    """B/384 with the branch; in toy mode a small one."""
    from hiptrack.extras.benchmark.train import build_model

    return build_model(["experiments/from_scratch.gin" if args.toy else LARGE], [])


def training_step(args, model, trainable, precision, clips, frames):
    """(a call that takes forward, losses and backward of random clips, the trained parameters)."""
    import torch

    from hiptrack.extras.benchmark.train import losses_for, random_clips
    from hiptrack.training.stage import freeze_all_but
    from hiptrack.training.step import TrainingStep

    freeze_all_but(model, trainable)
    model.train()
    batch = random_clips(model, clips, frames, args.device)
    accelerator = Alone(args.device)

    def called(*inputs):
        with torch.autocast(args.device, torch.bfloat16, enabled=precision == "bf16"):
            return model(*inputs)

    losses_in = [loss for loss in losses_for(model) if loss.part != "classification" or "history" not in trainable]
    step = TrainingStep(accelerator, called, losses_in)
    return lambda: step.backward([batch]), [p for p in model.parameters() if p.requires_grad]
