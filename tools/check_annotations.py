"""Runs hiptrack/cli/check_annotations.py."""

from hiptrack.cli.check_annotations import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
