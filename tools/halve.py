"""Runs hiptrack/cli/halve.py."""

from hiptrack.cli.halve import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
