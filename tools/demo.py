"""Runs hiptrack/cli/demo.py."""

from hiptrack.cli.demo import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
