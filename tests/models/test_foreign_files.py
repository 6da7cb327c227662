"""Published torch files: their trainers' records are passed over, anything that could run code is refused."""

import os
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from hiptrack.errors import CheckpointError
from hiptrack.models.weights import load_exact, read_tensors


@pytest.fixture
def trainer_modules(monkeypatch):
    """Classes under the names that published trainers pickle."""
    for name, kinds in (("settings", ["Settings"]), ("stats", ["AverageMeter"]), ("local", ["EnvironmentSettings"])):
        module = types.ModuleType(f"lib.train.admin.{name}")
        for kind in kinds:
            setattr(module, kind, type(kind, (), {"__module__": module.__name__}))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("lib", "lib.train", "lib.train.admin"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    return sys.modules


def test_records_of_a_published_trainer_are_passed_over(trainer_modules, tmp_path):
    settings = trainer_modules["lib.train.admin.settings"].Settings()
    settings.env = trainer_modules["lib.train.admin.local"].EnvironmentSettings()
    meter = trainer_modules["lib.train.admin.stats"].AverageMeter()
    meter.avg, meter.val = np.float64(0.5), 3
    tensor = torch.arange(3.0)
    path = tmp_path / "published.pth.tar"
    torch.save({"epoch": 100, "net": {"a": tensor}, "stats": {"train": {"loss": meter}}, "settings": settings}, path)
    assert torch.equal(read_tensors(path)["a"], tensor)


class Command:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickled_command_is_refused_by_name_and_does_not_run(tmp_path):
    path, trace = tmp_path / "bad.pth.tar", tmp_path / "ran"
    torch.save({"net": {"a": torch.zeros(1)}, "settings": Command(f"touch {trace}")}, path)
    with pytest.raises(CheckpointError, match=r"bad\.pth\.tar is refused: .*could run code when loaded: \w+\.system"):
        read_tensors(path)
    assert not trace.exists()


def test_an_object_of_an_unknown_class_is_refused_by_name(tmp_path):
    path = tmp_path / "unknown.pth"
    torch.save({"net": {"a": torch.zeros(1)}, "extra": types.SimpleNamespace(a=1)}, path)
    with pytest.raises(CheckpointError, match="types.SimpleNamespace"):
        read_tensors(path)


def test_a_file_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "w.pth")
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(tmp_path / "w.pth") as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in whole.infolist():
            archive.writestr(entry.filename, whole.read(entry))
    assert torch.load(packed, weights_only=True)["a"].nbytes > 100 * packed.stat().st_size  # what is refused would work
    with pytest.raises(
        CheckpointError, match=r"packed.pth is refused, .* is compressed, which could unpack to any size"
    ):
        read_tensors(packed)


@pytest.mark.filterwarnings("ignore:.*[Ss]parse")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(1).expand(10**15),
        lambda: torch.zeros(10**6, device="meta"),
        lambda: torch.sparse_coo_tensor(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0), (10**6, 10**6)),
    ],
    ids=["expanded", "meta", "sparse"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_tensor_that_is_not_stored_in_full_is_refused_by_name(tmp_path, make, zipped):
    path = tmp_path / "w.pth"
    torch.save({"sound": torch.zeros(2), "hollow": make()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="w.pth is refused: it does not hold every value of hollow."):
        read_tensors(path)


def test_tensors_under_other_keys_than_names_are_passed_over(tmp_path):
    torch.save({1: torch.zeros(1), "a": torch.ones(1), ("b",): torch.zeros(1)}, tmp_path / "w.pth")
    assert read_tensors(tmp_path / "w.pth") == {"a": torch.ones(1)}


def test_names_of_tensors_are_shown_in_one_short_line(tmp_path):
    tensors = {"a\nb": torch.zeros(1), "c" * 9000: torch.zeros(1)}
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="2 unexpected: a") as raised:
        load_exact(torch.nn.Identity(), read_tensors(tmp_path / "w.pth"), tmp_path / "w.pth")
    assert str(raised.value).isprintable() and len(str(raised.value)) < 1000


def test_whole_numbers_in_the_place_of_weights_are_refused():
    layer = torch.nn.Linear(2, 1)
    state = {"weight": torch.zeros(1, 2, dtype=torch.int32), "bias": torch.zeros(1, dtype=torch.float16)}
    with pytest.raises(CheckpointError, match="1 of another kind: weight torch.int32 in the file, torch.float32 in"):
        load_exact(layer, state, "a test")
    state["weight"] = state["weight"].double()
    assert load_exact(layer, state, "a test") == []
