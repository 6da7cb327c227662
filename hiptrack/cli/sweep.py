"""Train a grid of variants: `hiptrack sweep --gin experiments/demo.gin --axis 'ChallengeLoss.weight=[0.5, 1.0]' --seeds 3`."""

import argparse
from pathlib import Path

from hiptrack import config
from hiptrack.cli.extras import with_extras
from hiptrack.cli.options import add_sequences
from hiptrack.data.benchmarks import BENCHMARKS
from hiptrack.errors import ConfigError


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    config.add_arguments(parser)
    parser.add_argument(
        "--axis", metavar="NAME=[...]", action="append", default=[], help="a binding and its values; repeatable"
    )
    parser.add_argument("--seeds", metavar="N", type=int, default=1, help="train each with the seeds 0 ... N-1")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of the runs (default: runs/sweep-<experiment>)")
    parser.add_argument("--jobs", metavar="N", type=int, help="so many runs at once (here: 1; SLURM: all)")
    parser.add_argument("--evaluate", metavar="ROOT", help="evaluate each finished run on the data below ROOT")
    parser.add_argument(
        "--dataset", choices=BENCHMARKS, help="with --evaluate: layout of that data, and the benchmark's own metrics"
    )
    parser.add_argument("--split", help="with --evaluate: train, val, test or another folder of ROOT")
    parser.add_argument("--annotations", metavar="DIR", help="with --evaluate: challenge annotations of that data")
    add_sequences(parser)
    parser.add_argument("--slurm", metavar="NAME=VALUE,...", help="submit to SLURM with submitit's parameters")
    parser.add_argument("--dry-run", action="store_true", help="print the command of every run and exit")
    args = config.parse_args(parser)
    given = (args.dataset, args.split, args.annotations, args.include, args.exclude)
    if not args.evaluate and any(given):
        raise ConfigError(
            "--dataset, --split, --annotations, --include and --exclude say what --evaluate ROOT reads; --evaluate is "
            "missing."
        )

    import hiptrack.training.train  # noqa: F401  registers everything
    from hiptrack.extras.sweep.plan import EvaluationData, make_plan
    from hiptrack.extras.sweep.sweep import sweep
    from hiptrack.training.run_folder import default_run_dir

    data = None
    if args.evaluate:
        data = EvaluationData(args.evaluate, args.split, args.annotations, args.dataset, args.include, args.exclude)
    experiment = default_run_dir(args.gin)
    out = args.out or experiment.with_name(f"sweep-{experiment.name}")
    plan = with_extras(make_plan, args.gin, args.overrides, args.axis, args.seeds)
    return sweep(plan, out, args.jobs, data, args.slurm, args.dry_run)
