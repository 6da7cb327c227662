"""Weights files say themselves how to build their model, and nothing they say is trusted."""

import functools
import hashlib
import json
import os
import resource
from pathlib import Path

import gin
import pytest
import safetensors
import safetensors.torch
import torch
from toy import moving_target, save_toy, toy_branch, toy_gin, toy_model

import hiptrack.training.train  # noqa: F401  registers what lies outside the models
from hiptrack.config.portable import component_text
from hiptrack.errors import CheckpointError, NotFoundError
from hiptrack.models.initial import TrackerWeights
from hiptrack.models.strip import halve
from hiptrack.models.weights import content_hash, load_model, read_metadata, read_tensors, save_weights
from hiptrack.tracking.tracker import Tracker


@pytest.fixture(autouse=True)
def cleared():
    gin.clear_config()
    yield
    gin.clear_config()


def clip_scores(model):
    generator = torch.Generator().manual_seed(0)
    template, search = (torch.randn(1, *shape, generator=generator) for shape in ((3, 32, 32), (3, 3, 64, 64)))
    with torch.no_grad():
        frames = model.track_clip(template, search, torch.tensor([[0.25, 0.25, 0.5, 0.5]]))
    return torch.cat([prediction.maps.score_logits.flatten() for _, prediction in frames])


