"""The commands of a planned run, and which of them is next."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hiptrack.comparing.plan import Bindings, Plan
from hiptrack.comparing.records import EVALUATION, is_evaluated, is_finished
from hiptrack.config import REPO_ROOT
from hiptrack.data.sequences import FolderDataset
from hiptrack.errors import NotFoundError
from hiptrack.files import write_atomically


@dataclass(frozen=True)
class EvaluationData:
    """The held-out data that every finished run is evaluated on, as tools/eval.py takes them."""

    root: str
    split: str | None = None
    annotations: str | None = None

    def check(self) -> None:
        """Raises NotFoundError for a folder that is not there."""
        for path in FolderDataset(self.root, self.split, self.annotations).missing_paths():
            raise NotFoundError(f"not found: {path} (--evaluate, --split and --annotations say where)", path)

    def arguments(self) -> list[str]:
        """Of the command line."""
        named = {"--root": self.root, "--split": self.split, "--annotations": self.annotations}
        return [word for name, value in named.items() if value is not None for word in (name, value)]


@dataclass(frozen=True)
class Work:
    """One run of a sweep: its folder, and the arguments of tools/train.py and, where it is evaluated, of tools/eval.py."""

    folder: Path
    train: tuple[str, ...]
    evaluate: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the run."""
        return self.folder.name

    @property
    def log(self) -> Path:
        """What its commands print."""
        return self.folder.with_name(f"{self.name}.log")

    def next_step(self) -> tuple[str, list[str]] | None:
        """(what it is, command) of what is to be done next; None when all is done."""
        if not is_finished(self.folder):
            return "training", command("train.py", self.train)
        if self.evaluate and not self._is_evaluated():
            return "evaluation", command("eval.py", self.evaluate)
        return None

    def end_step(self, step: str) -> None:
        """Keeps in mind that a command has ended well."""
        if step == "evaluation":
            write_atomically(self._evaluated, self._evaluation_text())

    @property
    def _evaluated(self):
        return self.folder / EVALUATION / "command.txt"

    def _evaluation_text(self):
        return f"{shlex.join(self.evaluate)}\n".encode()

    def _is_evaluated(self):
        same = self._evaluated.exists() and self._evaluated.read_bytes() == self._evaluation_text()
        return same and is_evaluated(self.folder)


def works_of(plan: Plan, out: Path, bindings: dict[str, Bindings], data: EvaluationData | None) -> list[Work]:
    """The work of every run of a plan, in its order."""
    return [_work(plan, out / name, overrides, bindings[name], data) for name, overrides in plan.runs.items()]


def _work(plan, folder, overrides, bindings, data):
    gin_files = [word for file in plan.gin for word in ("--gin", file)]
    evaluate = ()
    if data is not None:
        weights, results = folder / "model.safetensors", folder / EVALUATION
        evaluate = ("--checkpoint", str(weights), *data.arguments(), "--out", str(results), *bindings.tracking)
    return Work(folder, (*gin_files, *overrides, "--run", str(folder)), evaluate)


def command(script: str, arguments: Sequence[str]) -> list[str]:
    """The command line of one of the tools."""
    return [sys.executable, str(REPO_ROOT / "tools" / script), *arguments]
