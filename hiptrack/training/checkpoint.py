"""Training checkpoints: everything a run needs to go on as if it had never stopped.

A checkpoint is a folder `checkpoints/step-00001234` with weights.safetensors, optimizer.pt, rng-<process>.pt and,
written last, state.json with the digests of all of them. It is made under a temporary name and renamed when it is
complete and on disk; older ones are removed after that. `-end` in its name says that the epoch of that step is over,
validation included.
"""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from hiptrack.errors import CheckpointError, NotFoundError
from hiptrack.files import ANY_SIZE, check_file, file_hash, read_bytes, sync_folder, write_atomically, write_synced
from hiptrack.models.weights import load_exact, read_tensors, save_weights
from hiptrack.processes import write_together
from hiptrack.training.optimizers import group_steps, restore_group_steps

STATE, WEIGHTS, OPTIMIZER = "state.json", "weights.safetensors", "optimizer.pt"
BEST = "best.safetensors"  # in the run's folder
MAX_STATE_BYTES = 2**28
NAME = re.compile(r"step-\d{8,}(-end)?")  # of a checkpoint's folder


@dataclass
class Position:
    """Where a run is: its stage, the epoch of that stage, steps done in that epoch, and in the whole run."""

    stage: int = 0
    epoch: int = 0
    epoch_step: int = 0
    step: int = 0

    @property
    def folder_name(self):
        """The name of its checkpoint; by name they sort by age."""
        return f"step-{self.step:08d}" + ("" if self.epoch_step else "-end")

    def advance(self):
        self.epoch_step, self.step = self.epoch_step + 1, self.step + 1

    def end_epoch(self):
        self.epoch, self.epoch_step = self.epoch + 1, 0

    def end_stage(self):
        self.stage, self.epoch = self.stage + 1, 0


def save_checkpoint(folder, accelerator, model, text, optimizer, position, state, keep, chooses):
    """Write a checkpoint of all processes below `folder`; called by every process at the same step.

    Args:
        model: the unwrapped model; text: its description.
        optimizer: the bare one; None between two stages, where there is none.
        state: whatever else the run must find again, a JSON-ready dict; its `validation` (values with "AO", or None)
            decides which checkpoint is the best.
        keep: so many of the newest are kept, and the best.
        chooses: whether there may be a best one (selection.py); if not, only the newest are kept.

    Raises HiptrackError on all processes where it cannot be written; the earlier ones are then as they were.
    """
    folder = Path(folder)
    final = folder / position.folder_name
    unfinished = folder / f"tmp-{final.name}"

    def begin():
        remove_unfinished(folder)
        unfinished.mkdir(parents=True)

    def write_share():
        save_tensors(unfinished / f"rng-{accelerator.process_index}.pt", rng_state())

    def write_rest():
        save_weights(unfinished / WEIGHTS, model, text, step=position.step)
        scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
        steps = group_steps(optimizer) if optimizer else {}
        content = {"optimizer": named_state(model, optimizer), "group_steps": steps, "scaler": scaler}
        save_tensors(unfinished / OPTIMIZER, content)
        _write_state(unfinished, {"position": asdict(position), "processes": accelerator.num_processes, **state})
        set_aside(final)  # a folder of this name is none that could be resumed
        os.rename(unfinished, final)
        sync_folder(folder)
        sync_folder(folder.parent)

    def tidy():
        best = best_checkpoint(folder) if chooses else None
        publish_best(best, folder.parent / BEST)
        prune(folder, keep, best)

    what, is_main = f"the checkpoint {final}", accelerator.is_main_process
    try:
        write_together(lambda: is_main and begin(), what)
        write_together(write_share, what)
        write_together(lambda: is_main and write_rest(), what)
        write_together(lambda: is_main and tidy(), f"{BEST} beside {folder}")
    finally:
        if is_main:
            shutil.rmtree(unfinished, ignore_errors=True)


def finished_checkpoints(folder):
    """Complete checkpoints below a folder, oldest first."""
    return sorted(path for path in Path(folder).glob("step-*") if NAME.fullmatch(path.name) and path.is_dir())


def newest_sound(folder):
    """(the newest undamaged checkpoint below a folder, or None; why each newer one is passed over).

    Raises CheckpointError where there are checkpoints, but all are damaged.
    """
    passed_over = []
    for path in reversed(finished_checkpoints(folder)):
        try:
            Checkpoint.open(path).require_sound()
            return path, passed_over
        except CheckpointError as error:
            passed_over.append(str(error))
    if passed_over:
        raise CheckpointError(
            f"every checkpoint in {folder} is damaged: {' '.join(passed_over)} Start anew in another folder."
        )
    return None, []


def best_checkpoint(folder):
    """The checkpoint with the highest AO of validation, the earliest of equals.

    None where no validation chose: there was none, or it was on test data. Earlier starts of the run may have chosen:
    whoever asks sees to it that the present one may.
    """
    scored = []
    for path in finished_checkpoints(folder):
        try:
            values = Checkpoint.open(path).state["validation"]
        except CheckpointError:  # a damaged one is nobody's best
            continue
        if values and "AO" in values:
            scored.append((values["AO"], path))
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def prune(folder, keep, best):
    """Remove all but the newest `keep` checkpoints and the best, which is None where there is none."""
    for path in finished_checkpoints(folder)[:-keep]:
        if path != best:
            doomed = path.with_name(f"tmp-{path.name}")  # half a folder must not pass for a checkpoint
            os.rename(path, doomed)
            shutil.rmtree(doomed, ignore_errors=True)  # of what cannot go now, the next start gets rid


