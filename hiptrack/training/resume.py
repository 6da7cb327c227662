"""What a run goes on from, and what it must share with the run that wrote it."""

import os
from pathlib import Path

import torch

from hiptrack.config import bound_values
from hiptrack.config.meaning import changes_no_result, default_value
from hiptrack.config.syntax import RETIRED
from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.models.challenge import taxonomy_of
from hiptrack.models.weights import taxonomy_in
from hiptrack.processes import on_main, raise_together
from hiptrack.screen import shown
from hiptrack.training.checkpoint import WEIGHTS, Checkpoint, newest_sound
from hiptrack.training.run_folder import LOCK


def checkpoint_to_resume(folder, resume):
    """(path of the checkpoint that a run goes on from, or None; why newer ones are passed over), on all processes.

    folder: RunFolder; resume: "auto", "never" or a checkpoint's path. Raises HiptrackError where the folder holds work
    that would be overwritten, CheckpointError for a damaged checkpoint.
    """
    return on_main(folder.accelerator, lambda: _find(folder.path, folder.checkpoints, resume), folder.what)


def _find(folder, checkpoints, resume):
    if resume == "auto":
        path, passed_over = newest_sound(checkpoints)
        kept = sorted(folder.glob("*.safetensors"))
        if path is None and kept:
            raise HiptrackError(
                f"the run folder {folder} holds {kept[0].name}, but no checkpoint to go on from: a run that was "
                "finished and tidied up would be overwritten. Choose another folder with --run DIR."
            )
        return path, passed_over
    if resume == "never":
        return None, []
    Checkpoint.open(resume).require_sound()
    path = Path(os.path.abspath(resume))
    if path.parent == Path(os.path.abspath(checkpoints)) and path.name.startswith("step-"):
        return checkpoints / path.name, []
    if any(entry.name != LOCK for entry in folder.iterdir()):
        raise HiptrackError(
            f"{resume} is no checkpoint of the run folder {folder}, which holds another run's work. Name one of "
            f"{checkpoints}/step-*, or an empty folder with --run DIR."
        )
    return path, []


def take_up(path, model, stages, folder, passed_over, request):
    """Fill the model from a checkpoint and say so; returns the Checkpoint.

    Raises ConfigError where it was written with another configuration (unless request.allow_change) or does not fit the
    stages.
    """
    checkpoint, say, processes = Checkpoint.open(path), folder.say, folder.accelerator.num_processes
    for reason in passed_over:
        say(f"passed over: {reason}")
    change = check_config(checkpoint, request.allow_change)
    check_position(checkpoint, stages)
    known, ours = taxonomy_in(checkpoint.path / WEIGHTS), taxonomy_of(model)
    if known is not None and model.challenge is not None and known != ours:
        raise ConfigError(
            f"{checkpoint.path} has a branch for the classes {', '.join(known.classes)} ({known}), the run now for "
            f"{', '.join(ours.classes)} ({ours}): weights of one do not go on under the other. Start in another folder (--run DIR)."
        )
    checkpoint.load_weights(model)
    say(f"resuming from {checkpoint.path}")
    if "tf32" not in checkpoint.state and folder.accelerator.device.type == "cuda":
        say("it was written before train.tf32 was: train.tf32=False goes on in IEEE float32, as before")
    say(change)
    if checkpoint.processes != processes:
        say(f"{processes} processes go on with what {checkpoint.processes} began")
    return checkpoint


def config_differences(theirs, ours):
    """Lines `name: value in the checkpoint -> value now` of the bindings that differ and can change a result.

    A line that only says the default differs from none in nothing.
    """
    changed = []
    for name in sorted((theirs.keys() | ours.keys()) - RETIRED.keys()):
        default = default_value(name)
        if not changes_no_result(name) and theirs.get(name, default) != ours.get(name, default):
            changed.append(name)
    return [f"{name}: {theirs.get(name, 'not bound')} -> {ours.get(name, 'not bound')}" for name in changed]


def check_config(checkpoint, allow_change):
    """The differences between a checkpoint's configuration and the one loaded now, as text to be told; "" for none.

    Raises ConfigError, listing them, unless they are allowed.
    """
    different = config_differences(checkpoint.state["config"], bound_values())
    if not different:
        return ""
    if not allow_change:
        raise ConfigError(
            f"{checkpoint.path} was written with another configuration. Resume with the run's own config.gin, go on in spite of "
            "the change with --allow-change, or start in another folder with --run DIR. What differs (there -> now):",
            *different,
        )
    return "\n  ".join(["going on with another configuration (before -> now):", *map(shown, different)])


def run_state(stages, log, faults, difficulty, validation):
    """What a checkpoint keeps of a run beside weights, optimiser and generators.

    validation: the values by which the best checkpoint is chosen, or None.

    Every process calls this. Raises HiptrackError on all where the log cannot be written.
    """
    state = {
        "stages": outline(stages),
        "config": bound_values(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "log": log.sync(),
        "data_faults": faults.state(),
        "difficulty": difficulty.state(),
        "validation": validation,
    }
    raise_together(log.failure)
    return state


def outline(stages):
    """[name, epochs, steps of an epoch] of each stage: what a position in a run refers to."""
    return [[stage.name, stage.epochs, stage.steps_per_epoch] for stage in stages]


def check_position(checkpoint, stages):
    """Raise ConfigError where the checkpoint's position does not exist in these stages.

    Finished stages must be as they were, and the present one must reach as far.
    """
    position, theirs, ours = checkpoint.position, checkpoint.state["stages"], outline(stages)
    problem = None
    if ours[: position.stage] != theirs[: position.stage]:
        problem = "stages that are over cannot change"
    elif position.stage < len(theirs):
        (name, _, steps), now = theirs[position.stage], ours[position.stage : position.stage + 1]
        if not now or now[0][0] != name:
            problem = f"its stage '{name}' is missing"
        elif now[0][1] < position.epoch + (position.epoch_step > 0):
            problem = f"its stage '{name}' is further than {now[0][1]} epochs already"
        elif position.epoch_step and now[0][2] != steps:
            problem = f"it stands in the midst of an epoch of '{name}', whose number of steps cannot change there"
    if problem:
        raise ConfigError(
            f"{checkpoint.path} does not fit the stages: {problem}. As [name, epochs, steps of an epoch], there: {theirs}; "
            f"now: {ours}. Start in another folder (--run DIR), from its weights where you want them (TrackerWeights)."
        )
