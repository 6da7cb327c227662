"""Repetitions of several measurements in turn, so that what else the machine does meets all of them alike."""

import importlib.metadata
import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import gin
import numpy as np
import psutil
import torch

import hiptrack.training.train  # noqa: F401  registers `train` and what it reaches
from hiptrack import config
from hiptrack.errors import HiptrackError
from hiptrack.files import write_atomically
from hiptrack.models.weights import load_model
from hiptrack.nano import NAME, WEIGHTS
from hiptrack.tables import as_markdown, as_text


class Timing:
    """Seconds of the repetitions of one thing, in the order in which they were taken."""

    def __init__(self, seconds):
        self.seconds = np.asarray(seconds, np.float64)

    @property
    def median(self):
        """Median in seconds."""
        return float(np.median(self.seconds))

    def ms(self, percentile):
        """A percentile in milliseconds."""
        return float(np.percentile(self.seconds, percentile) * 1e3)

    def row(self, name="ms"):
        """The columns of a table: p50, p95, min and max in milliseconds."""
        return {
            f"{name} p50": self.ms(50),
            f"{name} p95": self.ms(95),
            f"{name} min": self.ms(0),
            f"{name} max": self.ms(100),
        }


def interleaved(
    tasks: Mapping[str, Callable[[], object]],
    repetitions: int,
    warm_up: int = 1,
    synchronise: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time every task `repetitions` times: all once, in order, then all again.

    warm_up: untimed rounds ahead. synchronise: called before the clock is read, where work goes on in the background
    (torch.cuda.synchronize).
    """
    seconds = {name: [] for name in tasks}
    for number in range(warm_up + repetitions):
        for name, task in tasks.items():
            synchronise()
            start = time.perf_counter()
            task()
            synchronise()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(values) for name, values in seconds.items()}


def ratio(slow: Timing, fast: Timing) -> float:
    """Median over the repetitions of slow / fast, pair by pair: both of a pair met the same machine."""
    return float(np.median(slow.seconds / fast.seconds))


PACKAGES = ("torch", "torchvision", "timm", "numpy")
INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "asimd",
    "bf16",
)  # that decide matrix rates


def describe_machine():
    """{what: value} of the hardware and the versions, in the order in which they are printed."""
    cpuinfo = _cpuinfo()
    found = {
        "processor": cpuinfo.get("model name") or platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": f"{psutil.getloadavg()[0]:.1f} (processes that computed in the minute before)",
        "instructions": " ".join(name for name in INSTRUCTIONS if name in cpuinfo.get("flags", "").split()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    found |= {name: importlib.metadata.version(name) for name in PACKAGES}
    return found | {"opencv": cv2.__version__}


def forget_peak_memory():
    """Let `peak_memory_mb` begin anew, where the system can do that (Linux)."""
    clear = Path("/proc/self/clear_refs")
    if clear.is_file():
        clear.write_text("5")  # man 5 proc


def peak_memory_mb():
    """Largest resident size of this process so far, in MB (10^6 bytes)."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss of a child process begins with its parent's
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _cpuinfo():
    """{name: value} of the first processor, as Linux lists them; elsewhere empty."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.is_file() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


DEFAULT = "gin/model/hiptrack_b384.gin"
EXPERIMENT = "experiments/hiptrack_got10k.gin"  # a model file also sets how that model is trained: this reads it


def build_model(args):
    """The model of `--checkpoint FILE` or `--model FILE.gin` (repeatable), and what to call it. Raises what load_model and config.load raise."""
    if args.checkpoint:
        return load_model(args.checkpoint), NAME if args.checkpoint == WEIGHTS else str(args.checkpoint)
    files = args.model or [config.packaged(DEFAULT)]
    config.load([config.packaged(EXPERIMENT), *files], [], root="train")
    torch.manual_seed(0)
    return gin.query_parameter("train.model").scoped_configurable_fn(), " ".join(Path(file).stem for file in files)


def shown(value):
    """A value as a table shows it: numbers with three digits."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def table_of(rows):
    """Columns and cells (see hiptrack/tables.py) of rows {column: value}."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return columns, [[shown(row.get(name)) for name in columns] for row in rows]


def format_result(result):
    said = {**result["machine"], **result["settings"]}
    width = max(map(len, said))
    lines = [f"{name:<{width}}  {shown(value)}" for name, value in said.items()]
    return "\n".join([*lines, "", as_text(*table_of(result["rows"]))])


def write_result(result, path):
    """Write a result as JSON, whole or not at all. Raises HiptrackError where it cannot be written."""
    try:
        write_atomically(Path(path), (json.dumps(result, indent=2, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise HiptrackError(f"{path} cannot be written: {error} (--json: a file)") from error


def main():
    print(as_markdown(*table_of(json.loads(Path(sys.argv[1]).read_text())["rows"])))


if __name__ == "__main__":
    main()
