"""A tracker as a folder or a repository of the Hub: what is stored, what comes back, what is refused. Nothing uses a network."""

import copy
import json
import pickle
import shutil
from pathlib import Path

import gin
import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import torch
from huggingface_hub import HfApi, ModelCard
from toy import moving_target, save_toy, toy_model

from hiptrack import Tracker, config
from hiptrack.errors import CheckpointError, ConfigError, HiptrackError, NotFoundError
from hiptrack.models.weights import load_model, read_metadata
from hiptrack.tracking.adaptation import Adaptation, Rule
from hiptrack.tracking.memory import MemoryPolicy

pytestmark = pytest.mark.usefixtures("clean_gin")
FILES = {"README.md", "config.json", "model.safetensors"}
SETTINGS = {
    "branch": "on",
    "memory": MemoryPolicy(template_frames=2, early=(1, 2), interval=2, capacity=3),
    "margin": 12,
    "smoothing": 0.25,
    "adaptation": Adaptation([Rule("occlusion", 0.2, write_memory=False), Rule(score_below=0.9, size_rate=0.5)], 0.75),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "trained.safetensors"
    save_toy(path, challenge="ChallengeBranch", seed=4)
    return path


@pytest.fixture
def folder(checkpoint, tmp_path):
    Tracker.from_checkpoint(checkpoint, **SETTINGS).save_pretrained(tmp_path / "harbour")
    return tmp_path / "harbour"


def track(tracker):
    """[8, 5]: boxes and scores."""
    pictures, box = moving_target(9)
    tracker.init(pictures[0], box)
    results = [tracker.update(picture) for picture in pictures[1:]]
    return np.array([[*result.box, result.score] for result in results])


@pytest.mark.parametrize("branch", ["off", "on", "folded"])
def test_a_saved_tracker_comes_back_and_tracks_bitwise_alike(branch, checkpoint, tmp_path):
    tracker = Tracker.from_checkpoint(checkpoint, branch=branch)
    tracker.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == FILES
    again = Tracker.from_pretrained(tmp_path / "saved")
    assert np.array_equal(track(tracker), track(again))
    assert again.branch == ("off" if branch == "folded" else branch)  # folded weights have no branch any more
    again.save_pretrained(tmp_path / "twice")
    third = Tracker.from_pretrained(str(tmp_path / "twice"))
    assert np.array_equal(track(tracker), track(third))


def test_the_settings_come_back(folder, checkpoint):
    tracker = Tracker.from_pretrained(folder)
    assert (tracker.branch, tracker.margin, tracker.smoothing) == ("on", 12, 0.25)
    assert vars(tracker.memory) == vars(SETTINGS["memory"])
    rules = [vars(rule) for rule in tracker.adaptation.rules]
    assert rules == [vars(rule) for rule in SETTINGS["adaptation"].rules] and tracker.adaptation.size_rate == 0.75
    alike = Tracker.from_checkpoint(checkpoint, **SETTINGS)
    assert np.array_equal(track(tracker), track(alike))
    assert not np.array_equal(track(tracker), track(Tracker.from_checkpoint(checkpoint, branch="on")))


def test_arguments_replace_stored_settings(folder):
    tracker = Tracker.from_pretrained(folder, branch="off", smoothing=0.0, adaptation=None, memory=None, device="cpu")
    assert (tracker.branch, tracker.smoothing, tracker.adaptation) == ("off", 0.0, None)
    assert tracker.memory.capacity == MemoryPolicy().capacity and tracker.margin == 12
    with pytest.raises(ConfigError, match=f"{folder}: .*only Tracker.branch = 'on' predicts challenges"):
        Tracker.from_pretrained(folder, branch="off")


def test_the_weights_are_the_file_that_was_read(folder, checkpoint, tmp_path):
    assert (folder / "model.safetensors").read_bytes() == checkpoint.read_bytes()
    tracker = Tracker.from_pretrained(folder)
    for _ in range(2):
        tracker.save_pretrained(folder)  # onto itself
    assert (folder / "model.safetensors").read_bytes() == checkpoint.read_bytes()
    Tracker.from_pretrained(folder, branch="folded", smoothing=0.0, adaptation=None).save_pretrained(
        tmp_path / "folded"
    )
    assert '"challenge": null' in read_metadata(tmp_path / "folded" / "model.safetensors")["model"]


def test_a_folded_tracker_does_not_overwrite_the_branch_it_was_read_with(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    tracker = Tracker.from_pretrained(folder, branch="folded", smoothing=0.0, adaptation=None)
    with pytest.raises(ConfigError, match=f"{folder}/model.safetensors holds the branch .* Expected another folder"):
        tracker.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_weights_that_changed_since_are_not_saved(checkpoint, folder, tmp_path):
    source = tmp_path / "source.safetensors"
    shutil.copy(checkpoint, source)
    tracker = Tracker.from_checkpoint(source)
    save_toy(source, seed=9)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CheckpointError, match=f"{source} has changed"):
        tracker.save_pretrained(folder)
    source.unlink()
    with pytest.raises(NotFoundError, match=f"not found: {source}"):
        tracker.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_weights_that_changed_while_they_were_read_are_not_saved(checkpoint, tmp_path, monkeypatch):
    source = tmp_path / "source.safetensors"
    shutil.copy(checkpoint, source)

    def slowly(path):
        model = load_model(path)
        source.write_bytes(b"another's")
        return model

    monkeypatch.setattr("hiptrack.tracking.tracker.load_model", slowly)
    tracker = Tracker.from_checkpoint(source)
    with pytest.raises(CheckpointError, match=f"{source} has changed"):
        tracker.save_pretrained(tmp_path / "saved")


def test_the_card_says_how_to_use_it_and_is_not_overwritten(folder):
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "hiptrack" and {"object-tracking", "visual-tracking"} <= set(card.data.tags)
    assert "Tracker.from_pretrained(" in card.content and "what makes a frame hard" in card.content
    assert "{" not in card.text and "search crops of 64 px" in card.content
    (folder / "README.md").write_text("my own words")
    Tracker.from_pretrained(folder).save_pretrained(folder)
    assert (folder / "README.md").read_text() == "my own words"


def damaged(folder, change):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize(
    "change, words",
    [
        ({"brnch": "on"}, 'there is no setting "brnch"; the nearest valid name is "branch"'),
        ({"model": "x"}, 'there is no setting "model"'),
        ({"device": "cuda"}, 'there is no setting "device"'),
        ({"margin": "ten"}, "margin expects int, not 'ten'"),
        ({"branch": "of"}, "branch expects .*not 'of'"),
        ({"memory": 3}, "memory expects .*MemoryPolicy.*not 3"),
        ({"memory": {"intervall": 3}}, 'memory: there is no setting "intervall"; the nearest valid name is "interval"'),
        ({"memory": {"interval": 0}}, "memory: interval = 0: at least 1 was expected"),
        ({"memory": {"capacity": 10**9}}, "capacity = 1000000000: whole numbers up to 16384"),
        ({"adaptation": {}}, 'adaptation: the setting "rules" is missing'),
        ({"adaptation": {"rules": [{"challenge": "fog"}]}}, "A Rule without action"),
        ({"adaptation": {"rules": [{"above": 1.5}]}}, "above = 1.5: a number from 0 to 1 was expected"),
        ({"adaptation": {"rules": [7]}}, r"adaptation: rules expects .*not \[7\]"),
    ],
)
def test_settings_that_cannot_be_are_named_with_their_file(change, words, folder):
    path = damaged(folder, lambda values: values.update(change))
    with pytest.raises(CheckpointError, match=words) as raised:
        Tracker.from_pretrained(folder)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize("content", [b"", b'{"branch": "on"', b"\xff\xfe", b"[" * 99999, b"9" * 9999, b"[]", b"null"])
def test_a_damaged_settings_file_is_named(content, folder):
    path = folder / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as raised:
        Tracker.from_pretrained(folder)
    assert str(raised.value).startswith(str(path)) and len(str(raised.value)) < 600


def test_a_folder_without_weights_or_settings_is_named(folder, checkpoint, tmp_path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(NotFoundError, match=f"not found: {folder}/model.safetensors"):
        Tracker.from_pretrained(folder)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(checkpoint, bare / "model.safetensors")
    with pytest.raises(NotFoundError, match=f"not found: {bare}/config.json .*Tracker.from_checkpoint"):
        Tracker.from_pretrained(bare)


def test_weights_of_another_kind_are_refused_and_never_unpickled(folder, tmp_path):
    weights, marker = folder / "model.safetensors", tmp_path / "ran"

    class Runs:
        def __reduce__(self):
            return Path.touch, (marker,)

    weights.write_bytes(pickle.dumps(Runs()))
    with pytest.raises(CheckpointError, match="damaged, truncated, or no safetensors file"):
        Tracker.from_pretrained(folder)
    torch.save({"net": Runs()}, weights)
    with pytest.raises(CheckpointError, match="no safetensors file"):
        Tracker.from_pretrained(folder)
    assert not marker.exists()
    safetensors.torch.save_file({"w": torch.ones(2)}, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match="does not say how to build its model"):
        Tracker.from_pretrained(folder)
    hostile = {"format": "hiptrack", "model": '{"part": "os.system", "parameters": {}}'}
    safetensors.torch.save_file({"w": torch.ones(2)}, weights, hostile)
    with pytest.raises(CheckpointError, match="HIPTrack.* was expected"):
        Tracker.from_pretrained(folder)


def test_a_tracker_of_no_file_cannot_be_saved_and_nothing_is_lost(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match="Only a tracker of Tracker.from_checkpoint"):
        Tracker(toy_model(), device="cpu").save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """What would be uploaded, {repository: {path: content}}, and every call of the API by name."""
    repositories, calls = {}, []

    def create_repo(self, repo_id, **options):
        calls.append(("create_repo", repo_id, options))
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, *, repo_id, folder_path, **options):
        calls.append(("upload_folder", repo_id, options))
        files = [path for path in Path(folder_path).rglob("*") if path.is_file()]
        repositories[repo_id] = {str(path.relative_to(folder_path)): path.read_bytes() for path in files}
        return "the commit"

    for name, fake in {"create_repo": create_repo, "upload_folder": upload_folder}.items():
        monkeypatch.setattr(HfApi, name, fake)
    return repositories, calls


def test_pushing_uploads_three_files_in_one_commit(hub, checkpoint, folder, tmp_path):
    repositories, calls = hub
    tracker = Tracker.from_checkpoint(checkpoint, **SETTINGS)
    assert tracker.push_to_hub("sea/harbour", private=True, commit_message="first") == "the commit"
    assert [(name, repo) for name, repo, _ in calls] == [
        ("create_repo", "sea/harbour"),
        ("upload_folder", "sea/harbour"),
    ]
    assert calls[0][2]["private"] is True and calls[1][2]["commit_message"] == "first"
    uploaded = repositories["sea/harbour"]
    assert uploaded.keys() == FILES
    for name in ("config.json", "model.safetensors"):
        assert uploaded[name] == (folder / name).read_bytes()
    assert 'Tracker.from_pretrained("sea/harbour")' in uploaded["README.md"].decode()
    for name, content in uploaded.items():
        (tmp_path / name).write_bytes(content)
    assert np.array_equal(track(Tracker.from_pretrained(tmp_path)), track(tracker))


def test_a_refused_push_is_an_error_with_the_hubs_reason(checkpoint, monkeypatch):
    tracker = Tracker.from_checkpoint(checkpoint)
    with pytest.raises(HiptrackError, match="a b could not be pushed to the Hub: .*[Rr]epo id"):
        tracker.push_to_hub("a b")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HiptrackError, match="sea/harbour could not be pushed to the Hub: .*offline mode is enabled"):
        tracker.push_to_hub("sea/harbour")


