"""Runs hiptrack/cli/report.py."""

from hiptrack.cli.report import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
