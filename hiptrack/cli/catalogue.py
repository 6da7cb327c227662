"""List what can be configured: `hiptrack catalogue [WORD]`; or where a value comes from:
`hiptrack catalogue --gin experiments/two_stage.gin --explain Stage.batch [NAME=VALUE ...]`."""

import argparse

from hiptrack import config
from hiptrack.config.catalogue import catalogue, explain


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", metavar="WORD | NAME=VALUE", nargs="*", help="only what mentions WORD; overrides")
    parser.add_argument("--gin", metavar="FILE", action="append", default=[], help="gin file of --explain; repeatable")
    parser.add_argument("--explain", metavar="[SCOPE/]NAME.PARAMETER", help="say which line gives this value")
    args = config.parse_args(parser)
    if not args.explain and (args.gin or len(args.words) > 1):
        parser.error("--gin and overrides belong to --explain; the list takes one WORD")

    import hiptrack.evaluation.evaluate
    import hiptrack.extras.world.world
    import hiptrack.training.train  # noqa: F401  all three register names

    print(explain(args.explain, args.gin, args.words) if args.explain else catalogue(*args.words))
