"""Training checkpoints after damage: passed over for the one before, or, where all are damaged, a clear error."""

import torch
from accelerate import Accelerator
from hypothesis import strategies as st
from soak.fuzz_core import Folder, Tally, check_words, damaged, damages, made, run
from toy import toy_model

from hiptrack.errors import CheckpointError
from hiptrack.training.checkpoint import Checkpoint, Position, load_tensors, newest_sound, save_checkpoint

FILES = ("state.json", "weights.safetensors", "optimizer.pt", "rng-0.pt")
cases = st.tuples(
    st.sampled_from(FILES),
    st.one_of(damages(3), st.just("absent"), st.just("empty")),
    made(lambda rng: rng.random() < 0.2),  # whether the one before is damaged too
)


def fuzz_checkpoints(count: int, seed: int) -> Tally:
    """Each case: one file of the newest of two checkpoints, and sometimes of the other too, is changed, emptied or removed."""
    with Folder() as folder:
        model = toy_model()
        optimizer = torch.optim.AdamW(model.parameters())
        sum(p.sum() for p in model.parameters()).backward()
        optimizer.step()
        accelerator = Accelerator(cpu=True)
        for step in (1, 2):
            position = Position(0, 0, step, step)
            save_checkpoint(
                folder.path, accelerator, model, "", optimizer, position, {"validation": None}, keep=2, chooses=True
            )
        for path in sorted(folder.path.rglob("*")):
            if path.is_file():
                folder.write(str(path.relative_to(folder.path)), path.read_bytes())
        return run("training checkpoints", cases, lambda case: _check(folder, *case), count, seed)


def _check(folder, name, change, both):
    sound = dict(folder.files)
    hit = [folder.path / step / name for step in ("step-00000002", "step-00000001")[: 1 + both]]
    newest = folder.path / "step-00000002"
    state = Checkpoint.open(newest).state
    changed = [_changed(folder, path, sound[path], change) for path in hit]
    try:
        path, passed_over = newest_sound(folder.path)
        folder.check()
        if path == newest:  # JSON that reads the same is the same
            assert not changed[0] or name == "state.json" and Checkpoint.open(path).state == state, f"{path} was taken"
        assert bool(passed_over) == (path != newest)
        for readable in ("optimizer.pt", "rng-0.pt"):
            load_tensors(path / readable)
        return True
    except CheckpointError as error:
        assert all(changed), f"a sound one is refused: {error}"
        check_words(error, str(folder.path))
        return False
    finally:
        for path, data in sound.items():
            folder.write(str(path.relative_to(folder.path)), data)


def _changed(folder, path, data, change):
    """Change a file; returns whether that makes it another."""
    if change == "absent":
        path.unlink()
        del folder.files[path]
        return True
    new = b"" if change == "empty" else damaged(data, change)
    folder.write(str(path.relative_to(folder.path)), new)
    return new != data
