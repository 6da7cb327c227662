"""The options that several commands have."""

from hiptrack.data.benchmarks import BENCHMARKS
from hiptrack.nano import weights_path


def add_checkpoint(parser, what, default=None, path=weights_path):
    """`--checkpoint FILE`, required unless there is a default. what: a FILE can be; path: makes a path of its name."""
    parser.add_argument("--checkpoint", required=default is None, default=default, type=path, metavar="FILE", help=what)


def add_data(parser, annotations, split="train, val or test; without it the sequences lie in the root itself"):
    """`--root`, `--split` and `--annotations`. annotations, split: their help."""
    parser.add_argument("--root", required=True, help="folder of the data set")
    parser.add_argument("--split", help=split)
    parser.add_argument("--annotations", metavar="DIR", help=annotations)


def add_benchmark(parser, annotations):
    """`--dataset`, and the options of `add_data`, for `open_benchmark`."""
    parser.add_argument(
        "--dataset", choices=BENCHMARKS, default="got10k", help="layout of the data, and the benchmark's own metrics"
    )
    split = "train, val or test; without it test, or for got10k, folder and tnl2k the sequences in the root itself"
    add_data(parser, annotations, split)
