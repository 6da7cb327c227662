"""First round: does it work on this device? These steps run side by side."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from common import (
    HIPTRACK,
    LARGE,
    SMALL,
    command,
    large_model,
    losses,
    metrics,
    set_tf32,
    stage_steps,
    tell,
    timed,
    train_words,
    training_step,
)


def step_machine(args):
    """Prints the machine; the imports warm the system's file cache for all that follow."""
    import torch

    from hiptrack.extras.benchmark.measure import describe_machine

    found = describe_machine()
    keep = ("processor", "cores", "memory", "gpu", "python", "torch", "torchvision", "timm", "opencv")
    tell(**{name: found[name] for name in keep}, cpus=len(os.sched_getaffinity(0)))
    if args.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        tell(
            gpu_gb=properties.total_memory / 1e9,
            capability=f"{properties.major}.{properties.minor}",
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
            nccl=".".join(map(str, torch.cuda.nccl.version())),
            tf32_matmul=torch.backends.cuda.matmul.allow_tf32,
            tf32_conv=torch.backends.cudnn.allow_tf32,
            shm_gb=shutil.disk_usage("/dev/shm").total / 1e9,
        )
        a = torch.randn(4096, 4096, device="cuda")
        for way, dtype in (("ieee", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
            set_tf32(way)
            b = a.to(dtype)
            tell(matmul=way, tflops=2 * 4096**3 / timed(args, lambda b=b: b @ b, 10) / 1e12)


def step_data(args):
    """Synthetic sequences: small ones for all, and frames of 1280x720 for the loader."""
    sets = [("small", "320x240", 6, 3, 40 if args.device == "cuda" else 16)]
    if args.device == "cuda":
        sets.append(("hd", "1280x720", 6, 0, 24))
    children = []
    for name, size, train, val, frames in sets:
        words = [*HIPTRACK, "make-synthetic", "--out", args.work / name, "--train", train, "--val", val, "--test", 0]
        words += ["--frames", frames, "--size", size]
        children.append(subprocess.Popen([sys.executable, *map(str, words)]))
    assert not any(child.wait() for child in children)


def step_golden(args):
    """The published numbers: tests/models/test_golden.py on the device, with TF32 off (the claim) and as PyTorch starts."""
    import numpy as np
    import test_golden as golden
    import torch

    from hiptrack.models.hiptrack import HIPTrack
    from hiptrack.models.prepare import prepare
    from hiptrack.models.published import load_published

    numbers = np.load(golden.DATA / "hiptrack_b384_seed0.npz")
    shapes = json.loads((golden.DATA / "state_dict_shapes.json").read_text())
    seed, worst = int(numbers["seed"]), []

    def close(ours, theirs, tolerance=golden.TOLERANCE):
        ours = ours.detach().cpu() if isinstance(ours, torch.Tensor) else ours
        difference = np.abs(np.asarray(ours, np.float64).reshape(np.shape(theirs)) - theirs).max()
        worst.append((float(difference), float(tolerance)))

    golden.close = close
    golden.prepare = lambda model, precision, compile, device: prepare(model, precision, compile, args.device)
    model = HIPTrack()
    load_published(
        model, {name: golden.fill(name, shape, dtype, seed) for name, (shape, dtype) in shapes.items()}, "golden"
    )
    model = model.eval().to(args.device)
    search = torch.stack([golden.arr(f"search{i}", (2, 3, 384, 384), seed) for i in range(5)], 1).to(args.device)
    images = golden.arr("template", (2, 3, 192, 192), seed).to(args.device), search
    golden.TEMPLATE_XYWH = golden.TEMPLATE_XYWH.to(args.device)
    golden.center_heatmap = lambda truth, side, plain=golden.center_heatmap: plain(truth, side).cpu()
    tests = {
        "training clip 1.0": lambda: golden.test_training_clip(model, numbers, images, 1.0),
        "training clip 0.7": lambda: golden.test_training_clip(model, numbers, images, 0.7),
        "tracking": lambda: golden.test_tracking(model, numbers, images),
    }
    if args.toy:
        del tests["training clip 1.0"], tests["tracking"]
    for way in ("ieee", "default"):
        set_tf32(way)
        for name, test in tests.items():
            worst.clear()
            said = ""
            try:
                test()
            except AssertionError as error:
                said = f"another token or mask: {error}"[:120]
            largest = max(worst, default=(math.inf, 0.0))
            within = all(difference <= tolerance for difference, tolerance in worst) and not said
            row = {"tf32": way, "test": name, "largest difference": largest[0], "within 1e-4": within, "said": said}
            tell(**row, **({"ok": within} if way == "ieee" else {}))


def step_repeat(args, precision):
    """Gradients of one and the same step, four times, bit by bit: PyTorch's deterministic mode on and off, B/384, all trained."""
    import warnings

    import torch

    model = large_model(args).to(args.device)
    clips, frames = (2, 2) if args.toy else (4, 3)
    step, parameters = training_step(args, model, ("all",), precision, clips, frames)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def gradients():
        torch.manual_seed(0)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        model.zero_grad()
        step()
        return [parameter.grad.clone() for parameter in parameters]

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for mode in ("off", "strict"):
        torch.use_deterministic_algorithms(mode == "strict")
        torch.utils.deterministic.fill_uninitialized_memory = False
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                rounds = [gradients() for _ in range(4)]
            except RuntimeError as error:
                tell(precision=precision, mode=mode, raised=str(error).splitlines()[0][:160], ok=mode != "strict")
                continue
        differ = [any(not torch.equal(one[i], rounds[0][i]) for one in rounds[1:]) for i in range(len(names))]
        told = sorted({str(w.message).split(". ")[0][:90] for w in caught if "determinis" in str(w.message)})
        row = {"precision": precision, "mode": mode, "parameters": len(names), "differ": sum(differ), "warned": told}
        row["first"] = next((name for name, other in zip(names, differ) if other), "")
        # `strict` is what train.deterministic = True asks for: README promises bit-equal resumed runs
        tell(**row, **({"ok": not any(differ)} if mode == "strict" else {}))


def step_train_large(args, precision):
    """20 steps of the two-stage experiment of B/384 on synthetic clips."""
    experiment = SMALL if args.toy else LARGE
    run = args.work / f"large-{precision}"
    started = time.monotonic()
    command(args, *train_words(args, experiment, run, precision, batch=4), limit=105 if args.device == "cuda" else 600)
    found = losses(run)
    finite = all(math.isfinite(value) for value in found.values())
    last = [entry for entry in metrics(run) if "Time/compute" in entry][-1]
    row = {"precision": precision, "steps": len(found), "first loss": found[min(found)], "last loss": found[max(found)]}
    row |= {"compute_ms": last["Time/compute"] * 1e3, "seconds": time.monotonic() - started}
    tell(ok=finite and len(found) == 2 * stage_steps(args), **row)
    if not args.toy:
        shutil.rmtree(run / "checkpoints", ignore_errors=True)


def step_train_small(args, precision):
    """20 steps of hiptrack-nano's two stages, validation included."""
    run = args.work / f"small-{precision}"
    command(args, *train_words(args, SMALL, run, precision), limit=600)
    found = losses(run)
    finite = all(math.isfinite(value) for value in found.values())
    scalars = {name: value for entry in metrics(run) for name, value in entry.items() if name == "Validation/AO"}
    tell(ok=finite and len(found) == 2 * stage_steps(args), precision=precision, last_loss=found[max(found)], **scalars)


def step_resume(args, precision):
    """A run that is killed in its second stage and goes on, beside one that is not: bit by bit the same?"""
    whole, killed = args.work / f"whole-{precision}", args.work / f"killed-{precision}"
    more, steps = {"train.save_steps": 2, "train.validation": "None"}, stage_steps(args)
    command(args, *train_words(args, SMALL, whole, precision, **more), limit=600)
    words = [sys.executable, *map(str, train_words(args, SMALL, killed, precision, **more))]
    environment = {**os.environ, **({"ACCELERATE_USE_CPU": "true"} if args.device == "cpu" else {})}
    child = subprocess.Popen(words, env=environment)
    while child.poll() is None and max(saved_steps(killed), default=0) <= steps:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    reached = max(saved_steps(killed), default=0)
    command(args, *train_words(args, SMALL, killed, precision, **more), limit=600)
    same = same_tensors(whole / "model.safetensors", killed / "model.safetensors")
    logged = [
        [{name: value for name, value in entry.items() if not name.startswith("Time/")} for entry in metrics(run)]
        for run in (whole, killed)
    ]
    first = next((a["step"] for a, b in zip(*logged) if a != b), None)
    in_time = steps < reached < 2 * steps  # else it had ended before it was killed
    row = {"precision": precision, "killed_after": reached, "same_weights": same, "first_step_that_differs": first}
    tell(ok=same and in_time, **row)


def same_tensors(one, other):
    """Whether two weights files hold the same tensors, bit by bit (the order of their headers' metadata is random)."""
    import torch
    from safetensors.torch import load_file

    one, other = load_file(one), load_file(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def saved_steps(run):
    """The steps of a run's checkpoints."""
    return [int(path.name.split("-")[1]) for path in (run / "checkpoints").glob("step-*")]


GLOO = """
import sys
from hiptrack import processes
processes.PATIENCE.backend = "gloo"  # NCCL refuses two processes on one GPU
from hiptrack.cli.train import main
from hiptrack.errors import run_main
run_main(main)
"""


def step_ddp(args, backend, processes):
    """DDP: one process with NCCL; two on the one GPU with gloo. Their losses beside those of a plain run."""
    if args.device == "cpu" and backend == "nccl":
        backend = "gloo"
    plain, run = args.work / f"plain-{backend}-{processes}", args.work / f"ddp-{backend}-{processes}"
    more = {"train.validation": "None"}
    command(args, *train_words(args, SMALL, plain, **more), limit=600)
    words = train_words(args, SMALL, run, **more)
    if backend == "gloo" and args.device == "cuda":
        script = args.work / "train_gloo.py"
        script.write_text(GLOO)
        words[: words.index("--gin")] = [script]
    # as torchrun starts them; torchrun itself takes --run for one of its own options
    common = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"295{processes}7"}
    if backend == "gloo":
        common["ACCELERATE_BYPASS_DEVICE_MAP"] = "true"  # else DDP's device_ids=[rank], beside one GPU
    with ThreadPoolExecutor(int(processes)) as pool:
        ranks = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(int(processes))]
        codes = pool.map(lambda rank: command(args, *words, limit=600, check=False, **rank)[0], ranks)
        assert not any(list(codes)), "a process failed"
    ours, theirs = metrics(run), metrics(plain)
    # several processes draw other dropout masks; where boxes are, the frozen tracker says alike in the first step
    name, compared = ("Loss/total", ours) if processes == "1" else ("Loss/giou", ours[:1])
    difference = max(
        abs(entry[name] - other[name]) / max(abs(other[name]), 1e-6) for entry, other in zip(compared, theirs)
    )
    finite = all(math.isfinite(entry["Loss/total"]) for entry in ours)
    row = {"backend": backend, "processes": processes, "compared": name, "largest_relative": difference}
    tell(ok=finite and len(ours) == len(theirs) and difference < 0.01, **row)


def step_use_cpu(args):
    """ACCELERATE_USE_CPU=true on a machine with a GPU: trains on the processor all the same."""
    run = args.work / "use-cpu"
    command(args, *train_words(args, SMALL, run, steps=2, **{"train.validation": "None"}), cpu=True, limit=600)
    tell(ok=len(losses(run)) == 4, steps=len(losses(run)))


def step_eval_agrees(args):
    """hiptrack-nano on a few sequences: boxes on the device beside those on the processor."""
    import numpy as np

    def boxes(name, cpu, *overrides):
        out = args.work / f"eval-{name}"
        words = [*HIPTRACK, "eval", "--checkpoint", "nano", "--root", args.work / "small", "--split", "val"]
        started = time.monotonic()
        command(args, *words, "--out", out, *overrides, cpu=cpu, limit=600)
        files = [path for path in sorted(out.glob("*/*_001.txt")) if not path.stem.endswith("time")]
        found = {path.parent.name: np.loadtxt(path, delimiter=",") for path in files}
        assert found, sorted(out.rglob("*"))[:20]
        return found, time.monotonic() - started

    ways = {
        "cpu": (True,),
        "one": (False,),
        "batch 3": (False, "evaluate.batch=3"),
        "tf32": (False, "Tracker.precision='tf32'"),
        "bf16": (False, "Tracker.precision='bf16'"),
    }
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(ways, pool.map(lambda way: boxes(way.replace(" ", ""), *ways[way]), ways)))
    reference = found["cpu"][0]
    for way in ("one", "batch 3", "tf32", "bf16"):
        far = [np.abs(found[way][0][name] - reference[name]).max(1) for name in reference]
        off = max(float(part.max()) for part in far)
        share = float(np.mean(np.concatenate(far) > 1.0))
        row = {"way": way, "largest difference px": off, "share of frames off by over 1 px": share}
        tell(**row, seconds=found[way][1], **({} if way in ("tf32", "bf16") else {"ok": share < 0.05}))
