"""Runs hiptrack/cli/track.py."""

from hiptrack.cli.track import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
