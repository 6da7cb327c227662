"""Second round: how fast is it? Each of these steps runs alone."""

import contextlib
import json
import os
import shutil
import subprocess
import time

from common import (
    HIPTRACK,
    command,
    forget_peak,
    large_model,
    metrics,
    peak_gb,
    set_tf32,
    tell,
    timed,
    training_step,
)


def step_train_ways(args):
    """Whole training steps of B/384, 16 clips of 5 frames: what is trained, number format, layout, determinism."""
    import torch

    clips, frames, repetitions = (2, 2, 2) if args.toy else (16, 5, 4)
    every, frozen, branch = ("all",), ("history", "box_head"), ("challenge",)
    ways = [
        # trained, precision, TF32, deterministic, channels last
        (every, "bf16", "tf32", "strict", False),
        (every, "bf16", "tf32", "off", False),
        (every, "bf16", "tf32", "strict", True),
        (frozen, "bf16", "tf32", "strict", False),
        (frozen, "bf16", "tf32", "strict", True),
        (branch, "bf16", "tf32", "strict", False),
        (every, "fp32", "tf32", "strict", False),
        (frozen, "fp32", "tf32", "strict", False),
        (every, "fp32", "ieee", "strict", False),
        (frozen, "fp32", "ieee", "strict", False),
    ]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    model = large_model(args).to(args.device)
    torch.utils.deterministic.fill_uninitialized_memory = False
    for trained, precision, tf32, mode, last in ways[:3] if args.toy else ways:
        set_tf32(tf32)
        torch.use_deterministic_algorithms(mode == "strict")
        model = model.to(memory_format=torch.channels_last if last else torch.contiguous_format)
        forget_peak(args)
        try:
            step, parameters = training_step(args, model, trained, precision, clips, frames)
            optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)

            def whole(step=step, parameters=parameters, optimizer=optimizer):
                step()
                float(torch.nn.utils.clip_grad_norm_(parameters, 0.1))
                optimizer.step()
                optimizer.zero_grad()

            seconds = timed(args, whole, repetitions, 2)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            tell(trained=trained[0], precision=precision, tf32=tf32, mode=mode, raised=str(error).splitlines()[0][:150])
            continue
        row = {
            "trained": trained[0],
            "precision": precision,
            "tf32": tf32,
            "deterministic": mode,
            "channels_last": last,
        }
        tell(**row, ms=seconds * 1e3, clips_s=clips / seconds, peak_gb=peak_gb(args))
        del step, parameters, optimizer, whole


def step_track_ways(args):
    """Tracking B/384: precision, targets at once, frames in memory; kernels of a step; and ways of the readout."""
    import numpy as np
    import torch

    from hiptrack import crops
    from hiptrack.models.hiptrack import HIPTrack
    from hiptrack.tracking.memory import MemoryPolicy
    from hiptrack.tracking.tracker import Tracker

    image = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    box = np.array([600.0, 300.0, 80.0, 60.0])
    model = large_model(args) if args.toy else HIPTrack()
    repetitions = 2 if args.toy else 8
    size, factor = model.search_size, model.search_factor
    tell(crop_ms=timed(args, lambda: crops.crop(image, box, factor, size), 20) * 1e3)
    policy = MemoryPolicy(template_frames=1, early=(1,), interval=10**9, capacity=150)
    for precision in ("float32", "tf32", "bf16"):
        tracker = Tracker(model, precision=precision, memory=policy, device=args.device)
        for at_once, memory in ((1, 4), (1, 150), (8, 4), (8, 150), (32, 4)):
            if args.toy and at_once * memory > 32:
                continue
            forget_peak(args)
            targets = [tracker.start(image, box) for _ in range(at_once)]
            tracker.step(targets, [image] * at_once)
            with torch.inference_mode():
                for target in targets:
                    held = [part.clone() for part in target.memory.bank.read()]
                    for _ in range(memory - 1):
                        target.memory.bank.write(*held)

            def step(tracker=tracker, targets=targets):
                for target in targets:
                    target.box_xywh = box.copy()  # wherever random weights look
                tracker.step(targets, [image] * len(targets))

            seconds = timed(args, step, repetitions)
            row = {"precision": precision, "at_once": at_once, "in_memory": memory}
            row |= {"ms": seconds * 1e3, "frames_s": at_once / seconds, "peak_gb": peak_gb(args)}
            if args.device == "cuda":
                with contextlib.suppress(RuntimeError, AttributeError):
                    row |= kernels(step)
            tell(**row)
            del targets
        del tracker
    for tf32 in ("ieee", "tf32"):
        set_tf32(tf32)
        readouts(args, tf32)


