"""`benchmark track`: one target, frame by frame, with so many frames in memory."""

import itertools
import multiprocessing
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from hiptrack.data.folders import FolderDataset
from hiptrack.data.reading import read_image_rgb
from hiptrack.errors import ConfigError
from hiptrack.extras.benchmark.measure import (
    build_model,
    forget_peak_memory,
    interleaved,
    peak_memory_mb,
    ratio,
    table_of,
)
from hiptrack.extras.benchmark.roofline import Ceilings, flops, record
from hiptrack.extras.world.files import write_world
from hiptrack.models.layers import tf32
from hiptrack.tables import as_text
from hiptrack.tracking.memory import MemoryPolicy
from hiptrack.tracking.tracker import Tracker

FRAME_SIZE, FRAMES = (1280, 720), 8
NEVER = 10**9  # frames between two that are remembered


@dataclass(frozen=True)
class Case:
    """A row of the table: precision, mode of the challenge branch, frames in memory."""

    precision: str
    branch: str
    memory: int

    @property
    def name(self):
        return {"precision": self.precision, "branch": self.branch, "in memory": self.memory}


def measure(args):
    """Returns (settings, rows): times interleaved in this process, each case's peak memory in one of its own."""
    if min(args.memory) < 1:
        raise ConfigError(f"--memory {min(args.memory)}: at least 1 frame was expected.")
    model, model_name = build_model(args)
    cases = [Case(*values) for values in itertools.product(args.precision, args.branch, args.memory)]
    with tempfile.TemporaryDirectory() as folder:
        sequence = _sequence(folder)
        peaks = {case: _in_a_process(_peak_memory, args, case, folder) for case in cases}
        modes = dict.fromkeys((case.precision, case.branch) for case in cases)
        trackers = {mode: _tracker(args, model, *mode) for mode in modes}
        del model
        subjects = {case: Subject(trackers[case.precision, case.branch], case.memory, sequence) for case in cases}
        device = trackers[next(iter(modes))].device
        synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        tasks = {
            (case, what): getattr(subjects[case], what) for case in cases for what in ("step", "frame", "remember")
        }
        timings = interleaved(tasks, args.repetitions, warm_up=2, synchronise=synchronise)
        work = {(case, what): record(getattr(subjects[case], what)) for case in cases for what in ("step", "remember")}
    ceilings = {}
    for precision in dict.fromkeys(args.precision):
        parts = set(itertools.chain.from_iterable(work[key] for key in work if key[0].precision == precision))
        with tf32(precision == "tf32", device):
            ceilings[precision] = Ceilings(parts, args.repetitions, device, synchronise)
    rows = []
    for case in cases:
        step, whole, remember = (timings[case, what] for what in ("step", "frame", "remember"))
        ceiling, needed = ceilings[case.precision], work[case, "step"]
        best = ceiling.estimate(needed)
        rows.append(
            {
                **case.name,
                "GMAC": flops(needed) / 2e9,
                "model ms p50": step.ms(50),
                "model ms p95": step.ms(95),
                "end to end ms p50": whole.ms(50),
                "end to end ms p95": whole.ms(95),
                "remembering ms": remember.ms(50),
                "roofline ms": best * 1e3,
                "of roofline": best / step.median,
                "of plain": ceiling.estimate(needed, plain=True) / step.median,
                "peak MB": peaks[case],
            }
        )
    if args.shapes:
        for precision, ceiling in ceilings.items():
            steps = (work[case, "step"] for case in cases if case.precision == precision)
            print(f"{precision}:\n{as_text(*table_of(list(ceiling.rows(sum(steps, Counter())))))}", end="\n\n")
    settings = {
        "model": model_name,
        "frames": "{} x {} JPEG".format(*FRAME_SIZE),
        "compile": args.compile,
        "repetitions": args.repetitions,
    }
    return settings | _comparisons(cases, timings, work, ceilings), rows


