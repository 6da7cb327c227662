"""Runs hiptrack/cli/catalogue.py."""

from hiptrack.cli.catalogue import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