FORMS = {
    "plain": {},
    "residual": {"challenge": "ChallengeBranch"},
    "direct": {"challenge": "ChallengeBranch", "neck_width": 16, "fusion": "DirectFusion"},
    "no fusion": {"challenge": "ChallengeBranch", "fusion": None},
    "mean and max": {"challenge": "ChallengeBranch", "feature": "mean_max"},
    "class token": {"class_token": True, "elimination_template": "all", "keep_ratio": 0.5},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_round_trip_needs_no_configuration(tmp_path, form):
    path = tmp_path / "model.safetensors"
    model = save_toy(path, seed=4, **form)
    assert gin.config_str() == ""
    loaded = load_model(path).eval()
    assert loaded.search_factor == 4.0 and loaded.backbone.keep_ratio == form.get("keep_ratio", 0.7)
    assert loaded.backbone.elimination_template == form.get("elimination_template", "centre_point")
    state, again = model.state_dict(), loaded.state_dict()
    assert state.keys() == again.keys() and all(torch.equal(state[name], again[name]) for name in state)
    assert torch.equal(clip_scores(loaded), clip_scores(model))


def test_a_configuration_of_the_day_changes_nothing(tmp_path):
    path = tmp_path / "model.safetensors"
    model = save_toy(path)
    gin.parse_config(toy_gin(width=64, depth=6, neck_width=12) + "\nBackbone.keep_ratio = 0.3")
    before = gin.config_str()
    loaded = load_model(path).eval()
    assert loaded.backbone.width == 32 and torch.equal(clip_scores(loaded), clip_scores(model))
    assert gin.config_str() == before


def test_notes_and_hash(tmp_path):
    path = tmp_path / "model.safetensors"
    gin.parse_config(toy_gin())
    save_weights(path, toy_model(), component_text("HIPTrack"), step=12, stage="branch")
    metadata = read_metadata(path)
    assert (metadata["step"], metadata["stage"]) == ("12", "branch")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_equal_weights_have_one_hash_whatever_the_bytes(tmp_path):
    gin.parse_config(toy_gin())
    model, text = toy_model(), component_text("HIPTrack")
    paths = [tmp_path / f"{number}.safetensors" for number in range(20)]
    for number, path in enumerate(paths):
        save_weights(path, model, text, step=number, stage="branch")
    assert len({path.read_bytes() for path in paths}) == 20
    found = {content_hash(path) for path in paths}
    for number, path in enumerate(paths[:8]):
        halve(path, tmp_path / f"half-{number}.safetensors")
    halves = {content_hash(path) for path in tmp_path.glob("half-*")}
    assert len(found) == len(halves) == 1 and found != halves


def test_other_tensors_or_another_description_have_another_hash(tmp_path):
    path, found = tmp_path / "model.safetensors", set()
    one = torch.arange(6.0)
    for tensors, text in (
        ({"a": one, "b": one + 1}, "{}"),
        ({"a": one + 1, "b": one}, "{}"),
        ({"a": one.reshape(2, 3), "b": one + 1}, "{}"),
        ({"a": one.view(torch.int32), "b": one + 1}, "{}"),
        ({"a": one}, "{}"),
        ({"a": one, "b": one + 1}, "{ }"),
        ({"a": one, "b": one + 1, "c": torch.zeros(0, dtype=torch.bfloat16)}, "{}"),
        ({"a": one, "b": one + 1, "c": torch.tensor(True)}, "{}"),
    ):
        safetensors.torch.save_file(tensors, path, {"model": text})
        found.add(content_hash(path))
    assert len(found) == 8


def test_the_hash_of_another_file_is_that_of_its_bytes_and_a_damaged_one_has_none(tmp_path):
    torch.save({"net": {"a": torch.zeros(2)}}, tmp_path / "a.pth")
    assert content_hash(tmp_path / "a.pth") == hashlib.sha256((tmp_path / "a.pth").read_bytes()).hexdigest()
    (tmp_path / "a.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="a.safetensors is damaged"):
        content_hash(tmp_path / "a.safetensors")
    os.mkfifo(tmp_path / "b.safetensors")
    with pytest.raises(OSError, match="not a regular file"):
        content_hash(tmp_path / "b.safetensors")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_toy(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        save_weights(path, toy_model(), "")
    assert path.read_bytes() == before


def rewrite(path, change_text=None, change_tensors=None):
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)
    if change_text:
        metadata["model"] = change_text(metadata["model"])
    if change_tensors:
        change_tensors(tensors)
    safetensors.torch.save_file(tensors, path, metadata)


def swapped(old, new):
    """The text of a description with one thing in the place of another."""
    return lambda text: text.replace(old, new)


NO_BRANCH = '"challenge": null'
TAMPERED = {
    "import": (lambda text: "import os\n" + text, "only lines like"),
    "cut": (lambda text: text[:-2], "does not build one: Expecting"),
    "no JSON at all": (lambda text: "<html>", "model description"),
    "a list without end": (lambda text: text[:-1] + ', "more": ' + "[" * 5000, "recursion"),
    "a number without end": (swapped('"depth": 4', '"depth": ' + "9" * 5000), "4300"),
    "a text without end": (lambda text: text + " " * 2**16, "longer than 65536 characters"),
    "no description": (lambda text: "{}", '"part": "HIPTrack"'),
    "no dictionary": (swapped(NO_BRANCH, '"challenge": {"dict": [1]}'), "does not build one"),
    "unhashable": (swapped(NO_BRANCH, '"challenge": {"dict": [[[], 1]]}'), "unhashable"),
    "unknown parameter": (swapped('"depth"', '"detph"'), 'no setting "detph"; the nearest valid name is "depth"'),
    "unknown name": (swapped('"Backbone"', '"Backbon"'), 'nothing called "Backbon"; .* is "Backbone"'),
    "outside the models": (
        swapped(NO_BRANCH, '"challenge": {"part": "train", "parameters": {}}'),
        'nothing called "train"',
    ),
    "a data set": (
        swapped(NO_BRANCH, '"challenge": {"factory": "FolderDataset", "parameters": {}}'),
        'nothing called "FolderDataset"',
    ),
    "wrong type": (swapped('"depth": 4', '"depth": "four"'), "HIPTrack: backbone: depth expects int"),
    "no heads": (swapped('"heads": 2', '"heads": 0'), "heads = 0: at least 1"),
    "a model timm does not know": (swapped("vit_tiny_patch16_224", "vit_tiny_patch16_nil"), "vit_tiny_patch16_nil"),
    "sizes that do not divide": (swapped('"search_size": 64', '"search_size": 65'), "search_size = 65"),
    "a part in another's place": (swapped('"CenterHead"', '"Backbone"'), "widths"),
    "a part made too early": (swapped('"factory": "HistoricalPrompt"', '"part": "HistoricalPrompt"'), "is missing"),
    "heads that do not divide": (swapped('"heads": 2', '"heads": 3'), "divisible"),
    "more layers than can be": (swapped('"depth": 4', '"depth": 999999999'), "whole numbers up to 16384"),
    "more layers than tensors": (swapped('"depth": 4', '"depth": 16384'), r"depth = 16384; the file has \d+ tensors"),
    "more widths than tensors": (swapped('"tuple": [', '"tuple": [' + "8, " * 9999), r"a list of \d+; the file has"),
    "heads below nothing": (swapped('"heads": 2', '"heads": -2'), "heads = -2: at least 1"),
    "widths of nothing": (swapped('"key_width": 8', '"key_width": 0'), "zero|key_width"),
}


@pytest.mark.parametrize("change, words", TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_description_is_refused(tmp_path, change, words):
    path = tmp_path / "model.safetensors"
    save_toy(path)
    text = read_metadata(path)["model"]
    assert change(text) != text
    rewrite(path, change_text=change)
    with pytest.raises(CheckpointError, match=words) as raised:
        load_model(path)
    assert "\n" not in str(raised.value)


def test_a_file_with_gin_text_tracks_as_it_did_and_is_written_anew_as_json(tmp_path):
    path, half = tmp_path / "model.safetensors", tmp_path / "half.safetensors"
    described = {**FORMS["direct"], **FORMS["class token"]}
    model = save_toy(path, seed=4, **described)
    rewrite(path, change_text=lambda text: toy_gin(**described))
    assert torch.equal(clip_scores(load_model(path).eval()), clip_scores(model))
    halve(path, half)
    with safetensors.safe_open(half, "pt") as file:
        assert json.loads(file.metadata()["model"])["part"] == "HIPTrack"
    rewrite(path, change_text=lambda text: toy_gin() + "\nBakcbone.depth = 4")
    with pytest.raises(CheckpointError, match=f'{path}: .* no part called "Bakcbone"; .* is "Backbone"'):
        load_model(path)


def test_the_file_with_a_tampered_description_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    save_toy(path)
    rewrite(path, change_text=TAMPERED["unknown name"][0])
    with pytest.raises(CheckpointError) as raised:
        load_model(path)
    assert str(path) in str(raised.value)


def test_other_shapes_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    save_toy(path)
    rewrite(path, change_text=swapped('"width": 32', '"width": 48'))
    with pytest.raises(
        CheckpointError, match=r"of another shape: .*\[1, 16, 32\] in the file, \[1, 16, 48\] in the model"
    ) as raised:
        load_model(path)
    assert str(path) in str(raised.value)


def test_a_description_of_a_giant_takes_no_memory(tmp_path):
    path = tmp_path / "model.safetensors"
    save_toy(path)
    rewrite(path, change_text=swapped('"width": 32', '"width": 16384'))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="of another shape"):
        load_model(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB; its weights would be 50 GiB


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda tensors: tensors.pop("box_head.score.out.bias"), "1 missing: box_head.score.out.bias"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (lambda tensors: tensors.update({"backbone.norm.weight": torch.zeros(7)}), r"backbone.norm.weight \[7\]"),
        (
            lambda tensors: tensors.update({"challenge.classifier.bias": torch.zeros(10)}),
            "1 unexpected: challenge.classifier.bias",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, words):
    path = tmp_path / "model.safetensors"
    save_toy(path)
    rewrite(path, change_tensors=change)
    with pytest.raises(CheckpointError, match=words):
        load_model(path)


def test_a_model_with_a_branch_demands_its_tensors(tmp_path):
    path = tmp_path / "model.safetensors"
    save_toy(path, challenge="ChallengeBranch")
    rewrite(path, change_tensors=lambda tensors: tensors.pop("challenge.mean_added"))
    with pytest.raises(CheckpointError, match="1 missing: challenge.mean_added"):
        load_model(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / "model.safetensors"
    save_toy(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    for read in (load_model, read_metadata, Tracker.from_checkpoint):
        with pytest.raises(CheckpointError, match="damaged") as raised:
            read(path)
        assert str(path) in str(raised.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="does not say how to build its model"):
        load_model(path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="model.pth"):
        load_model(tmp_path / "model.pth")
    with pytest.raises(NotFoundError, match="gone.safetensors"):
        load_model(tmp_path / "gone.safetensors")


def test_initial_weights_from_a_run_keep_a_new_branch(tmp_path):
    path = tmp_path / "model.safetensors"
    source = save_toy(path, seed=4)
    model = toy_model(challenge=toy_branch, seed=9)
    branch = {name: tensor.clone() for name, tensor in model.challenge.state_dict().items()}
    assert f"({len(branch)} other tensors keep" in TrackerWeights(str(path))(model)
    assert all(torch.equal(tensor, branch[name]) for name, tensor in model.challenge.state_dict().items())
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("challenge.")}
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in own.items())
    with pytest.raises(CheckpointError, match="unexpected: challenge"):
        save_toy(path, challenge="ChallengeBranch")
        TrackerWeights(str(path))(toy_model())


def test_a_loaded_file_tracks(tmp_path):
    path = tmp_path / "model.safetensors"
    model = save_toy(path, challenge="ChallengeBranch")
    frames, box = moving_target(5)
    runs = []
    for tracker in (Tracker.from_checkpoint(path, "cpu", branch="on"), Tracker(model, branch="on", device="cpu")):
        tracker.init(frames[0], box)
        runs.append([tracker.update(frame).box.tolist() for frame in frames[1:]])
    assert runs[0] == runs[1]


def test_toy_and_its_gin_text_are_the_same_model():
    gin.parse_config(toy_gin())
    described, built = gin.get_configurable("HIPTrack")(), toy_model()
    shapes = [{name: tensor.shape for name, tensor in m.state_dict().items()} for m in (described, built)]
    assert shapes[0] == shapes[1]


def test_a_branch_of_another_form_starts_on_the_tracker_of_a_file(tmp_path):
    path = tmp_path / "model.safetensors"
    trained = save_toy(path, seed=1, challenge="ChallengeBranch").state_dict()
    other = toy_model(challenge=functools.partial(toy_branch, fusion=None), seed=2)
    with pytest.raises(CheckpointError, match="challenge.to_grid.* TrackerWeights.branch = False leaves out"):
        TrackerWeights(str(path))(other)
    initial = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    assert "without its branch" in TrackerWeights(str(path), branch=False)(other)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, (initial if name.startswith("challenge.") else trained)[name]), name


def test_a_name_that_safetensors_cannot_open_is_refused(tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.safetensors")
    with pytest.raises(CheckpointError, match="needs a name of UTF-8 text"):
        save_toy(odd)
    assert not os.listdir(tmp_path)
    Path(odd).write_bytes(b"x")
    for read in (load_model, read_tensors):
        with pytest.raises(CheckpointError, match="needs a name of UTF-8 text"):
            read(odd)
