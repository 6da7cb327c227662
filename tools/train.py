"""Runs hiptrack/cli/train.py."""

from hiptrack.cli.train import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