class Subject:
    """A tracker with a target whose memory is full, and what is timed of it."""

    def __init__(self, tracker, memory, sequence):
        """memory: frames in it."""
        self.tracker = tracker
        self.paths = itertools.cycle(sequence.frames)
        self.first_box = sequence.boxes_xywh[0]
        first = read_image_rgb(next(self.paths))
        self.target = self.tracker.start(first, self.first_box)
        self.tracker.step([self.target], [first])
        bank, model = self.target.memory.bank, tracker.model
        crop = torch.randint(0, 256, (1, 3, model.search_size, model.search_size), dtype=torch.uint8)
        with torch.inference_mode():
            keys, values = (part.clone() for part in bank.read())
            for _ in range(memory - 1):  # the one frame again and again: its values are as good as any
                bank.write(keys, values)
            self.search = model.normalise(crop.to(self.tracker.device))
            with self.tracker.computing():
                self.features = self._backbone().rows([0])  # a copy: compiled graphs write over what they returned
        self.box = torch.tensor([[0.5, 0.5, 0.2, 0.2]], device=self.tracker.device)

    def _backbone(self):
        boxes = self.target.memory.template_box_xywh
        return self.tracker.model.backbone(self.target.template_tokens, self.search, boxes)

    @torch.inference_mode()
    def step(self):
        use_challenge = self.tracker.branch == "on"
        with self.tracker.computing():
            return self.tracker.model.predict(self._backbone(), [self.target.memory.bank.read()], use_challenge)

    @torch.inference_mode()
    def remember(self):
        """What a remembered frame costs beside it."""
        with self.tracker.computing():
            return self.tracker.model.frame_memory(self.search, self.features, self.box)

    def frame(self):
        """All of a frame: decode, crop, network, box."""
        self.target.box_xywh = self.first_box.copy()  # crops of the same size, wherever random weights look
        return self.tracker.step([self.target], [read_image_rgb(next(self.paths))])


def _tracker(args, model, precision, branch):
    policy = MemoryPolicy(template_frames=1, early=(1,), interval=NEVER, capacity=max(args.memory))
    return Tracker(model, branch=branch, memory=policy, precision=precision, compile=args.compile, device=args.device)


def _sequence(folder):
    if not (Path(folder) / "val").is_dir():
        write_world(folder, "val", 1, FRAMES, FRAME_SIZE, 0, sea=1.0)
    return FolderDataset(folder, "val").sequences[0]


def _in_a_process(function, *arguments):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _peak_memory(args, case, folder):
    """Largest memory in MB (on a GPU: its own) of a process while it tracks a few frames, its tracker made."""
    if args.threads:
        torch.set_num_threads(args.threads)
    model, _ = build_model(args)
    tracker = _tracker(args, model, case.precision, case.branch)
    del model
    forget_peak_memory()
    if tracker.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    subject = Subject(tracker, case.memory, _sequence(folder))
    for _ in range(3):
        subject.frame()
    return torch.cuda.max_memory_allocated() / 1e6 if subject.tracker.device.type == "cuda" else peak_memory_mb()


def _comparisons(cases, timings, work, ceilings):
    """What the table is made for: the cost of a long memory, and bfloat16 against float32, pair by pair."""
    found = {}
    for case in cases:
        short = Case(case.precision, case.branch, 4)
        if case.memory > 4 and short in cases:
            value = ratio(timings[case, "step"], timings[short, "step"])
            found[f"{case.precision}, {case.memory} in memory / 4"] = value
        exact = Case("float32", case.branch, case.memory)
        if case.precision == "bf16" and exact in cases:
            value = ratio(timings[exact, "step"], timings[case, "step"])
            rates = ceilings["float32"].estimate(work[exact, "step"]) / ceilings["bf16"].estimate(work[case, "step"])
            found[f"float32 / bf16, {case.memory} in memory"] = f"{value:.2f} (matrix rates: {rates:.2f})"
    return found
