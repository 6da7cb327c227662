"""The grid of a sweep: a product of axes and seeds as plain lists of overrides, checked before anything runs."""

import itertools
import json
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import gin
import msgspec
from gin.config import Configurable

from hiptrack import config
from hiptrack.config.meaning import (
    Key,
    Walk,
    current_bindings,
    format_value,
    label,
    order,
    references,
    resolve,
    scope_of,
    short_name,
)
from hiptrack.config.syntax import Binding, named, read_file, read_override
from hiptrack.data.benchmarks import open_benchmark
from hiptrack.errors import ConfigError, DataError, HiptrackError, NotFoundError
from hiptrack.extras.sweep.records import (
    EVALUATION,
    SEED,
    is_evaluated,
    is_finished,
    newest_config,
    short_names,
    shortened,
    value_names,
)
from hiptrack.files import encoded, read_bytes, read_text, write_atomically
from hiptrack.training.resume import config_differences

PLAN = "plan.json"
MAX_RUNS = 1000
MAX_BYTES = 2**24
_MAX_NAME = 200  # a folder's name has 255 bytes at most, its log's four more
_FolderName = Annotated[str, msgspec.Meta(pattern=r"^(?!\.{0,2}$)[^/]*$")]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sweep as it stands in plan.json.

    gin, overrides: of all runs; axes: {name: its values as gin text}; seeds: train.seed is 0, 1, ... below it;
    runs: {name: all overrides of the run}.
    """

    gin: list[str]
    overrides: list[str]
    axes: dict[str, list[str]]
    seeds: int
    runs: dict[_FolderName, list[str]]


@dataclass(frozen=True)
class Bindings:
    """What a run's configuration comes to: every binding as text, as overrides those that its tracking reads, and whether
    it has a validation."""

    values: dict[str, str]
    tracking: list[str]
    validates: bool


def make_plan(gin_files: Sequence[str], overrides: Sequence[str], axes: Sequence[str], seeds: int) -> Plan:
    """The plan of every combination of the axes, each `NAME=[VALUE, ...]`, with each seed.

    Raises ConfigError for an axis that is no list, is empty, holds a value twice, or is bound elsewhere too.
    """
    for file in gin_files:
        list(read_file(file))  # its imports register the names that an axis may use
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: at least 1 was expected.")
    seed_key = read_override(f"{SEED}=0").key
    bound = {override.key: override.where for override in map(read_override, overrides)}
    if seed_key in bound:
        raise ConfigError(f"{bound[seed_key]}: --seeds N sets {SEED} to 0 ... N-1; remove the override.")
    grid = {}
    for text in axes:
        axis, values = _read_axis(text)
        if axis.key == seed_key:
            raise ConfigError(f"{axis.where}: --seeds N sets {SEED} to 0 ... N-1; remove the axis.")
        if axis.key in bound:
            raise ConfigError(
                f"{axis.where}: {label(axis.key)} is set already, by {bound[axis.key]}; remove one of them."
            )
        bound[axis.key], grid[label(axis.key)] = axis.where, values
    count = math.prod(map(len, grid.values())) * seeds
    if count > MAX_RUNS:
        raise ConfigError(f"the sweep would be {count} runs; {MAX_RUNS} are the most.")
    return Plan(list(gin_files), list(overrides), grid, seeds, dict(_runs(overrides, grid, seeds)))


def _read_axis(text: str) -> tuple[Binding, list[str]]:
    """(the binding, its values as gin text)."""
    binding = read_override(text)
    example = f"as in {label(binding.key)}=[0.5, 1.0]"
    if not isinstance(binding.value, list):
        raise ConfigError(f"{binding.where}: the values of an axis stand in a list, {example}.")
    if not binding.value:
        raise ConfigError(f"{binding.where}: the axis has no values; expected some, {example}.")
    texts = list(map(format_value, binding.value))
    seen = {}
    for value, written in zip(binding.value, texts):
        same = value if type(value) in (int, float) else written  # 1 and 1.0 give the same run
        if same in seen:
            raise ConfigError(f"{binding.where}: two of its values are the same, {seen[same]} and {written}.")
        seen[same] = written
    return binding, texts


def _runs(overrides, axes, seeds):
    """(name, overrides) of each run, the seeds of a combination together."""
    short = short_names([*axes, SEED])
    axes = {**axes, SEED: [str(seed) for seed in range(seeds)]}
    names = {axis: value_names(texts) for axis, texts in axes.items()}
    for choice in itertools.product(*(range(len(texts)) for texts in axes.values())):
        bound = [f"{axis}={axes[axis][place]}" for axis, place in zip(axes, choice)]
        parts = [f"{short[axis].replace('/', '.')}={names[axis][place]}" for axis, place in zip(axes, choice)]
        yield shortened(",".join(parts), ",".join(bound), _MAX_NAME), [*overrides, *bound]


def check_runs(plan: Plan) -> dict[str, Bindings]:
    """What each run's configuration comes to. Raises ConfigError at the first that is wrong; gin is left empty."""
    found = {}
    try:
        for name, overrides in plan.runs.items():
            try:
                config.load(plan.gin, overrides, root="train")
            except ConfigError as error:
                raise ConfigError(f"the run {name} cannot be: {error}") from error
            bindings = current_bindings()
            validation = _validation(bindings)
            tracking = (
                _written_tracking(plan.gin, overrides) if validation is None else _tracking(bindings, *validation)
            )
            found[name] = Bindings(config.bound_values(), tracking, validation is not None)
    finally:
        gin.clear_config()
    return found


