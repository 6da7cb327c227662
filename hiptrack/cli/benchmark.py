"""How fast this machine tracks, trains, loads and evaluates, and how much of its own matrix rate that is: `hiptrack benchmark track`."""

import argparse
import importlib
from pathlib import Path

from hiptrack import config
from hiptrack.errors import ConfigError
from hiptrack.nano import weights_path

PRECISIONS = ("float32", "tf32", "bf16")


def main():
    args = options_parser().parse_args()
    if args.repetitions < 1 or (args.threads is not None and args.threads < 1):
        raise ConfigError(f"--repetitions {args.repetitions}, --threads {args.threads}: at least 1 was expected.")

    import torch

    from hiptrack.extras.benchmark.measure import describe_machine, format_result, write_result

    if args.threads:
        torch.set_num_threads(args.threads)
    machine = describe_machine()  # ahead of what is measured, which is a load itself
    # `measure` of a benchmark's module returns (settings, rows), see hiptrack/extras/benchmark/measure.py
    settings, rows = importlib.import_module(f"hiptrack.extras.benchmark.{args.benchmark}").measure(args)
    result = {"benchmark": args.benchmark, "machine": machine, "settings": settings, "rows": rows}
    if args.json:
        write_result(result, args.json)
    print(format_result(result))
    if args.json:
        print(f"\nwritten: {args.json}")


def options_parser():
    """The parser of all benchmarks: a name, which is its module's in hiptrack/extras/benchmark, and its options."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)

    def add(name, purpose):
        command = commands.add_parser(name, help=purpose, description=purpose)
        command.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
        command.add_argument("--repetitions", type=int, default=5, metavar="N", help="interleaved repetitions (5)")
        command.add_argument("--threads", type=int, metavar="N", help="CPU threads (as PyTorch chooses)")
        return command

    track = add("track", "tracking: time and memory of a frame, and the share of the machine's matrix rate")
    _add_model(track)
    track.add_argument("--memory", type=int, nargs="+", default=[1, 4, 20, 150], metavar="N", help="1 4 20 150")
    track.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["float32", "bf16"], help="float32 bf16")
    track.add_argument("--branch", nargs="+", choices=("off", "on", "folded"), default=["off"], help="off")
    track.add_argument("--compile", action="store_true", help="track with torch.compile")
    track.add_argument("--shapes", action="store_true", help="print the rate of every shape, too")

    train = add(
        "train", "training: time and memory of whole steps, everything trained, the branch alone, and other ways"
    )
    config.add_arguments(train)
    train.add_argument("--clips", type=int, default=1, metavar="N", help="clips of a step (1)")
    train.add_argument("--frames", type=int, default=3, metavar="N", help="search frames of a clip (3)")

    loader = add("loader", "loader: samples a second of one thread, beside full decoding and conversion in the worker")
    loader.add_argument("--samples", type=int, default=24, metavar="N", help="samples of a repetition (24)")

    evaluation = add("eval", "evaluation: frames a second from the files on, and of the tracker alone")
    _add_model(evaluation)
    evaluation.add_argument("--sequences", type=int, default=2, metavar="N", help="sequences that are tracked (2)")
    evaluation.add_argument("--frames", type=int, default=30, metavar="N", help="frames of each (30)")
    evaluation.add_argument("--batch", type=int, nargs="+", default=[1], metavar="N", help="tracked at once (1)")
    evaluation.add_argument("--precision", choices=PRECISIONS, default="float32", help="float32")
    return parser


def _add_model(parser):
    """What the model is, and where it computes."""
    parser.add_argument("--checkpoint", type=weights_path, metavar="FILE", help="weights file (.safetensors), or nano")
    parser.add_argument(
        "--model", action="append", metavar="FILE", help="gin files of a model with random weights (HIPTrack B/384)"
    )
    parser.add_argument("--device", default="auto", help="a torch device (a GPU where there is one)")
