"""Training checkpoints: everything a run needs to go on as if it had never stopped.

A checkpoint is a folder `checkpoints/step-00001234` with weights.safetensors, optimizer.pt, rng-<process>.pt and, written
last, state.json. It is made under a temporary name and renamed when it is complete and on disk; older ones are removed
after that.
"""

import json
import os
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from hiptrack.errors import CheckpointError, ConfigError, NotFoundError
from hiptrack.models.pretrained import load_exact, read_tensors
from hiptrack.models.weights import save_weights

KEEP = 2


@dataclass
class Position:
    """Where a run is: its stage, the epoch of that stage, steps done in that epoch, and in the whole run."""

    stage: int = 0
    epoch: int = 0
    epoch_step: int = 0
    step: int = 0


def save_checkpoint(folder, accelerator, model, bindings, optimizer, position, outline):
    """Write a checkpoint of all processes below `folder`; called by every process at the same step.

    model: the unwrapped model; optimizer: None at the start of a stage, where there is none yet; outline: of the stages,
    which a resumed run must share.
    """
    folder = Path(folder)
    final = folder / f"step-{position.step:08d}"
    temporary = folder / f"tmp-{final.name}"
    if accelerator.is_main_process:
        remove_unfinished(folder)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    _save(rng_state(), temporary / f"rng-{accelerator.process_index}.pt")
    if accelerator.is_main_process:
        save_weights(temporary / "weights.safetensors", model, bindings, step=position.step)
        scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
        states = {"optimizer": optimizer.state_dict() if optimizer else None, "scaler": scaler}
        _save(states, temporary / "optimizer.pt")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state = {"position": asdict(position), "processes": accelerator.num_processes, "stages": outline}
        _write_synced(temporary / "state.json", json.dumps(state, indent=1).encode())
        _sync_folder(temporary)
        if final.exists():
            shutil.rmtree(final)
        os.rename(temporary, final)
        _sync_folder(folder)
        for old in finished_checkpoints(folder)[:-KEEP]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def finished_checkpoints(folder):
    """Complete checkpoints below a folder, oldest first."""
    return sorted(path for path in Path(folder).glob("step-*") if (path / "state.json").is_file())


def set_aside_after(folder, step):
    """Rename checkpoints beyond a step: a run that goes on from an earlier one must not come back to them."""
    for path in finished_checkpoints(folder):
        if int(path.name.removeprefix("step-")) > step:
            os.rename(path, path.with_name(f"abandoned-{path.name}"))


def remove_unfinished(folder):
    """Delete what an interrupted save left behind."""
    for path in Path(folder).glob("tmp-*"):
        shutil.rmtree(path)


@dataclass
class Checkpoint:
    """A checkpoint on disk, read piece by piece as the run is built up again."""

    path: Path
    position: Position
    processes: int
    stages: list

    @classmethod
    def open(cls, path):
        """Raises NotFoundError, or CheckpointError where it is no complete checkpoint."""
        path = Path(path)
        if not path.is_dir():
            raise NotFoundError(f"not found: {path} (a checkpoint folder step-... was expected)", str(path))
        try:
            state = json.loads((path / "state.json").read_text())
            position = Position(**{name: int(state["position"][name]) for name in Position.__dataclass_fields__})
            return cls(path, position, int(state["processes"]), list(state["stages"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} is no complete checkpoint: its state.json cannot be read ({error})."
            ) from error

    def require_outline(self, outline):
        """Raise ConfigError unless the run to resume has the stages of this one, naming those that differ."""
        if self.stages != outline:
            theirs, ours = ([s for s in a if s not in b] for a, b in ((self.stages, outline), (outline, self.stages)))
            raise ConfigError(
                f"{self.path} was written by a run with other stages. As [name, epochs, steps of an epoch, global batch, "
                f"learning rate], there: {theirs}; now: {ours}. Resume with the run's own config.gin, or start in another folder "
                "(--run DIR), from its weights where you want them (TrackerWeights)."
            )

    def load_weights(self, model):
        """Fill the unwrapped model."""
        load_exact(model, read_tensors(self.path / "weights.safetensors"), self.path)

    def load_optimizer(self, optimizer):
        """Fill the optimiser's state; its settings stay those of the configuration."""
        state = _load(self.path / "optimizer.pt")["optimizer"]
        if state is not None:
            fresh = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state["state"], "param_groups": fresh})

    def load_scaler(self, accelerator):
        """Fill the loss scaler, where there is one."""
        state = _load(self.path / "optimizer.pt")["scaler"]
        if state is not None and accelerator.scaler:
            accelerator.scaler.load_state_dict(state)

    def load_rng(self, process):
        """Set this process's random generators; a run of other size than the saved one starts them anew."""
        path = self.path / f"rng-{process}.pt"
        if path.is_file():
            set_rng_state(_load(path))
        elif process < self.processes:
            raise CheckpointError(f"{self.path} lacks {path.name}: the checkpoint is damaged.")


def rng_state():
    """State of the global generators that training draws from (dropout, drop path)."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None}


def set_rng_state(state):
    """Set what `rng_state` gave."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _load(path):
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or truncated: {str(error).splitlines()[0]}") from error


def _save(content, path):
    with open(path, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def _write_synced(path, content):
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
