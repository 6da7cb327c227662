"""What can be said of a run before it starts: what cannot be, and for `--dry-run` the resolved pipeline in words."""

from hiptrack.config.meaning import current_bindings
from hiptrack.data.loader import divide_batch
from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.models.challenge import taxonomy_of
from hiptrack.training.optimizers import freeze_all_but

MODEL = ("hiptrack.training.train.train", "model")  # as gin knows it


def check_run(training):
    """Raise ConfigError where stages of a Training share a name or have the last file's, or a scope builds its model."""
    names = [stage.name for stage in training.stages]
    taken = [name for name in names if names.count(name) > 1 or name == "model"]
    if taken:
        raise ConfigError(
            f"train.stages: the name '{taken[0]}' is taken. A stage is called after its scope: give each its own, as in "
            "[@branch/Stage(), @finetune/Stage()], and none the scope 'model'."
        )
    bound = [value for (_, selector, name), value in current_bindings().items() if (selector, name) == MODEL]
    for scope in ("/".join(value.scopes) for value in bound if value.scopes):
        raise ConfigError(
            f'train.model is built in the scope "{scope}", but a weights file describes its model without scopes: write '
            f"train.model = @HIPTrack, and its bindings without {scope}/."
        )


def print_pipeline(training, accelerator):
    """Print what a Training would do; returns the exit code: 0 where everything that it needs is there.

    Builds no data and reads no weights that are absent.
    """
    text, complete = describe_pipeline(training, accelerator.num_processes)
    accelerator.print(text)
    return 0 if complete else 1


def describe_pipeline(training, processes):
    """(what a Training would do, whether everything that it needs is there)."""
    model, absent = training.model(), []
    lines = [f"model: {_millions(model.parameters())}"]
    lines += [f"  {name}: {_millions(module.parameters())}" for name, module in model.named_children()]
    if model.challenge is not None:
        own = sum(p.numel() for name, p in model.challenge.named_parameters() if not name.startswith("to_grid."))
        lines.append(f"challenge branch: {own:,} parameters without the projection to the grid")
    for weights in training.initial_weights:
        missing = weights.missing_paths()
        absent += missing
        lines.append(f"initial weights: {weights.describe()}")
        lines += [f"  not found: {path}" for path in missing]
    for number, stage in enumerate(training.stages, 1):
        lines += ["", *_describe_stage(number, stage, model, training.annotations, processes, absent)]
    if training.validation is not None:
        training.validation.data.label_by(taxonomy_of(model), training.annotations)
        lines += ["", f"validation every {training.validation.every} epochs"]
        lines += _describe_data([training.validation.data], None, absent)
    if absent:
        lines += ["", f"the run cannot start yet: {len(set(absent))} things above are missing"]
    return "\n".join(lines), not absent


def _describe_stage(number, stage, model, annotations, processes, absent):
    rows, passes = divide_batch(stage.batch, processes, stage.largest_pass)
    steps = stage.steps_per_epoch
    lines = [
        f"stage {number}: {stage.name}",
        f"  {stage.epochs} epochs x {steps} steps = {stage.epochs * steps} steps of {stage.batch} clips",
        f"  global batch {stage.batch} = {processes} processes x {passes} passes x {rows} clips",
    ]
    for phase in stage.phases:
        freeze_all_but(model, phase.trainable)
        if len(stage.phases) > 1:
            lines.append(f"  from epoch {phase.first} on:")
        trained = [name for name, part in model.named_children() if _trains(part)]
        frozen = [name for name, part in model.named_children() if not _trains(part)]
        trainable = [p for p in model.parameters() if p.requires_grad]
        lines.append(f"  trainable: {_millions(trainable)} in {', '.join(trained)}")
        lines.append(
            f"  frozen: {_millions(p for p in model.parameters() if not p.requires_grad)} in {', '.join(frozen) or '-'}"
        )
        for group in stage.parameter_groups(model):
            lines.append(f"  learning rate {group['lr']:g}: {group['name']} ({_millions(group['params'])})")
        lines.append(f"  losses: {', '.join(f'{loss.name} x {loss.weight:g}' for loss in stage.losses_in(model))}")
    stage.check(model, processes)
    data = stage.open_data(model, annotations)
    lines += _describe_data(data.datasets, data.ratios, absent)
    if not absent:
        try:
            stage.check_targets(model, data)
            lines += _describe_class_weights(stage, model, data)
        except HiptrackError as error:
            lines.append(f"  {error}")
            absent.append(str(error))
    return lines


def _describe_class_weights(stage, model, data):
    """The class weights of a loss that has any, and what they were counted from."""
    lines = []
    for loss in stage.losses:
        weights = getattr(loss, "weights", None)
        if weights is not None:
            named = zip(model.challenge.classes, weights.tolist(), strict=True)
            lines.append(f"  class weights: {', '.join(f'{name} {weight:.3g}' for name, weight in named)}")
            if loss.class_weights == "balanced":
                shares = zip(model.challenge.classes, data.class_shares(), strict=True)
                lines.append(f"  drawn frames: {', '.join(f'{name} {share:.1%}' for name, share in shares)}")
    return lines


def _describe_data(datasets, ratios, absent):
    lines = []
    for number, dataset in enumerate(datasets):
        share = "" if ratios is None or len(datasets) == 1 else f" ({ratios[number]:.0%} of the clips)"
        missing = dataset.missing_paths()
        absent += missing
        if missing:
            lines += [f"  data {dataset.name}{share}", *(f"  not found: {path}" for path in missing)]
            continue
        try:
            lines.append(f"  data {dataset.describe()}{share}")
        except HiptrackError as error:
            lines.append(f"  data {dataset.name}{share}: {error}")
            absent.append(str(error))
    return lines


def _trains(module):
    return any(p.requires_grad for p in module.parameters())


def _millions(parameters):
    return f"{sum(p.numel() for p in parameters):,} parameters"