def kernels(step):
    """Kernels that a call launches, and how long the GPU is busy with them."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        step()
        torch.cuda.synchronize()
    events = [event for event in found.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return {"kernels": len(events), "gpu_ms": sum(event.device_time for event in events) / 1e3}


def readouts(args, tf32):
    """Ways to read a memory of B/384: as the project does, one chunk for all, and the fused kernel; beside float64."""
    import torch
    import torch.nn.functional as F

    from hiptrack.models.history import readout

    places, key, value, scale = (36, 16, 24, 0.25) if args.toy else (576, 64, 384, 1 / 8)

    def plain(query, keys, values):
        affinity = torch.baddbmm(keys[:, None, :, -1], query, keys[..., :-1].transpose(1, 2))
        return (affinity * scale).softmax(-1) @ values

    def fused(query, keys, values):
        query = torch.cat((query, torch.ones_like(query[..., :1])), -1)
        query, keys = (F.pad(rows, (0, -rows.shape[-1] % 8)) for rows in (query, keys))
        return F.scaled_dot_product_attention(query[:, None], keys[:, None], values[:, None], scale=scale)[:, 0]

    def measure(frames):
        generator = torch.Generator().manual_seed(0)
        query, keys, values = (
            torch.randn(1, count * places, width, generator=generator).to(args.device)
            for count, width in ((1, key), (frames, key + 1), (frames, value))
        )
        ways = {"readout": lambda *memory: readout(*memory, scale), "plain": plain, "fused": fused}
        row = {"tf32": tf32, "in_memory": frames}
        with torch.inference_mode():
            answer = plain(query.double(), keys.double(), values.double()).float()
            for name, way in ways.items():
                try:
                    row[f"{name} off by"] = float((way(query, keys, values) - answer).abs().max())
                    row[f"{name} ms"] = timed(args, lambda way=way: way(query, keys, values), 5) * 1e3
                except (RuntimeError, TypeError) as error:
                    row[name] = str(error).splitlines()[0][:100]
        tell(**row, ok=row["readout off by"] < (1e-5 if tf32 == "ieee" else 1e-2))

    for frames in (4, 16, 144):
        measure(frames)


def step_loader(args):
    """Training of B/384's history and head on files of 1280x720: does the loader keep the GPU busy, with how many workers?"""
    for workers in (0,) if args.toy else (2, 8, 14):
        run = args.work / f"loader-{workers}"
        watch = (
            subprocess.Popen(
                ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"],
                stdout=subprocess.PIPE,
                text=True,
            )
            if args.device == "cuda"
            else None
        )
        batch, steps = (2, 3) if args.toy else (16, 22)
        values = {
            "DATA_ROOT": f"'{args.work / ('small' if args.device == 'cpu' else 'hd')}'",
            "train.initial_weights": "[]",
            "train.validation": "None",
            "train.mixed_precision": "'bf16'",
            "train.workers": workers,
            "train.log_every": 1,
            "train.pictures": 0,
            "Stage.batch": batch,
            "Stage.clips": batch * steps,
            "tracker/Stage.epochs": 1,
            "tracker/Stage.schedule": "@ConstantSchedule()",
            "tracker/Stage.keep_ratio": "None",
        }
        model = ["gin/model/hiptrack_mini.gin"] if args.toy else []
        gin = ["--gin", "experiments/hiptrack_got10k.gin", *[word for file in model for word in ("--gin", file)]]
        command(
            args,
            *HIPTRACK,
            "train",
            *gin,
            "--run",
            run,
            *[f"{name}={value}" for name, value in values.items()],
            limit=600,
        )
        busy = []
        if watch is not None:
            watch.terminate()
            busy = [int(line) for line in watch.communicate()[0].split() if line.isdigit()]
        entries = metrics(run)[1 if args.toy else 8 :]  # what the workers read ahead hides the first steps
        data, compute = (sum(entry[name] for entry in entries) / len(entries) for name in ("Time/data", "Time/compute"))
        row = {
            "workers": workers,
            "data ms": data * 1e3,
            "compute ms": compute * 1e3,
            "clips_s": batch / (data + compute),
        }
        if workers:
            row["clips_s a worker"] = row["clips_s"] / workers
        tell(**row, gpu_busy_percent=sorted(busy)[len(busy) * 3 // 4] if busy else None)
        shutil.rmtree(run, ignore_errors=True)


def step_compiled(args):
    """Tracker.compile = True: time to the first box, score maps beside the plain tracker's, milliseconds of a frame."""
    import numpy as np
    import torch

    from hiptrack.models.weights import load_model
    from hiptrack.nano import weights_path
    from hiptrack.tracking.tracker import Tracker

    model = load_model(weights_path("nano")) if args.toy else large_model(args)
    frames = 14 if args.toy else 64  # frames 1 to 10 read the template, 5, 10, 20, 40 and 60 are remembered
    rng = np.random.default_rng(0)
    video = [rng.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(4)]
    box = np.array([140.0, 100.0, 40.0, 30.0])
    maps, seconds = {}, {}
    for compiled in (False, True):
        started = time.perf_counter()
        tracker = Tracker(
            model, precision="bf16" if args.device == "cuda" else "float32", compile=compiled, device=args.device
        )
        target = tracker.start(video[0], box)
        maps[compiled], seconds[compiled] = [], []
        for frame in range(frames):
            target.box_xywh = box.copy()
            begin = time.perf_counter()
            (result,) = tracker.step([target], [video[frame % 4]])
            seconds[compiled].append(time.perf_counter() - begin)
            if isinstance(result, Exception):
                raise result
            maps[compiled].append(target.score_map.float().cpu())
            if frame == 0:
                tell(compiled=compiled, first_box_s=time.perf_counter() - started)
    off = [float((one - other).abs().max()) for one, other in zip(maps[True], maps[False])]
    largest = max(float(one.max()) for one in maps[False])
    for compiled in (False, True):
        late = sorted(seconds[compiled][frames * 2 // 3 :])
        tell(compiled=compiled, ms=late[len(late) // 2] * 1e3, slowest_of_the_last_third_ms=late[-1] * 1e3)
    counters = torch._dynamo.utils.counters["inductor"]
    row = {
        "score maps off by": max(off),
        "highest score": largest,
        "cudagraph_skips": counters.get("cudagraph_skips", 0),
    }
    tell(ok=max(off) < 0.1, **row)


def step_bench_track(args):
    """The project's own: hiptrack benchmark track."""
    json_file = args.work / "track.json"
    model = ["--checkpoint", "nano"] if args.toy else []
    cases = (
        ["--memory", 1, "--precision", "float32"]
        if args.toy
        else ["--memory", 4, 150, "--precision", "float32", "bf16"]
    )
    more = ["--repetitions", 2 if args.toy else 7, "--device", args.device, "--json", json_file]
    command(args, *HIPTRACK, "benchmark", "track", *model, *cases, *more, limit=600)
    rows(json_file)


def step_bench_train(args):
    """The project's own: hiptrack benchmark train."""
    json_file = args.work / "train.json"
    words = (
        ["--gin", "experiments/from_scratch.gin", "--clips", 2, "--frames", 2]
        if args.toy
        else ["--clips", 8, "--frames", 5]
    )
    command(args, *HIPTRACK, "benchmark", "train", *words, "--repetitions", 2, "--json", json_file, limit=600)
    rows(json_file)


def step_bench_compiled(args):
    """The project's own with --compile: it keeps a graph's output from one step to another."""
    json_file = args.work / "compiled.json"
    words = [
        *HIPTRACK,
        "benchmark",
        "track",
        "--checkpoint",
        "nano",
        "--memory",
        4,
        "--precision",
        "float32",
        "--compile",
    ]
    command(args, *words, "--repetitions", 2, "--device", args.device, "--json", json_file, limit=600)
    rows(json_file)


def rows(json_file):
    """The rows that a benchmark wrote."""
    for row in json.loads(json_file.read_text())["rows"]:
        tell(**row)
