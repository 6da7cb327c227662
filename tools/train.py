"""Runs hiptrack/cli/train.py."""

from hiptrack.cli.train import main
from hiptrack.config import run_main

if __name__ == "__main__":
    run_main(main)
