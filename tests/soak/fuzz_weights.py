"""Weights files of ours after damage: the model that was saved, but for the bytes that were hit, or a clear error."""

import json

import torch
from hypothesis import strategies as st
from soak.fuzz_core import Folder, Tally, check_words, damaged, damages, made, run
from toy import save_toy, toy_gin

from hiptrack.errors import CheckpointError
from hiptrack.models.weights import load_model, read_metadata

VALUES = [
    "0", "1", "-1", "3", "7", "64", "300", "16385", "999999999", "1e9", "0.5", "-0.1", "NaN", "1e999", "true", "null", '"x"', '""', "[]", "{}",
    '{"tuple": [1]}', '{"tuple": [8, 16]}', '{"tuple": 3}', '{"dict": [1]}', '{"bytes": [999]}', '"Backbone"', '"CenterHead"', '"Nothing"',
    '{"part": "Backbone", "parameters": {}}', '{"factory": "ConvStem", "parameters": {}}', '{"part": "HIPTrack", "parameters": {}}',
    '"vit_base_patch16_224"', '"swin_tiny_patch4_window7_224"', '"hf-hub:a/b"', '"../x"', "[" * 500, '"' + "y" * 70000 + '"',
    "None", "(8, 16)", "('a', 'b')", "@Backbone", "@Backbone()", "@HIPTrack()", "@ConvStem", "@Nothing", "%X",  # in gin text
]  # fmt: skip

share = st.floats(0, 1, exclude_max=True)
flips = made(
    lambda rng: [
        (rng.choice(("header", "anywhere")), rng.random(), rng.randint(1, 255)) for _ in range(rng.randint(1, 3))
    ]
)
cases = st.one_of(
    st.tuples(st.just("flips"), flips),
    st.tuples(st.just("cut"), share),
    st.tuples(st.just("longer"), st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("header"), damages(2)),
    st.tuples(st.just("description"), damages(2)),
    st.tuples(st.just("value"), made(lambda rng: (rng.random(), rng.choice(VALUES)))),
    st.tuples(st.just("old value"), made(lambda rng: (rng.random(), rng.choice(VALUES)))),
)


def fuzz_weights(count: int, seed: int) -> Tally:
    """Each case: a small tracker's weights file with flipped bytes, cut, continued, or with another header or description."""
    with Folder() as folder:
        path = folder.path / "model.safetensors"
        model = save_toy(path, challenge="ChallengeBranch")
        sound, state = path.read_bytes(), model.state_dict()
        return run("weights files", cases, lambda case: _check(folder, sound, state, *case), count, seed)


def _check(folder, sound, state, kind, change):
    data, hit = _changed(sound, kind, change)
    path = folder.write("model.safetensors", data)
    try:
        read_metadata(path)
        loaded = load_model(path).state_dict()
    except CheckpointError as error:
        assert data != sound, f"the sound file is refused: {error}"
        check_words(error, str(path))
        return False
    finally:
        folder.check()
    assert len(data) == len(sound) or "value" in kind or kind in ("header", "description"), (
        "a cut or continued file was taken"
    )
    assert loaded.keys() == state.keys()
    for name, tensor in loaded.items():
        assert name in hit or torch.equal(tensor, state[name]), f"{name} is not what was saved"
    return True


def _changed(sound, kind, change):
    """(the bytes after a change, the names of the tensors whose own bytes it hit)."""
    start = 8 + int.from_bytes(sound[:8], "little")
    header = json.loads(sound[8:start])
    if kind == "cut":
        return sound[: int(change * len(sound))], set()
    if kind == "longer":
        return sound + change, set()
    if kind == "header":
        return _packed(damaged(sound[8:start], change), sound[start:]), set()
    if "value" in kind or kind == "description":
        text = toy_gin(challenge="ChallengeBranch") if kind == "old value" else header["__metadata__"]["model"]
        header["__metadata__"]["model"] = _rewritten(text, kind, change)
        return _packed(json.dumps(header).encode(), sound[start:]), set()
    data, hit = bytearray(sound), set()
    for where, share_of_length, bits in change:
        place = int(share_of_length * (start if where == "header" else len(sound)))
        data[place] ^= bits
        hit |= {name for name, entry in header.items() if name != "__metadata__" and _covers(entry, place - start)}
    return bytes(data), hit


def _rewritten(text, kind, change):
    if kind == "description":
        return damaged(text.encode(), change).decode("utf-8", "replace")
    lines = text.splitlines()
    number = int(change[0] * len(lines))
    name, sign, old = lines[number].partition("=" if kind == "old value" else ":")
    lines[number] = f"{name}{sign} {change[1]}{',' if old.endswith(',') else ''}"
    return "\n".join(lines)


def _covers(entry, place):
    first, end = entry["data_offsets"]
    return first <= place < end


def _packed(header, tensors):
    return len(header).to_bytes(8, "little") + header + tensors
