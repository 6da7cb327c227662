"""Runs hiptrack/cli/benchmark.py."""

from hiptrack.cli.benchmark import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
