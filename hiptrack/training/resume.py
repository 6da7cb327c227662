"""What a resumed run must share with the run that wrote its checkpoint."""

from hiptrack.config import bound_values
from hiptrack.errors import ConfigError

# They change no result.
FREE = {
    f"train.{name}"
    for name in (
        "workers",
        "log_every",
        "save_steps",
        "save_minutes",
        "keep_checkpoints",
        "pictures",
        "loader_timeout",
        "max_unreadable",
    )
} | {"Stage.activation_checkpointing"}


def config_differences(theirs, ours):
    """Lines `name: value in the checkpoint -> value now` of the bindings that differ and can change a result."""
    names = sorted(name for name in theirs.keys() | ours.keys() if name.rpartition("/")[2] not in FREE)
    changed = [name for name in names if theirs.get(name) != ours.get(name)]
    return [f"{name}: {theirs.get(name, 'not bound')} -> {ours.get(name, 'not bound')}" for name in changed]


def check_config(checkpoint, allow_change):
    """The differences between a checkpoint's configuration and the one loaded now, as text to be told; "" for none.

    Raises ConfigError, listing them, unless they are allowed.
    """
    different = config_differences(checkpoint.state["config"], bound_values())
    if not different:
        return ""
    listed = "".join(f"\n  {line}" for line in different)
    if not allow_change:
        raise ConfigError(
            f"{checkpoint.path} was written with another configuration (there -> now):{listed}\nResume with the run's own "
            "config.gin, go on in spite of the change with --allow-change, or start in another folder with --run DIR."
        )
    return f"going on with another configuration (before -> now):{listed}"


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
