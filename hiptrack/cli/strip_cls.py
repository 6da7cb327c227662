"""Write a checkpoint without its challenge branch: `hiptrack strip --input model.safetensors --output tracker.safetensors`."""

import argparse
from pathlib import Path

from hiptrack.nano import weights_path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--input",
        required=True,
        type=weights_path,
        help="weights file of ours, .pth/.pth.tar of the published form, or nano",
    )
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--fold", action="store_true", help="keep the branch's mean effect as a bias")
    parser.add_argument("--format", choices=("safetensors", "published"), default="safetensors")
    args = parser.parse_args()

    from hiptrack.models.strip import strip_branch

    strip_branch(args.input, args.output, args.fold, args.format)
    print(f"wrote {args.output}")
