"""The options that several commands have."""

from hiptrack.data.benchmarks import BENCHMARKS
from hiptrack.errors import ConfigError
from hiptrack.evaluation.analysis import ATTRIBUTE_SEQUENCES
from hiptrack.nano import weights_path


def add_checkpoint(parser, what, default=None, path=weights_path):
    """`--checkpoint FILE`, required unless there is a default. what: a FILE can be; path: makes a path of its name."""
    parser.add_argument("--checkpoint", required=default is None, default=default, type=path, metavar="FILE", help=what)


def add_sequences(parser):
    """`--include` and `--exclude`, which end the words that stand before them or another option."""
    parser.add_argument("--include", metavar="NAME", nargs="+", action="extend", help="take these sequences alone")
    parser.add_argument("--exclude", metavar="NAME", nargs="+", action="extend", help="leave these sequences out")


def add_data(parser, annotations, split="train, val or test; without it the sequences lie in the root itself"):
    """`--root`, `--split`, `--annotations` and the options of `add_sequences`. annotations, split: their help."""
    parser.add_argument("--root", required=True, help="folder of the data set")
    parser.add_argument("--split", help=split)
    parser.add_argument("--annotations", metavar="DIR", help=annotations)
    add_sequences(parser)


def add_benchmark(parser, annotations):
    """`--dataset` and the options of `add_data`, for `open_benchmark`; `--attribute-sequences`, for the function below."""
    parser.add_argument(
        "--dataset", choices=BENCHMARKS, default="got10k", help="layout of the data, and the benchmark's own metrics"
    )
    split = "train, val or test; without it test, or for got10k, folder and tnl2k the sequences in the root itself"
    add_data(parser, annotations, split)
    parser.add_argument(
        "--attribute-sequences",
        choices=ATTRIBUTE_SEQUENCES,
        help="AUC, P and the like by challenge: over the sequences that have it in the majority of their annotated frames, or in any "
        "(majority)",
    )


def attribute_sequences(args):
    """The choice of `--attribute-sequences`. Raises ConfigError where there are no numbers of sequences by challenge."""
    if args.attribute_sequences is None:
        return "majority"
    if not args.annotations:
        raise ConfigError("--attribute-sequences: there are no results by challenge without --annotations.")
    if not BENCHMARKS[args.dataset].PROTOCOL.is_one_pass:
        raise ConfigError(f"--attribute-sequences: {args.dataset} counts frames, not sequences; leave it out.")
    return args.attribute_sequences
