"""Runs hiptrack/cli/world_sheet.py."""

from hiptrack.cli.world_sheet import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
