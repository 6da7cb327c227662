"""Published torch files: their trainers' records are passed over, anything that could run code is refused."""

import os
import sys
import types

import numpy as np
import pytest
import torch

from hiptrack.errors import CheckpointError
from hiptrack.models.pretrained import read_tensors


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
