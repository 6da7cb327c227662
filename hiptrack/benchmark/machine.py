"""What a measurement was made on: processor, threads, load, memory, GPU, versions."""

import importlib.metadata
import platform
import resource
import sys
from pathlib import Path

import cv2
import psutil
import torch

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
