"""Runs hiptrack/cli/benchmark.py."""

from hiptrack.cli.benchmark import main
from hiptrack.config import run_main

if __name__ == "__main__":
    run_main(main)
