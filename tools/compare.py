"""Runs hiptrack/cli/compare.py."""

from hiptrack.cli.compare import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
