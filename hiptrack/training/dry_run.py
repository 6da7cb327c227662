"""What can be said of a run before it starts: what cannot be, its warnings, and for `--dry-run` the resolved pipeline."""

import copy

import gin
import psutil
import torch
from accelerate.utils import gather_object

from hiptrack.config.meaning import current_bindings
from hiptrack.data.clips import ClipDataset, Geometry
from hiptrack.data.jitter import jitter_warning, share_lost
from hiptrack.data.loader import divide_batch
from hiptrack.errors import ConfigError, HiptrackError, message_of
from hiptrack.files import excerpt
from hiptrack.models.challenge import taxonomy_of
from hiptrack.models.prepare import choose_kernels, device_faults, lay_out
from hiptrack.models.weights import model_text, some_of
from hiptrack.processes import processes_here
from hiptrack.training.cost import (
    COPIES,
    WORKING,
    duration,
    largest_phases,
    memory_of_step,
    search_frames,
    time_of_step,
)
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

    Builds no data and reads no weights that are absent. timed: take passes of each stage, and print how long all takes.
    """
    text, complete, too_large = describe_pipeline(training, accelerator)
    accelerator.print(text)
    if timed:
        too_large = set(gather_object(too_large))  # each process looks at the memory for itself, and all step together
        with device_faults():
            accelerator.print("\n".join(["", *describe_time(training, accelerator, too_large)]))
    return 0 if complete else 1


def describe_pipeline(training, accelerator):
    """(what a Training would do, whether everything that it needs is there, names of stages that memory is too small for)."""
    model = lay_out(training.model(), accelerator.device, accelerator.mixed_precision)
    absent, too_large = [], []
    resident = psutil.Process().memory_info().rss  # of a training process before its first step: the same is imported
    lines = [f"model: {_millions(model.parameters())}"]
    lines += [f"  {name}: {_millions(module.parameters())}" for name, module in model.named_children()]
    if model.challenge is not None:
        own = sum(p.numel() for name, p in model.challenge.named_parameters() if not name.startswith("to_grid."))
        lines.append(f"challenge branch: {own:,} parameters without the projection to the grid")
    lines += _describe_file(absent)
    lines += _describe_weights(training.initial_weights, model, absent)
    drawn = []
    for number, stage in enumerate(training.stages):
        data = stage.open_data(model, training.annotations)
        with gin.config_scope(stage.scope or None):
            lines += ["", *_describe_stage(number + 1, stage, model, accelerator.num_processes)]
            memory, fits = _describe_memory(stage, model, data, accelerator, resident)
        lines += memory
        too_large += [] if fits else [stage.name]
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
        things, places = len(set(absent)), len(absent)  # a folder that two stages read is one thing
        what = "1 thing is" if things == 1 else f"{things} things are"
        where = "" if places == things else f" (in {places} lines)"
        lines += ["", f"the run cannot start yet: {what} missing or wrong above{where}"]
    return "\n".join(lines), not absent, too_large


def _describe_file(absent):
    """What is wrong with the description of the model in its weights files."""
    try:
        model_text()
        return []
    except HiptrackError as error:
        absent.append(str(error))
        return [f"  no weights file could name this model: {error}"]


def _describe_weights(initial, model, absent):
    """The first weights, and why they do not fit the model: they are held against its shapes, and nothing is loaded."""
    lines, shapes = [], copy.deepcopy(model).to("meta")
    for weights in initial:
        lines.append(f"initial weights: {weights.describe()}")
        missing = weights.missing_paths()
        absent += missing
        lines += [f"  not found: {path}" for path in missing]
        if missing:
            continue
        try:
            weights(shapes)
        except HiptrackError as error:
            absent.append(str(error))
            lines.append(f"  {error}")
    return lines


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
        for word, trains in (("trainable", True), ("frozen", False)):
            chosen = [p for p in model.parameters() if p.requires_grad == trains]
            lines.append(f"  {word}: {_millions(chosen)} in {_holders(model, trains)}")
        for group in stage.parameter_groups(model):
            lines.append(f"  learning rate {group['lr']:g}: {group['name']} ({_millions(group['params'])})")
        lines.append(f"  losses: {', '.join(f'{loss.name} x {loss.weight:g}' for loss in stage.losses_in(model))}")
    stage.check(model, processes)
    return lines


def _describe_memory(stage, model, data, accelerator, resident):
    """(lines on the memory of a step in the phase that takes most, whether there is so much).

    resident: bytes of this process, the model's among them. On a processor all processes of this machine share what is
    free, and hold so much already.
    """
    frames, device = search_frames(data.sampler), accelerator.device
    try:
        tensors = max(
            memory_of_step(stage, phase, model, frames, accelerator) for phase in largest_phases(stage, model)
        )
    except RuntimeError as error:
        return [f"  memory of a step: not known, for it cannot be taken without numbers ({excerpt(str(error))})"], True
    if device.type == "cuda":
        own = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
        taken, free, sharing, where = own + tensors, torch.cuda.mem_get_info(device)[0], 1, "of the GPU"
    else:
        taken, sharing, where = resident + WORKING + COPIES * tensors, processes_here(), "of this machine"
        free = psutil.virtual_memory().available + sharing * resident
    lines = [f"  memory of a step: about {_gb(taken)} {where} for each training process"]
    fits = sharing * taken <= free
    if not fits:
        whom = "it" if sharing == 1 else f"the {sharing} of this machine"
        lines.append(
            f"  warning: only {_gb(free)} are there for {whom}: lower Stage.largest_pass, or set "
            "Stage.activation_checkpointing = True"
        )
    return lines, fits


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
    when = "epoch" if validation.every == 1 else f"{validation.every} epochs, and at the end of each stage"
    lines, before = [f"validation every {when}"], len(absent)
    lines += _describe_data([validation.data], None, absent)
    if len(absent) == before and not validation.data.is_endless:
        lines.append(f"  tracked: {some_of(sequence.name for sequence in validation.held_out)}")
    try:
        warning = selection_warning(validation, drawn, may_be_missing=True)
    except HiptrackError as error:
        return lines if str(error) in absent else [*lines, f"  {error}"]
    return [*lines, f"  warning: {warning}"] if warning else lines


def _describe_tracker(training, model, accelerator, absent):
    """What is wrong with the tracker of the validation."""
    try:
        training.validation.check(model, accelerator)
        return []
    except HiptrackError as error:
        absent.append(message_of(error))
        return [f"  {message_of(error)}"]


def describe_time(training, accelerator, too_large):
    """Lines that tell how long a step, an epoch and a stage take, and all of them, by passes on clips of noise.

    too_large: names of the stages whose step takes more memory than there is; they are not timed.
    """
    choose_kernels(training.deterministic, training.tf32)
    model = lay_out(training.model(), accelerator.device, accelerator.mixed_precision)
    lines, whole = [f"time of clips of noise on this machine ({accelerator.device}):"], 0.0
    for stage in training.stages:
        if stage.name in too_large:
            lines.append(f"  {stage.name}: not timed, for a step takes more memory than there is")
            continue
        spent, most = 0.0, _at_most([stage])
        with gin.config_scope(stage.scope or None):
            frames = search_frames(stage.data().sampler)
            for phase, end in zip(stage.phases, [*(phase.first for phase in stage.phases[1:]), stage.epochs]):
                seconds = time_of_step(stage, phase, model, frames, accelerator)
                epoch = seconds * stage.steps_per_epoch
                spent += epoch * (end - phase.first)
                since = f" from epoch {phase.first} on" if len(stage.phases) > 1 else ""
                lines.append(f"  {stage.name}{since}: {most}{seconds:.3g} s a step, {most}{duration(epoch)} an epoch")
        lines.append(f"  {stage.name}: {most}{duration(spent)} the stage")
        whole += spent
    if too_large:
        return [*lines, "  the whole run: not known, for not all of it was timed"]
    total = f"{_at_most(training.stages)}{duration(whole)}"
    return [*lines, f"  the whole run: {total}; data loading, validation and checkpoints are not in it"]


def _at_most(stages):
    """What stands before a time: a keep ratio that changes is timed at its largest."""
    return "at most " if any(stage.keep_ratio is not None for stage in stages) else ""


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


def _holders(model, trains):
    """The parts of a model whose parameters are trained, or not (trains); "in part" where that holds for some of them."""
    found = []
    for name, part in model.named_children():
        alike = [p.requires_grad == trains for p in part.parameters()]
        if any(alike):
            found.append(name if all(alike) else f"{name} (in part)")
    return ", ".join(found) or "-"


def _millions(parameters):
    return f"{sum(p.numel() for p in parameters):,} parameters"


def _gb(size):
    return f"{size / 1e9:.1f} GB"