def publish_best(best, path):
    """Make `path` a copy of the weights of the best checkpoint, which is None where there is none."""
    if best is None or (path.is_file() and file_hash(path) == Checkpoint.open(best).state["files"][WEIGHTS]):
        return
    write_atomically(path, read_bytes(best / WEIGHTS, ANY_SIZE))


def set_aside_after(folder, name):
    """Rename checkpoints newer than `name`: a run that goes on from an earlier one must not come back to them."""
    for path in finished_checkpoints(folder):
        if path.name > name:
            set_aside(path)


def set_aside(path):
    """Rename a checkpoint's folder or a weights file, where there is one, so that it is never taken up; its new path."""
    aside = path.with_name(f"abandoned-{path.name}")
    while aside.exists():
        aside = aside.with_name(f"{aside.stem}-again{aside.suffix}")
    if path.exists():
        os.rename(path, aside)
    return aside


def remove_unfinished(folder):
    for path in Path(folder).glob("tmp-*"):
        if NAME.fullmatch(path.name.removeprefix("tmp-")):
            shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, read piece by piece as the run is built up again; `state` holds what was saved with it."""

    path: Path
    position: Position
    processes: int
    state: dict

    @classmethod
    def open(cls, path):
        """Raises NotFoundError, or CheckpointError where it is no complete checkpoint."""
        path = Path(path)
        if not path.is_dir():
            raise NotFoundError(f"not found: {path} (a checkpoint folder step-... was expected)", str(path))
        try:
            content = json.loads(read_bytes(path / STATE, MAX_STATE_BYTES))
            state = content["state"]
            if content["sha256"] != _digest(state):
                raise ValueError("its digest does not fit its content")
            return cls(path, Position(**state["position"]), state["processes"], state)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path} is no complete checkpoint: its {STATE} cannot be used ({error}).") from error

    def require_sound(self):
        """Raise CheckpointError unless every file is there as it was written."""
        for name, digest in self.state["files"].items():
            try:
                sound = file_hash(self.path / name) == digest
            except OSError as error:
                raise CheckpointError(
                    f"{self.path} is damaged: {name} cannot be read ({error.strerror or error})."
                ) from error
            if not sound:
                raise CheckpointError(f"{self.path} is damaged: {name} is not as it was written.")

    def load_weights(self, model):
        load_exact(model, read_tensors(self.path / WEIGHTS), self.path)

    def load_optimizer(self, model, optimizer):
        """Fill the bare optimiser's state; its settings stay those of the configuration.

        Returns what is to be told of parameters of which the checkpoint knows nothing; "" where it knows all.
        """
        content = load_tensors(self.path / OPTIMIZER)
        saved = content["optimizer"]
        restore_group_steps(optimizer, content.get("group_steps", {}))
        names = parameter_names(model, optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state = {
            number: {key: laid_out_as(parameter, value) for key, value in saved[name].items()}
            for number, (name, parameter) in enumerate(zip(names, parameters, strict=True))
            if name in saved
        }
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        fresh = [name for name in names if name not in saved] if saved else []
        return f"the optimiser starts anew for {len(fresh)} parameters, {fresh[0]} among them" if fresh else ""

    def load_scaler(self, accelerator):
        state = load_tensors(self.path / OPTIMIZER)["scaler"]
        if state is not None and accelerator.scaler:
            accelerator.scaler.load_state_dict(state)

    def load_rng(self, process):
        """Set this process's random generators; one that the saved run did not have starts them anew."""
        if process < self.processes:
            set_rng_state(load_tensors(self.path / f"rng-{process}.pt"))


def laid_out_as(parameter, value):
    """A value of an optimiser's state in its parameter's memory order: fused kernels ignore strides."""
    if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
    return value


def parameter_names(model, optimizer):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def named_state(model, optimizer):
    """What a bare optimiser knows of each parameter: {name: state}; empty without optimiser."""
    if optimizer is None:
        return {}
    state, names = optimizer.state_dict()["state"], parameter_names(model, optimizer)
    return {name: state[number] for number, name in enumerate(names) if number in state}


def rng_state():
    """State of the global generators that training draws from (dropout, drop path)."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None}


def set_rng_state(state):
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _write_state(folder, state):
    files = [WEIGHTS, OPTIMIZER, *(f"rng-{process}.pt" for process in range(state["processes"]))]
    state = {**state, "files": {name: file_hash(folder / name) for name in files}}
    write_synced(folder / STATE, json.dumps({"state": state, "sha256": _digest(state)}, indent=1).encode())
    sync_folder(folder)


def _digest(state):
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def save_tensors(path, content):
    """Write tensors in plain containers, and wait until they are on the disk."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_synced(path, buffer.getbuffer())


def load_tensors(path):
    """Read what `save_tensors` wrote; nothing in the file is executed. Raises CheckpointError for anything else."""
    try:
        check_file(path, ANY_SIZE)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{path} is refused or damaged: {reason}") from error
