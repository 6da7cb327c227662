"""Run a training step again whose loss was not finite: `hiptrack replay runs/x/fault-step-00001234`."""

import argparse
from pathlib import Path

from hiptrack import config
from hiptrack.cli.extras import with_extras
from hiptrack.errors import NotFoundError


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fault", type=Path, help="folder fault-step-... that the run left")
    parser.add_argument("overrides", metavar="NAME=VALUE", nargs="*", help="binding that wins over the run's own")
    args = parser.parse_args()

    from hiptrack.training.guard import CONFIG
    from hiptrack.training.replay import replay
    from hiptrack.training.train import Training

    if not (args.fault / CONFIG).is_file():
        raise NotFoundError(f"not found: {args.fault / CONFIG} (a folder fault-step-... of a run was expected)")
    with_extras(config.load, [str(args.fault / CONFIG)], args.overrides, "train")
    return replay(args.fault, Training())
