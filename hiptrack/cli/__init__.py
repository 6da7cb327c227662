"""The commands, `hiptrack COMMAND ...`: a file each, whose `main` reads the options, then does the work.

A file imports at its top only what needs no PyTorch. `main` imports the rest once the options are read: PyTorch takes
seconds, and --help and a mistyped option should answer at once.
"""

import importlib
import sys

from hiptrack.errors import ConfigError, did_you_mean, run_main

COMMANDS = {  # the module of each, which is read only when it is asked for, and what it is for
    "train": ("train", "train a pipeline of stages"),
    "eval": ("eval", "evaluate a checkpoint on a benchmark"),
    "track": ("track", "track a target in a video, a folder, a camera or a stream"),
    "strip": ("strip_cls", "write a checkpoint without its challenge branch"),
    "halve": ("halve", "write a checkpoint in half precision"),
    "export": ("export", "write a tracker as ONNX or torch.export files"),
    "sweep": ("sweep", "train a grid of variants"),
    "compare": ("compare", "set runs side by side"),
    "compare-opencv": ("compare_opencv", "set a tracker beside OpenCV's"),
    "report": ("report", "set evaluations side by side on a page"),
    "catalogue": ("catalogue", "list what can be configured, and where a value comes from"),
    "benchmark": ("benchmark", "time tracking, training, loading and evaluation"),
    "replay": ("replay", "run a step again whose loss was not finite"),
    "rank-hard": ("rank_hard", "list the frames most worth labelling"),
    "submit-check": ("submit_check", "check a zip before it is handed in"),
    "check-data": ("check_data", "check the images and boxes of a data set"),
    "check-annotations": ("check_annotations", "check challenge annotations"),
    "make-synthetic": ("make_synthetic", "write scenes of the procedural world"),
    "world-sheet": ("world_sheet", "draw a contact sheet of the procedural world"),
    "demo": ("demo", "the whole job on data it makes itself"),
}


def main():
    """Runs a command with what follows its name; returns its exit code."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: hiptrack COMMAND ...   (hiptrack COMMAND --help)\n")
        print("\n".join(f"  {name:<18} {purpose}" for name, (_, purpose) in COMMANDS.items()))
        return 0 if len(sys.argv) > 1 else 2
    command = sys.argv[1]
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS, '"')
        raise ConfigError(f'there is no command "{command}".{hint} hiptrack --help lists them.')
    sys.argv[:2] = [f"hiptrack {command}"]
    return importlib.import_module(f"hiptrack.cli.{COMMANDS[command][0]}").main()


def console():
    """What the installed command `hiptrack` calls."""
    run_main(main)
