"""How fast this machine tracks, trains, loads and evaluates, and how much of its own matrix rate that is: `python tools/benchmark.py track`."""

import argparse
from pathlib import Path

import torch

from hiptrack.errors import ConfigError
from hiptrack.extras.benchmark import eval, loader, track, train
from hiptrack.extras.benchmark.measure import describe_machine, format_result, write_result

# Each has PURPOSE, a line for --help; add_arguments(parser); and measure(args), which returns (settings, rows), see
# hiptrack/extras/benchmark/measure.py. args also holds what all of them take: repetitions.
BENCHMARKS = {"track": track, "train": train, "loader": loader, "eval": eval}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="{" + ",".join(BENCHMARKS) + "}")
    for name, module in BENCHMARKS.items():
        command = commands.add_parser(name, help=module.PURPOSE, description=module.PURPOSE)
        command.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
        command.add_argument("--repetitions", type=int, default=5, metavar="N", help="interleaved repetitions (5)")
        command.add_argument("--threads", type=int, metavar="N", help="CPU threads (as PyTorch chooses)")
        module.add_arguments(command)
    args = parser.parse_args()
    if args.repetitions < 1 or (args.threads is not None and args.threads < 1):
        raise ConfigError(f"--repetitions {args.repetitions}, --threads {args.threads}: at least 1 was expected.")
    if args.threads:
        torch.set_num_threads(args.threads)
    machine = describe_machine()  # ahead of what is measured, which is a load itself
    settings, rows = BENCHMARKS[args.benchmark].measure(args)
    result = {"benchmark": args.benchmark, "machine": machine, "settings": settings, "rows": rows}
    print(format_result(result))
    if args.json:
        write_result(result, args.json)
        print(f"\nwritten: {args.json}")