def _validation(bindings: dict[Key, object]) -> tuple[str, dict[str, Key]] | None:
    """(the scope of the run's validation, its parameters' bindings); None where it has none."""
    validation = named("Validation", "sweep").selector
    used = Walk(bindings, named("train", "sweep")).used
    return next(((scope, chosen) for (scope, selector), chosen in used.items() if selector == validation), None)


def _tracking(bindings: dict[Key, object], scope: str, chosen: dict[str, Key]) -> list[str]:
    """Overrides with which `hiptrack eval` tracks as the validation does: its tracker in its scope, what that reads."""
    if "tracker" not in chosen:
        return []
    (tracker,) = references(resolve(bindings[chosen["tracker"]], bindings))
    scope = scope_of(tracker) or scope  # a reference without one is built where its holder is
    name = "/".join(filter(None, (scope, short_name(tracker.configurable.selector))))
    return [f"evaluate.tracker=@{name}", *_read_by(tracker.configurable, bindings, scope)]


def _written_tracking(gin_files: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The same of a run without validation: what its files and overrides say of Tracker, though the training reads none."""
    written = [binding for file in gin_files for binding in read_file(file)] + list(map(read_override, overrides))
    bindings = {binding.key: binding.value for binding in written}
    return _read_by(named("Tracker", "sweep"), {key: bindings[key] for key in sorted(bindings, key=order)})


def _read_by(tracker: Configurable, bindings: dict[Key, object], scope: str = "") -> list[str]:
    read = Walk(bindings, tracker, scope).read
    return [f"{label(key)}={format_value(bindings[key])}" for key in bindings if key in read]


def claim(plan: Plan, out: Path, bindings: dict[str, Bindings]) -> None:
    """Make `out` the plan's folder: write plan.json, or accept the same one.

    Raises HiptrackError, with what differs, where `out` holds another plan or runs of other configurations, and where
    it is no place for a sweep.
    """
    path = out / PLAN
    if (out / "config.gin").exists():
        raise HiptrackError(f"{out} is the folder of a single run; choose another with --out DIR.")
    if path.exists():
        different = _differences(read_plan(out), plan)
        if different:
            raise ConfigError(
                f"{path} is the plan of another sweep. Give the command that made it, choose another folder with --out DIR, or "
                "remove that file: runs that fit the present command are then kept. What differs (there -> now):",
                *different,
            )
    for name in plan.runs:
        theirs = newest_config(out / name)
        different = config_differences(theirs, bindings[name].values) if theirs else []
        if different:
            raise ConfigError(
                f"{out / name} was trained with another configuration. Choose another folder with --out DIR, or move that run "
                "away. What differs (there -> now):",
                *different,
            )
    try:
        write_atomically(path, encoded(json.dumps(msgspec.to_builtins(plan), indent=2, ensure_ascii=False) + "\n"))
    except OSError as error:
        raise HiptrackError(f"{path} cannot be written: {error}; choose another folder with --out DIR.") from error


def read_plan(out: Path) -> Plan:
    """The plan of a sweep's folder. Raises DataError where it is damaged."""
    path = Path(out) / PLAN
    try:
        return msgspec.convert(json.loads(read_text(path, MAX_BYTES)), Plan)  # names that are no UTF-8, too
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as the plan of a sweep: {error}. Move it away.") from error


def _differences(theirs: Plan, ours: Plan) -> list[str]:
    def told(plan):
        axes = {f"--axis {name}": f"[{', '.join(texts)}]" for name, texts in plan.axes.items()}
        return {"--gin": plan.gin, "overrides": plan.overrides, "--seeds": plan.seeds, **axes}

    there, now = told(theirs), told(ours)
    names = [name for name in {**there, **now} if there.get(name) != now.get(name)]
    return [f"{name}: {there.get(name, 'none')} -> {now.get(name, 'none')}" for name in names]


@dataclass(frozen=True)
class EvaluationData:
    """The held-out data that every finished run is evaluated on, as hiptrack eval takes them."""

    root: str
    split: str | None = None
    annotations: str | None = None
    dataset: str | None = None  # None: the layout that hiptrack eval takes by itself
    include: Sequence[str] | None = None
    exclude: Sequence[str] | None = None

    def check(self) -> None:
        """Raises NotFoundError for a folder that is not there, ConfigError for a split that the data set has not."""
        for path in open_benchmark(self.dataset or "got10k", self.root, self.split, self.annotations).missing_paths():
            raise NotFoundError(f"not found: {path} (--evaluate, --dataset, --split and --annotations say where)", path)

    def arguments(self) -> list[str]:
        named = {
            "--dataset": self.dataset,
            "--root": self.root,
            "--split": self.split,
            "--annotations": self.annotations,
        }
        words = [word for name, value in named.items() if value is not None for word in (name, value)]
        for name, values in (("--include", self.include), ("--exclude", self.exclude)):
            words += [name, *values] if values else []
        return words


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep: its folder, and the arguments of `hiptrack train` and, where it is evaluated, `hiptrack eval`."""

    folder: Path
    train: tuple[str, ...]
    evaluate: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.name}.log")

    def next_step(self) -> tuple[str, list[str]] | None:
        """(what it is, command) of what is to be done next; None when all is done."""
        if not is_finished(self.folder):
            return "training", command("train", self.train)
        if self.evaluate and not (self._is_same_evaluation() and is_evaluated(self.folder)):
            return "evaluation", command("eval", self.evaluate)
        return None

    def end_step(self, step: str) -> None:
        if step == "evaluation":
            write_atomically(self._evaluated, self._evaluation)

    def _is_same_evaluation(self):
        try:
            return read_bytes(self._evaluated, MAX_BYTES) == self._evaluation
        except OSError:
            return False

    @property
    def _evaluated(self):
        return self.folder / EVALUATION / "command.txt"

    @property
    def _evaluation(self):
        return encoded(f"{shlex.join(self.evaluate)}\n")


def planned_runs(plan: Plan, out: Path, bindings: dict[str, Bindings], data: EvaluationData | None) -> list[PlannedRun]:
    gin_files = [word for file in plan.gin for word in ("--gin", file)]
    runs = []
    for name, overrides in plan.runs.items():
        folder, evaluate = out / name, ()
        if data is not None:
            weights, results = folder / "model.safetensors", folder / EVALUATION
            tracking = bindings[name].tracking
            evaluate = ("--checkpoint", str(weights), *data.arguments(), "--out", str(results), *tracking)
        runs.append(PlannedRun(folder, (*gin_files, *overrides, "--run", str(folder)), evaluate))
    return runs


def command(name: str, arguments: Sequence[str]) -> list[str]:
    """The command line of `hiptrack NAME ...` for a process of its own."""
    return [sys.executable, "-m", "hiptrack", name, *arguments]
