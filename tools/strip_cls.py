"""Runs hiptrack/cli/strip_cls.py."""

from hiptrack.cli.strip_cls import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
