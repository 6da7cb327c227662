"""Runs hiptrack/cli/export.py."""

from hiptrack.cli.export import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
