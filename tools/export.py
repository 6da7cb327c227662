"""Runs hiptrack/cli/export.py."""

from hiptrack.cli.export import main
from hiptrack.config import run_main

if __name__ == "__main__":
    run_main(main)
