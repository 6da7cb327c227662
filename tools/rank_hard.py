"""Runs hiptrack/cli/rank_hard.py."""

from hiptrack.cli.rank_hard import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
