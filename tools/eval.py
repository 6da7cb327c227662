"""Runs hiptrack/cli/eval.py."""

from hiptrack.cli.eval import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