def test_a_repository_is_read_from_the_cache(folder, tmp_path):
    """As snapshot_download leaves it: snapshots/<commit>/, and the commit of a branch in refs/<branch>."""
    repository, commit = tmp_path / "cache" / "models--sea--harbour", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)
    tracker = Tracker.from_pretrained("sea/harbour", cache_dir=tmp_path / "cache", local_files_only=True)
    assert np.array_equal(track(tracker), track(Tracker.from_pretrained(folder)))
    (repository / "snapshots" / commit / "model.safetensors").unlink()
    with pytest.raises(NotFoundError, match=r"not found: .*model.safetensors"):
        Tracker.from_pretrained("sea/harbour", cache_dir=tmp_path / "cache", local_files_only=True)


@pytest.mark.parametrize("name", ["sea/harbour", "./no/such/folder", "runs/absent"])
def test_offline_what_is_not_there_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match="there is no such folder, and the Hub gives no such repository"):
        Tracker.from_pretrained(name, cache_dir=tmp_path / "cache")


def test_the_mixin_disturbs_neither_gin_nor_copies_nor_pickles(checkpoint):
    config.load(["gin/eval/branch_on.gin"], ["Tracker.margin=17"], root="Tracker")
    model = Tracker.from_checkpoint(checkpoint).model
    tracker = gin.get_configurable("Tracker")(model=model, device="cpu")
    assert type(tracker) is Tracker and (tracker.branch, tracker.margin) == ("on", 17)
    assert Tracker(model, device="cpu").margin == 10  # a direct call knows no configuration
    for copied in (pickle.loads(pickle.dumps(tracker)), copy.deepcopy(tracker)):
        assert copied.margin == 17 and np.array_equal(track(copied), track(tracker))
