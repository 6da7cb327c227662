"""Runs hiptrack/cli/replay.py."""

from hiptrack.cli.replay import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
