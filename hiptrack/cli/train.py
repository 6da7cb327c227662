"""Train a pipeline of stages: `accelerate launch -m hiptrack train --gin experiments/two_stage.gin [NAME=VALUE ...]`."""

import argparse
import logging
import os
import sys
from pathlib import Path

from hiptrack import config
from hiptrack.cli.extras import with_extras
from hiptrack.errors import ConfigError


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    config.add_arguments(parser)
    parser.add_argument("--run", metavar="DIR", type=Path, help="run folder (default: runs/<experiment>)")
    parser.add_argument(
        "--resume", default="auto", metavar="auto|never|PATH", help="take up the newest checkpoint, none, or this one"
    )
    parser.add_argument("--allow-change", action="store_true", help="resume with another configuration")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved pipeline and exit")
    parser.add_argument(
        "--time", action="store_true", help="with --dry-run: take a step of each stage, to tell its time"
    )
    args = config.parse_args(parser)
    if args.time and not args.dry_run:
        raise ConfigError("--time tells with --dry-run how long the run would take; --dry-run is missing.")

    from hiptrack.training.run_folder import TrainRequest, default_run_dir
    from hiptrack.training.train import Training

    is_first = os.environ.get("RANK", "0") == "0"  # what the processes have to say before they know each other, once
    logging.basicConfig(level=logging.INFO if is_first else logging.WARNING, format="%(message)s")
    logging.getLogger("hiptrack.evaluation").setLevel(logging.WARNING)  # validation would log every sequence
    folder = args.run or default_run_dir(args.gin)
    with_extras(config.load, args.gin, args.overrides, "train")
    argv = ("hiptrack", "train", *sys.argv[1:])
    return Training().run(TrainRequest(folder, argv, args.resume, args.allow_change, args.dry_run, args.time))
