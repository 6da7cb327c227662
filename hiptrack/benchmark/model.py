"""The model that a benchmark times: from a weights file, or by gin files with random weights (which are as fast)."""

from pathlib import Path

import gin
import torch

import hiptrack.training.train  # noqa: F401  registers `train` and what it reaches
from hiptrack import config
from hiptrack.models.weights import load_model
from hiptrack.nano import NAME, WEIGHTS, weights_path

DEFAULT = "gin/model/hiptrack_b384.gin"


def add_model_arguments(parser):
    """`--checkpoint FILE`, or `--model FILE.gin` (repeatable)."""
    parser.add_argument("--checkpoint", type=weights_path, metavar="FILE", help="weights file (.safetensors), or nano")
    parser.add_argument(
        "--model", action="append", metavar="FILE", help=f"gin files of a model with random weights ({DEFAULT})"
    )


def build_model(args):
    """The model, and what to call it. Raises what load_model and config.load raise."""
    if args.checkpoint:
        return load_model(args.checkpoint), NAME if args.checkpoint == WEIGHTS else str(args.checkpoint)
    files = args.model or [DEFAULT]
    config.load(files, [], root="train")
    torch.manual_seed(0)
    return gin.query_parameter("train.model").scoped_configurable_fn(), " ".join(Path(file).stem for file in files)
