"""Write a tracker as files for programs without this package: `hiptrack export --checkpoint runs/demo/model.safetensors --out exported`."""

import argparse
from pathlib import Path

from hiptrack.cli.options import add_checkpoint

FORMATS = ("onnx", "torch")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoint(parser, "weights file, ours or of the published form, or nano")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="new folder for the files")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="ONNX, or torch.export's .pt2 (onnx)")
    parser.add_argument(
        "--memory",
        type=int,
        nargs="+",
        default=[150],
        metavar="N",
        help="frames the memory holds; with several, a step for each (150)",
    )
    parser.add_argument("--branch", choices=("off", "on", "folded"), default="off", help="the challenge branch (off)")
    args = parser.parse_args()

    from hiptrack.extras.export.write import export
    from hiptrack.models.strip import load_any

    model, _ = load_any(args.checkpoint)
    export(model, args.out, args.format, args.memory, args.branch)
    print(f"wrote {args.out}")
