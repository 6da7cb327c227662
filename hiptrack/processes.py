"""Whether the processes of a launch are as many as were asked for, and know of each other."""

import os

import psutil

from hiptrack.errors import HiptrackError

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
    parent = psutil.Process().parent()
    asked = _asked_of_launcher(parent.cmdline()) if parent else None
    if asked is not None and asked != joined:
        raise HiptrackError(f"accelerate launch was asked for {asked} processes, but started {joined}. {HOW_TO}")


def _asked_of_launcher(command):
    """The number after --num_processes in an accelerate launch command, or None."""
    if not any("accelerate" in word for word in command):
        return None
    for word, following in zip(command, [*command[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name in ("--num_processes", "--num-processes") and (value or following).isdigit():
            return int(value or following)
    return None
