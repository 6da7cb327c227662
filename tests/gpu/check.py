"""Check every path of hiptrack that only a GPU can show, each step in a process of its own with a time limit.

    bash tests/gpu/check.sh                             all steps, at most 8 minutes (--budget)
    bash tests/gpu/check.sh --only golden repeat        some steps
    bash tests/gpu/check.sh --device cpu --toy          the same steps with small models on the CPU: does the check itself run?

Run it in the root of a checkout. The results are in DIR/results.jsonl (one object a row), DIR/table.txt and DIR/logs.txt, where DIR is
--out. A step that fails or exceeds its limit stops no other step. The steps of correctness.py run side by side; those of speed.py
are timed, so each runs alone.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common import PRECISIONS


@dataclass(frozen=True)
class Step:
    """name: of a function step_<name>; limit: seconds; alone: timed, so nothing may run beside it; arguments: of the function."""

    name: str
    limit: int
    alone: bool = False
    arguments: tuple = ()

    @property
    def title(self):
        return ":".join((self.name, *self.arguments))


STEPS = [
    Step("golden", 100),
    Step("repeat", 110, arguments=("bf16",)),
    Step("repeat", 110, arguments=("fp32",)),
    *[Step("train_large", 110, arguments=(precision,)) for precision in PRECISIONS],
    *[Step("train_small", 80, arguments=(precision,)) for precision in PRECISIONS],
    Step("resume", 110, arguments=("fp32",)),
    Step("resume", 110, arguments=("bf16",)),
    Step("ddp", 80, arguments=("nccl", "1")),
    Step("ddp", 80, arguments=("gloo", "2")),
    Step("use_cpu", 80),
    Step("eval_agrees", 120),
    # timed, alone, the most important first: the budget may end before the last ones
    Step("train_ways", 100, alone=True),
    Step("track_ways", 90, alone=True),
    Step("loader", 110, alone=True),
    Step("compiled", 120, alone=True),
    Step("bench_track", 110, alone=True),
    Step("bench_train", 110, alone=True),
    Step("bench_compiled", 110, alone=True),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--toy", action="store_true", help="small models and few repetitions: does the script itself run?"
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "gpu-check", help="for data and runs (some GB)"
    )
    parser.add_argument("--budget", type=float, default=470.0, help="seconds for all (470)")
    parser.add_argument("--jobs", type=int, default=7, help="steps of the first round at once (7)")
    parser.add_argument("--only", nargs="+", metavar="STEP", help=" ".join(sorted({step.name for step in STEPS})))
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path[:0] = [os.getcwd(), *(str(Path("tests", name).resolve()) for name in ("support", "models"))]
    if args.step:
        name, *arguments = args.step
        import correctness
        import speed

        steps = {**vars(correctness), **vars(speed)}
        steps[f"step_{name}"](args, *arguments)
        return 0
    return drive(args)


def drive(args):
    args.out, args.work = args.out.resolve(), args.work.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    for name in ("results.jsonl", "table.txt", "logs.txt"):
        (args.out / name).unlink(missing_ok=True)
    began = time.monotonic()
    left = lambda: args.budget - (time.monotonic() - began)
    steps = [step for step in STEPS if not args.only or step.name in args.only]
    reports = [run_step(args, Step("machine", 90), left), run_step(args, Step("data", 120), left)]
    with ThreadPoolExecutor(args.jobs) as pool:
        reports += pool.map(lambda step: run_step(args, step, left), [step for step in steps if not step.alone])
    reports += [run_step(args, step, left) for step in steps if step.alone]
    text = table(reports)
    (args.out / "table.txt").write_text(text)
    with (args.out / "logs.txt").open("w") as logs:
        for path in sorted(args.work.glob("*.log")):
            logs.write(f"===== {path.name}\n{path.read_text(errors='replace')[-60000:]}\n")
    print(text, flush=True)
    return int(any(report["state"] in ("FAILED", "too long") for report in reports))


def run_step(args, step, left):
    """Run a step in its own process group; returns {step, state, seconds, rows, log}."""
    report = {"step": step.title, "state": "no time left", "seconds": 0.0, "rows": [], "end": ""}
    limit = min(step.limit * (8 if args.toy else 1), left())
    if limit < 15:
        return report
    file = step.title.replace(":", "-")
    log, rows = args.work / f"{file}.log", args.work / f"{file}.rows"
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--device",
        args.device,
        "--out",
        str(args.out),
        "--work",
        str(args.work),
    ]
    command += [*(["--toy"] if args.toy else []), "--step", step.name, *step.arguments]
    environment = {**os.environ, "PYTHONPATH": f"{os.getcwd()}:{os.environ.get('PYTHONPATH', '')}", "ROWS": str(rows)}
    environment |= {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(
        args.work / f"inductor-{file}"
    )  # a step killed while it compiles spoils its own
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        end_group(process)
    report["seconds"] = time.monotonic() - started
    report["state"] = {0: "ok", None: "too long"}.get(code, "FAILED")
    if rows.is_file():
        report["rows"] = [json.loads(line) for line in rows.read_text().splitlines()]
    if any(row.get("ok") is False for row in report["rows"]) and report["state"] == "ok":
        report["state"] = "FAILED"
    if report["state"] != "ok":
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        report["end"] = "\n".join(lines[-6:])
    with (args.out / "results.jsonl").open("a") as file:
        for row in report["rows"] or [{}]:
            file.write(json.dumps({"step": step.title, "state": report["state"], **row}) + "\n")
    print(f"[{time.strftime('%H:%M:%S')}] {step.title}: {report['state']} after {report['seconds']:.0f} s", flush=True)
    return report


def end_group(process):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # the group of this step only: it has a session of its own
    process.wait()


def table(reports):
    lines = ["", f"{'step':28} {'state':12} {'s':>5}"]
    for report in reports:
        lines.append(f"{report['step']:28} {report['state']:12} {report['seconds']:5.0f}")
        for row in report["rows"]:
            lines.append("    " + ", ".join(f"{name} {shown(value)}" for name, value in row.items()))
        if report["end"]:
            lines += [f"    | {line[:200]}" for line in report["end"].splitlines()]
    return "\n".join(lines) + "\n"


def shown(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
