"""Runs hiptrack/cli/submit_check.py."""

from hiptrack.cli.submit_check import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
