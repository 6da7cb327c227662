"""What can be said of a run before it starts: what cannot be, its warnings, and for `--dry-run` the resolved pipeline."""

import gin
import psutil
import torch

from hiptrack.config.meaning import current_bindings
from hiptrack.data.clips import ClipDataset, Geometry
from hiptrack.data.jitter import jitter_warning, share_lost
from hiptrack.data.loader import divide_batch
from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.files import excerpt
from hiptrack.models.challenge import taxonomy_of
from hiptrack.models.prepare import choose_kernels, device_faults, lay_out
from hiptrack.models.weights import model_text
from hiptrack.training.cost import COPIES, WORKING, duration, memory_of_step, search_frames, time_of_step
from hiptrack.training.optimizers import freeze_all_but
from hiptrack.training.selection import SELECTION, selection_warning

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


def run_warnings(training, clips):
    """What a Training's start warns of, {what of: text}; clips: the ClipDataset of each stage.

    Raises DataError where the validation's data are missing or cannot be read.
    """
    found = {}
    if training.validation is not None:
        found[SELECTION] = selection_warning(training.validation, [d for own in clips for d in own.data.drawn])
    for stage, own in zip(training.stages, clips, strict=True):
        warning = jitter_warning(own, share_lost(own))
        found[f"jitter, {stage.name}"] = warning and f"stage {stage.name}: {warning}"
    return {what: text for what, text in found.items() if text}


def print_pipeline(training, accelerator, timed):
    """Print what a Training would do; returns the exit code: 0 where everything that it needs is there.

    Builds no data and reads no weights that are absent. timed: take a step of each stage, and print how long all takes.
    """
    text, complete = describe_pipeline(training, accelerator)
    accelerator.print(text)
    if timed:
        with device_faults():
            accelerator.print("\n".join(["", *describe_time(training, accelerator)]))
    return 0 if complete else 1


def describe_pipeline(training, accelerator):
    """(what a Training would do, whether everything that it needs is there)."""
    model, absent = lay_out(training.model(), accelerator.device, accelerator.mixed_precision), []
    resident = psutil.Process().memory_info().rss  # of a training process before its first step: the same is imported
    lines = [f"model: {_millions(model.parameters())}"]
    lines += [f"  {name}: {_millions(module.parameters())}" for name, module in model.named_children()]
    if model.challenge is not None:
        own = sum(p.numel() for name, p in model.challenge.named_parameters() if not name.startswith("to_grid."))
        lines.append(f"challenge branch: {own:,} parameters without the projection to the grid")
    lines += _describe_file(absent)
    for weights in training.initial_weights:
        missing = weights.missing_paths()
        absent += missing
        lines.append(f"initial weights: {weights.describe()}")
        lines += [f"  not found: {path}" for path in missing]
    drawn = []
    for number, stage in enumerate(training.stages):
        data = stage.open_data(model, training.annotations)
        with gin.config_scope(stage.scope or None):
            lines += ["", *_describe_stage(number + 1, stage, model, accelerator.num_processes)]
            lines += _describe_memory(stage, model, data, accelerator, resident)
        before = len(absent)
        lines += _describe_data(data.datasets, data.ratios, absent)
        if len(absent) == before:
            lines += _describe_clips(stage, model, data, training.seed, number, absent)
            drawn += data.drawn
    if training.validation is not None:
        training.validation.data.label_by(taxonomy_of(model), training.annotations)
    lines += ["", *_describe_validation(training.validation, drawn, absent)]
    if training.validation is not None:
        lines += _describe_tracker(training, model, accelerator, absent)
    if absent:
        lines += ["", f"the run cannot start yet: {len(set(absent))} things above are missing or wrong"]
    return "\n".join(lines), not absent


def _describe_file(absent):
    """What is wrong with the description of the model in its weights files."""
    try:
        model_text()
        return []
    except HiptrackError as error:
        absent.append(str(error))
        return [f"  no weights file could name this model: {error}"]


def _describe_stage(number, stage, model, processes):
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
    return lines


def _describe_memory(stage, model, data, accelerator, resident):
    """The memory of a step in the phase that takes most. resident: bytes of this process, the model's among them."""
    frames, device = search_frames(data.sampler), accelerator.device
    try:
        tensors = max(memory_of_step(stage, phase, model, frames, accelerator) for phase in stage.phases)
    except RuntimeError as error:
        return [f"  memory of a step: not known, for it cannot be taken without numbers ({excerpt(str(error))})"]
    if device.type == "cuda":
        own = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
        taken, free, where = own + tensors, torch.cuda.mem_get_info(device)[0], "of the GPU"
    else:
        taken, free, where = resident + WORKING + COPIES * tensors, psutil.virtual_memory().available, "of this machine"
    lines = [f"  memory of a step: about {_gb(taken)} {where} for each training process"]
    if taken > free:
        lines.append(
            f"  warning: only {_gb(free)} are free: lower Stage.largest_pass, or set Stage.activation_checkpointing = True"
        )
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


def _describe_clips(stage, model, data, seed, number, absent):
    """What is wrong with a stage's data, which are there; how often their jitter loses the target."""
    try:
        stage.check_targets(model, data)
        clips = ClipDataset(data, Geometry.of(model), seed, number)
        share = share_lost(clips)
        lines = _describe_class_weights(stage, model, data)
    except HiptrackError as error:
        absent.append(str(error))
        return [f"  {error}"]
    lines.append(f"  jitter: {share:.1%} of the search frames do not show the target's centre")
    warning = jitter_warning(clips, share)
    return lines + [f"  warning: {warning}"] if warning else lines


def _describe_validation(validation, drawn, absent):
    if validation is None:
        return ["no validation (train.validation): the newest weights are kept, and nothing chooses the best of them"]
    lines = [f"validation every {validation.every} epochs", *_describe_data([validation.data], None, absent)]
    try:
        warning = selection_warning(validation, drawn, may_be_missing=True)
    except HiptrackError as error:
        return lines if str(error) in absent else [*lines, f"  {error}"]
    return [*lines, f"  warning: {warning}"] if warning else lines


def _describe_tracker(training, model, accelerator, absent):
    """What is wrong with the tracker of the validation."""
    try:
        training.validation.check(model, accelerator, training.stages)
        return []
    except HiptrackError as error:
        absent.append(str(error))
        return [f"  {error}"]


def describe_time(training, accelerator):
    """Lines that tell how long a step, an epoch and a stage take, and all of them, by steps on clips of noise."""
    choose_kernels(training.deterministic, training.tf32)
    model = lay_out(training.model(), accelerator.device, accelerator.mixed_precision)
    lines, whole = [f"time of clips of noise on this machine ({accelerator.device}):"], 0.0
    for stage in training.stages:
        spent = 0.0
        with gin.config_scope(stage.scope or None):
            frames = search_frames(stage.data().sampler)
            for phase, end in zip(stage.phases, [*(phase.first for phase in stage.phases[1:]), stage.epochs]):
                seconds = time_of_step(stage, phase, model, frames, accelerator)
                epoch = seconds * stage.steps_per_epoch
                spent += epoch * (end - phase.first)
                since = f" from epoch {phase.first} on" if len(stage.phases) > 1 else ""
                lines.append(f"  {stage.name}{since}: {seconds:.3g} s a step, {duration(epoch)} an epoch")
        lines.append(f"  {stage.name}: {duration(spent)} the stage")
        whole += spent
    return [*lines, f"  the whole run: {duration(whole)}; data loading, validation and checkpoints are not in it"]


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


def _gb(size):
    return f"{size / 1e9:.1f} GB"
