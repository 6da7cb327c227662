"""Write a checkpoint in half precision: `hiptrack halve --input model.safetensors --output small.safetensors`."""

import argparse
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", required=True, type=Path, help="weights file of ours")
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args()

    from hiptrack.models.strip import halve

    halve(args.input, args.output)
    print(f"wrote {args.output} ({args.output.stat().st_size:,} bytes)")
