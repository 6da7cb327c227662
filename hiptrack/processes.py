"""Whether the processes of a launch are as many as were asked for, and know of each other."""

import argparse
import os
from datetime import timedelta

import psutil
from accelerate.commands.config.config_args import default_config_file, load_config_from_file
from accelerate.utils import InitProcessGroupKwargs

from hiptrack.errors import HiptrackError

# The processes track sequences of different lengths: the first to end must wait for the last.
PATIENCE = InitProcessGroupKwargs(timeout=timedelta(hours=2))
HOW_TO = "On CPUs set ACCELERATE_USE_CPU=true and launch with --multi_gpu --num_processes N (see README, 'Several processes')."


def check_processes(accelerator):
    """Raise HiptrackError unless Accelerate joined as many processes as the launcher was asked for.

    Otherwise each would work alone and write the same files, or one would do the work of many.
    """
    joined = accelerator.num_processes
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != joined:
        raise HiptrackError(
            f"{launched} processes were launched, but Accelerate joined {joined}: each would work alone and write the same "
            f"files. {HOW_TO}"
        )
    asked = asked_of_launcher()
    if asked is not None and asked != joined:
        raise HiptrackError(f"accelerate launch was asked for {asked} processes, but started {joined}. {HOW_TO}")


def asked_of_launcher():
    """The number of processes `accelerate launch` was asked for, on its command line or in its file; None without one."""
    try:
        parent = psutil.Process().parent()
        command = parent.cmdline() if parent else []
    except psutil.Error:
        return None
    if "launch" not in command or not any("accelerate" in word for word in command[: command.index("launch")]):
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--num_processes", "--num-processes", type=int)
    parser.add_argument("--config_file", "--config-file")
    try:
        asked, _ = parser.parse_known_args(command[command.index("launch") + 1 :])
        if asked.num_processes is None and (asked.config_file or os.path.isfile(default_config_file)):
            return load_config_from_file(asked.config_file).num_processes
    except (argparse.ArgumentError, OSError, ValueError, AttributeError):
        return None
    return asked.num_processes
