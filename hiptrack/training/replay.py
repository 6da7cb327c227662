"""Runs a step again that a training run kept because its loss or gradient was not finite."""

import json
import math

import torch
from accelerate.utils import send_to_device

from hiptrack.errors import CheckpointError, ConfigError, NotFoundError
from hiptrack.files import read_text
from hiptrack.models.prepare import choose_kernels, device_faults, lay_out
from hiptrack.models.weights import load_exact, read_tensors
from hiptrack.processes import open_accelerator
from hiptrack.training.checkpoint import load_tensors, set_rng_state
from hiptrack.training.dry_run import check_run
from hiptrack.training.guard import FAULT, WEIGHTS
from hiptrack.training.step import TrainingStep

MAX_BYTES = 2**20  # of what a run writes of a step


def replay(folder, training):
    """Run the kept step again in one process and say where it goes wrong; nothing is written.

    The shares of all processes become passes of this one, with the random numbers of the first. Returns the exit code:
    1 where a loss or gradient is not finite again. Raises NotFoundError or CheckpointError for a folder that holds no
    such step, ConfigError without its stage. training: the Training whose run left the folder.
    """
    check_run(training)
    accelerator, stages = open_accelerator(training.mixed_precision), training.stages
    choose_kernels(training.deterministic, training.tf32)
    model = lay_out(training.model(), accelerator.device, accelerator.mixed_precision)
    fault, shares = read_fault(folder)
    if fault["stage"] not in [stage.name for stage in stages]:
        raise ConfigError(f"{folder} is of the stage '{fault['stage']}', which is none of train.stages.")
    stage = next(stage for stage in stages if stage.name == fault["stage"])
    load_exact(model, read_tensors(folder / WEIGHTS), folder)
    stage.prepare(model, stage.phase_at(fault["position"]["epoch"]))
    wrapped = accelerator.prepare(model)
    wrapped.train()
    step = TrainingStep(accelerator, wrapped, stage.losses_in(model))
    batches = [send_to_device(batch, accelerator.device) for share in shares for batch in share["batches"]]
    set_rng_state(shares[0]["rng"])
    scale = 1.0
    if accelerator.scaler and shares[0]["scaler"]:
        accelerator.scaler.load_state_dict(shares[0]["scaler"])
        scale = accelerator.scaler.get_scale()
    outputs = watch_outputs(model)
    with device_faults():
        scalars, _ = step.backward(batches, fault["keep_ratio"])
    gradients = {name: p.grad / scale for name, p in model.named_parameters() if p.grad is not None}
    wrong = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    scalars["GradientNorm"] = math.sqrt(sum(gradient.double().square().sum().item() for gradient in gradients.values()))
    accelerator.print(
        f"step {fault['position']['step'] + 1} of stage '{stage.name}', {len(batches)} passes of the batch:"
    )
    for name, value in scalars.items():
        accelerator.print(f"  {name:24} {value:g}")
    if outputs:
        accelerator.print(f"the first output that is not finite is that of the module {outputs[0]}")
    if wrong:
        accelerator.print(
            f"{len(wrong)} of {len(gradients)} gradients are not finite, among them {', '.join(wrong[:6])}"
        )
    failed = bool(wrong) or not all(math.isfinite(value) for value in scalars.values())
    accelerator.print(f"not finite again ({fault['not_finite']} in the run)" if failed else "all is finite this time")
    return int(failed)


def read_fault(folder):
    """(what the run wrote of the step, the share of each process: {"batches", "rng"})."""
    if not (folder / FAULT).is_file():
        raise NotFoundError(f"not found: {folder / FAULT} (a folder fault-step-... of a run was expected)", str(folder))
    try:
        fault = json.loads(read_text(folder / FAULT, MAX_BYTES))
        shares = [load_tensors(folder / f"batch-{process}.pt") for process in range(fault["processes"])]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{folder} is damaged: its {FAULT} cannot be used ({error}).") from error
    return fault, shares


def watch_outputs(model):
    """A list that fills with the names of modules, in their order, whose output is not finite."""
    found = []

    def look(name):
        def hook(_module, _inputs, output):
            if isinstance(output, torch.Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(look(name))
    return found
