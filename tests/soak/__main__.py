"""The soak, at most half an hour on two cores: `python -m soak [SEED]`, the repository and its tests on PYTHONPATH.

Exit code 1 where anything is wrong; the folder of what was killed is then kept.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from soak.jobs import prepare
from soak.lines import lines_of, plan, table
from soak.processes import end, processes_of

LAST_KILL = 22 * 60  # seconds after the start


def main():
    began = time.monotonic()
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else int(time.time())
    ground = Path(tempfile.mkdtemp(prefix="hiptrack-soak-"))
    print(f"seed {seed}, in {ground}", flush=True)
    prepare(ground)
    os.environ["TMPDIR"] = str(ground / "tmp")  # for what a killed launcher leaves behind
    (ground / "tmp").mkdir()
    calls = plan(ground, seed, began + LAST_KILL)
    try:
        with ProcessPoolExecutor(len(calls), multiprocessing.get_context("spawn")) as pool:
            lines = [line for lines in pool.map(lines_of, calls) for line in lines]
    finally:
        orphans = processes_of(ground)
        end(orphans)
    print(table(lines))
    print(f"{time.monotonic() - began:.0f} seconds in all")
    if orphans:
        print(f"left over: the processes {[process.pid for process in orphans]}")
    if orphans or not all(line.right for line in lines):
        return 1
    shutil.rmtree(ground)
    return 0


if __name__ == "__main__":
    sys.exit(main())
