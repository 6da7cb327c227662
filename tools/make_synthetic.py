"""Runs hiptrack/cli/make_synthetic.py."""

from hiptrack.cli.make_synthetic import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
