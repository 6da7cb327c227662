"""Write a checkpoint in half precision: `python tools/halve.py --input model.safetensors --output small.safetensors`."""

import argparse
from pathlib import Path

from hiptrack.models.strip import halve


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", required=True, type=Path, help="weights file of ours")
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args()
    halve(args.input, args.output)
    print(f"wrote {args.output} ({args.output.stat().st_size:,} bytes)")
