"""Toy configurables and a toy repository, for the tests of the configuration."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import gin
import pytest

from hiptrack import config
from hiptrack.config import syntax
from hiptrack.errors import ConfigError


@gin.register
class ToySampler:
    def __init__(self, max_gap: int = 10):
        self.max_gap = max_gap


@gin.register
class ToyAdam:
    def __init__(self, params: Sequence = (), weight_decay: float = 0.0):
        self.weight_decay = weight_decay


@gin.register
class ToyIoU:
    def __init__(self, weight: float = 1.0):
        self.weight = weight


@gin.register
class ToyData:
    def __init__(self, root: str, sampler: ToySampler | None = None, ratio: dict[str, float] | None = None):
        self.root, self.sampler, self.ratio = root, sampler, ratio


@gin.register
class ToyStage:
    """A stage as the design has it: it keeps its scope and calls what it was given uncalled in it."""

    def __init__(
        self,
        epochs: int = 1,
        lr: float = 1e-3,
        data: ToyData | None = None,
        optimiser: Callable = ToyAdam,
        losses: list[ToyIoU] = (),
        precision: Literal["no", "bf16"] = "no",
        size: tuple[int, int] = (8, 8),
    ):
        self.scope = gin.current_scope_str()
        self.epochs, self.lr, self.data, self.losses = epochs, lr, data, losses
        self.size, self.precision, self._optimiser = size, precision, optimiser

    def optimiser(self):
        with gin.config_scope(self.scope):
            return self._optimiser()


@gin.configurable
def toy_train(stages: list[ToyStage], model: Any = None, name: str = "run"):
    return stages


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    """A repository root of its own for each test, as the working directory; gin is cleared afterwards."""
    monkeypatch.setattr(syntax, "REPO_ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    gin.clear_config()


TWO_STAGES = """\
toy_train.stages = [@warmup/ToyStage(), @finetune/ToyStage()]
ToyStage.epochs = 5
warmup/ToyStage.lr = 1e-2
ToyStage.data = @ToyData()
ToyData.root = %DATA_ROOT
ToyStage.optimiser = @ToyAdam
finetune/ToyAdam.weight_decay = 1e-4
DATA_ROOT = 'data'
"""


def load(text, *overrides):
    with open("exp.gin", "w") as file:
        file.write(text)
    config.load(["exp.gin"], overrides, "toy_train")


def error(text, *overrides):
    with pytest.raises(ConfigError) as raised:
        load(text, *overrides)
    message = str(raised.value)
    assert "\n" not in message
    return message
