"""Runs hiptrack/cli/sweep.py."""

from hiptrack.cli.sweep import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
