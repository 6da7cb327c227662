"""The processes of a launch: whether they are as many as were asked for, and how they stop together."""

import argparse
import os
import re
from datetime import timedelta

import psutil
import torch

# Its functions keep the process group of the time when they are imported, if there is one, for ever: its threads would then
# outlive `end_training`, and abort a process that ends. timm imports it, after the group is made.
import torch.distributed.nn.functional
from accelerate import Accelerator
from accelerate.commands.config.config_args import default_config_file, load_config_from_file
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object

from hiptrack.errors import ConfigError, HiptrackError, ReportedElsewhere
from hiptrack.files import excerpt

# The processes track sequences of different lengths: the first to end must wait for the last.
PATIENCE = InitProcessGroupKwargs(timeout=timedelta(hours=2))
# What a launcher tells each process.
LAUNCHERS = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
HOW_TO = "On CPUs set ACCELERATE_USE_CPU=true and launch with --multi_gpu --num_processes N (see docs/runs.md, 'Several processes')."


def open_accelerator(mixed_precision=None):
    """The Accelerator of a process that trains or evaluates; mixed_precision: "no", "bf16" or "fp16", None where it is all one.

    Raises ConfigError for a number format that the device lacks, HiptrackError where the environment asks for what cannot
    be, and where the processes are not as many as asked for.
    """
    _check_environment()
    try:
        accelerator = Accelerator(mixed_precision=mixed_precision, kwargs_handlers=[PATIENCE])
    except (ValueError, KeyError, RuntimeError, ImportError, OSError) as error:
        if mixed_precision in ("bf16", "fp16") and mixed_precision in str(error):
            raise ConfigError(
                f"train.mixed_precision = '{mixed_precision}' cannot be used on this device: {error}"
            ) from error
        named = ", ".join(name for name in sorted(os.environ) if name.startswith("ACCELERATE_") or name in LAUNCHERS)
        raise HiptrackError(
            f"Accelerate cannot begin: {excerpt(str(error))}. Look at what asks it to: {named or 'accelerate config'}."
        ) from error
    check_processes(accelerator)
    return accelerator


def _check_environment():
    """Raise HiptrackError for variables of a launcher that are no numbers, or that no launcher set."""
    joins = os.environ.get("LOCAL_RANK", "-1") != "-1"
    for name in LAUNCHERS if joins else ("LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        value = os.environ.get(name)
        if value is None and joins and name != "LOCAL_WORLD_SIZE":
            raise HiptrackError(
                f"The environment has LOCAL_RANK, but no {name}: a launcher sets both. Start with accelerate launch, or remove "
                "LOCAL_RANK (unset LOCAL_RANK)."
            )
        if value is not None and name != "MASTER_ADDR" and not re.fullmatch("-?[0-9]+", value):
            raise HiptrackError(
                f"The environment has {name} = {excerpt(value)}: a launcher sets it to a whole number. Remove it (unset {name})."
            )


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
    here, gpus = processes_here(), torch.cuda.device_count()
    if here > gpus and torch.distributed.is_initialized() and torch.distributed.get_backend() == "nccl":
        raise HiptrackError(
            f"{here} processes were launched on this machine, which has {gpus} GPUs: at most one process for each GPU was "
            "expected (--num_processes)."
        )


def processes_here():
    """Number of processes of this launch on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def raise_together(error):
    """Raise on all processes what went wrong on any; every process calls this, with its HiptrackError or None."""
    told = [text for text in gather_object([None if error is None else str(error)]) if text]
    if error is not None:
        raise error
    if told:
        raise ReportedElsewhere(told[0])


def wait_for_all():
    """Wait until every process has come here."""
    raise_together(None)


def on_every_process(action):
    """Call `action` on every process, and return what it gives there; the HiptrackError of one stops all."""
    result, error = None, None
    try:
        result = action()
    except HiptrackError as raised:
        error = raised
    raise_together(error)
    return result


def write_together(action, what):
    """`on_every_process` for an action that writes files: it fails too where they cannot be written (a full disk)."""

    def write():
        try:
            return action()
        except OSError as error:
            raise HiptrackError(
                f"{what} cannot be written: {error}. What was written before is as it was; make room, then start the same "
                "command again."
            ) from error

    return on_every_process(write)


def on_main(accelerator, action, what):
    """`write_together` on the main process alone; all get what it returns."""
    result = write_together(lambda: action() if accelerator.is_main_process else None, what)
    return broadcast_object_list([result])[0]


def is_launched():
    """Whether a launcher (accelerate, torchrun) started this process and waits for its exit code."""
    return "TORCHELASTIC_RUN_ID" in os.environ or launch_arguments() is not None


def launch_arguments():
    """What stands after `accelerate launch` on the command line of the parent process; None without one."""
    try:
        parent = psutil.Process().parent()
        command = parent.cmdline() if parent else []
    except psutil.Error:
        return None
    if "launch" not in command or not any("accelerate" in word for word in command[: command.index("launch")]):
        return None
    return command[command.index("launch") + 1 :]


def asked_of_launcher():
    """How many processes `accelerate launch` was asked for, on its command line or in its file; None without one."""
    arguments = launch_arguments()
    if arguments is None:
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--num_processes", "--num-processes", type=int)
    parser.add_argument("--config_file", "--config-file")
    try:
        asked, _ = parser.parse_known_args(arguments)
        if asked.num_processes is None and (asked.config_file or os.path.isfile(default_config_file)):
            return load_config_from_file(asked.config_file).num_processes
    except (argparse.ArgumentError, OSError, ValueError, AttributeError):
        return None
    return asked.num_processes
