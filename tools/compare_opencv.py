"""Runs hiptrack/cli/compare_opencv.py."""

from hiptrack.cli.compare_opencv import main
from hiptrack.errors import run_main

if __name__ == "__main__":
    run_main(main)
