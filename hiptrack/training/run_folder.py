"""A run's folder: its lock, its weights, and what it says about the run: configuration, commands, versions, commit.

Every file is written whole or not at all.
"""

import fcntl
import importlib.metadata
import json
import os
import platform
import shlex
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import hiptrack
from hiptrack.config import REPO_ROOT, bound_values, config_text, operative_text
from hiptrack.errors import OPENCV, ConfigError, HiptrackError
from hiptrack.files import (
    UNFINISHED,
    check_own,
    encodable,
    encoded,
    excerpt,
    open_own,
    read_bytes,
    remove_leftovers,
    write_atomically,
)
from hiptrack.models.weights import save_weights
from hiptrack.processes import on_main
from hiptrack.signals import MARKER, leave_marker, remove_marker
from hiptrack.training.checkpoint import (
    BEST,
    best_checkpoint,
    finished_checkpoints,
    publish_best,
    remove_unfinished,
    set_aside,
    set_aside_after,
)
from hiptrack.training.log import METRICS, REJECTED, TABLED, TENSORBOARD, NoLog, RunLog

LOCK, CONFIG, VERSIONS, CHECKPOINTS = ".lock", "config.gin", "versions.json", "checkpoints"
MAX_BYTES = 2**26  # of what a run says about itself
MAX_HOLDER = 2**10  # bytes of a lock
WARNINGS = "warnings.json"  # {what of: text}
LAUNCHER_LOGS = (".log", ".out", ".err")  # where whoever starts a run may send what it prints
_DISTRIBUTIONS = {
    "torch": ("torch",),
    "accelerate": ("accelerate",),
    "timm": ("timm",),
    "gin": ("gin-config",),
    "numpy": ("numpy",),
    "cv2": OPENCV,
}


@dataclass(frozen=True)
class TrainRequest:
    """What the command line says of a run.

    folder: of the run; argv: the command, to be recorded; resume: "auto", "never" or a checkpoint's path; allow_change:
    resume with another configuration; dry_run: only describe it; timed: and take a step of each stage, to tell its time.
    """

    folder: Path
    argv: tuple[str, ...] = ()
    resume: str = "auto"
    allow_change: bool = False
    dry_run: bool = False
    timed: bool = False


@contextmanager
def run_folder(request, accelerator):
    """The RunFolder of a TrainRequest, locked to the end of the block. Every process has one; the main process writes.

    Raises HiptrackError where the folder cannot be used.
    """
    folder = RunFolder(request.folder, accelerator)
    with ExitStack() as held:

        def claim():
            if request.resume == "auto":
                require_run(folder.path)  # before the lock, which would be left in a folder of someone else
            held.enter_context(run_lock(folder.path))
            open_run(folder.path, request.resume)

        on_main(accelerator, claim, folder.what)
        try:
            yield folder
        finally:
            folder.log.close()


class RunFolder:
    """A run's folder as the run uses it: its log, its weights files, its record."""

    def __init__(self, path, accelerator):
        self.path, self.accelerator, self.log = Path(path), accelerator, NoLog()
        self.what = f"the run folder {path}"

    @property
    def checkpoints(self):
        return self.path / CHECKPOINTS

    def open(self, resumed, at, log_sizes, argv, warnings, chooses):
        """Record the start of a run and open its log.

        resumed: path of the checkpoint it goes on from, or None; at: its Position; log_sizes: what the log's `sync`
        gave there; warnings: {what of: text}; chooses: whether the validation may choose the best weights.
        """

        def write():
            remove_marker(self.path)
            remove_leftovers(self.path)
            record(self.path, config_text(), argv)
            record_warnings(self.path, warnings)
            remove_unfinished(self.checkpoints)
            set_aside_after(self.checkpoints, at.folder_name if resumed else "")
            if chooses:
                publish_best(best_checkpoint(self.checkpoints), self.path / BEST)
            elif (self.path / BEST).exists():
                aside = set_aside(self.path / BEST)
                self.say(
                    f"{self.path / BEST} is now called {aside.name}: an earlier start of the run chose these weights, and the "
                    "validation of this one may choose none."
                )
            own = resumed is not None and resumed.parent == self.checkpoints
            self.log = RunLog(self.path, at.step, log_sizes if own else {})
            self.log.text(at.step, "config", config_text())
            self.log.hparams(bound_values(), TABLED)

        on_main(self.accelerator, write, self.what)

    def save_weights(self, name, model, text, step):
        path = self.path / f"{name}.safetensors"
        on_main(self.accelerator, lambda: save_weights(path, model, text, step=step), str(path))

    def end_stage(self, name, model, text, step):
        """Write the weights that a stage ends with, and the values that it used."""
        self.save_weights(name, model, text, step)
        used = operative_text()
        on_main(self.accelerator, lambda: record_operative(self.path, name, used), str(self.path))

    def end_run(self, model, text, step, faults):
        """Write the weights that the run ends with, and say so. faults: what is to be told of its data, or None."""
        self.save_weights("model", model, text, step)
        self.say(faults)
        self.say(f"finished: {self.path / 'model.safetensors'}")

    def log_validation(self, at, values):
        self.log.scalars(at.step, {f"Validation/{name}": value for name, value in values.items()})

    def leave_marker(self, number, step):
        """Leave word that the run was asked to stop. number: the signal, None where another process got it."""
        asked = "a signal to another process" if number is None else number.name
        text = f"stopped by {asked} at step {step}; --resume auto, the default, goes on from there"
        on_main(self.accelerator, lambda: leave_marker(self.path, text), self.what)
        self.say(text)

    def say(self, text):
        if self.accelerator.is_main_process and text:
            tqdm.write(text)


def default_run_dir(gin_files: Sequence[str]) -> Path:
    """runs/<experiment>, from the working directory; several gin files give runs/<first>+<second>."""
    if not gin_files:
        raise ConfigError("no gin file was given; name one with --gin FILE, or the run's folder with --run DIR.")
    return Path("runs") / "+".join(Path(name).stem for name in gin_files)


def open_run(run_dir: str | Path, resume: str) -> Path:
    """Creates the run's folder where it is missing. resume: "auto", "never" or the path of a checkpoint.

    Raises HiptrackError where the folder holds something and resume is "never", where it holds something that is no run,
    where what a run writes to is a link, where it cannot be made, and for a name that is no UTF-8, which TensorBoard cannot
    write to.
    """
    run_dir = Path(run_dir)
    if not encodable(str(run_dir)):
        raise HiptrackError(
            f"the run folder {run_dir} has a name that is no UTF-8 text; choose another with --run DIR."
        )
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        for name in (METRICS, REJECTED, TENSORBOARD, CHECKPOINTS):
            check_own(run_dir / name)
    except OSError as error:
        raise _unusable(run_dir, error) from error
    if resume == "auto":
        require_run(run_dir)
    elif resume == "never" and _names_in(run_dir):
        raise HiptrackError(
            f"the run folder {run_dir} is not empty, and --resume never starts anew; continue that run with "
            "--resume auto, choose another folder with --run DIR, or move this one away."
        )
    return run_dir


def require_run(folder: str | Path) -> None:
    """Raises HiptrackError where a folder is there and holds something, but no run."""
    names = _names_in(folder)
    if not _is_run(Path(folder), names):
        raise HiptrackError(
            f"{folder} is no run folder, but holds {excerpt(min(names))}{' and more' if len(names) > 1 else ''}: a run would "
            "mix with it. Name a folder that is new or empty with --run DIR."
        )


def _names_in(folder):
    """What a folder holds beside a lock and what a killed write left; nothing where it is missing."""
    try:
        return {name for name in os.listdir(folder) if name != LOCK and not UNFINISHED.fullmatch(name)}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(folder, error):
    return HiptrackError(f"the run folder {folder} cannot be used: {error}; choose another with --run DIR.")


def _is_run(folder, names):
    """Whether a folder that holds these names is a run's, or one in which a run may begin."""
    begun = {name for name in names if not name.endswith(LAUNCHER_LOGS)}
    if begun <= {CONFIG, MARKER}:  # of a start that was stopped at once
        return True
    try:
        versions = read_bytes(folder / VERSIONS, MAX_BYTES)
    except OSError:
        versions = b""
    return b'"hiptrack"' in versions or bool(finished_checkpoints(folder / CHECKPOINTS))


def record(run_dir: Path, config_text: str, argv: Sequence[str]) -> None:
    """Writes config.gin and versions.json and adds the command to command.txt, at every start of the run.

    What the first start wrote is kept: where configuration or versions differ at a later start, they go to
    config-2.gin or versions-2.json, and so on.
    """
    _write_next(run_dir, CONFIG, config_text)
    _write_next(run_dir, VERSIONS, json.dumps(_versions(), indent=2) + "\n")
    commands = run_dir / "command.txt"
    earlier = _read(commands) if commands.exists() else b""
    write_atomically(commands, earlier + encoded(f"{shlex.join(argv)}\n"))


def record_warnings(run_dir: Path, warnings: dict[str, str]) -> None:
    """Writes warnings.json, what a start of the run warned of; where there is nothing, only over an earlier one."""
    if warnings or (run_dir / WARNINGS).exists():
        write_atomically(run_dir / WARNINGS, encoded(json.dumps(warnings, indent=2) + "\n"))


def record_operative(run_dir: Path, stage_name: str, text: str) -> None:
    """Writes operative-<stage>.gin: the values that were used up to the end of the stage."""
    write_atomically(run_dir / f"operative-{stage_name.replace('/', '-')}.gin", encoded(text))


def _write_next(folder: Path, name: str, text: str) -> None:
    """Writes stem.suffix; where that exists, the next of stem-2.suffix, ... if the newest one differs."""
    count, content = 1, encoded(text)
    path = newest = folder / name
    while path.exists():
        newest, count = path, count + 1
        path = newest.with_name(f"{Path(name).stem}-{count}{path.suffix}")
    if path is newest or _read(newest) != content:
        write_atomically(path, content)


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise HiptrackError(f"{path} cannot be read: {error}. Move it away.") from error


def _versions() -> dict[str, str | bool | None]:
    """Versions of what a result can depend on; None for what is not installed or known."""
    versions = {name: _installed(distributions) for name, distributions in _DISTRIBUTIONS.items()}
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain")
    return {
        "hiptrack": hiptrack.__version__,
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "git_commit": commit,
        "git_dirty": None if changes is None else bool(changes),
    }


def _installed(distributions: Sequence[str]) -> str | None:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return None


def _git(*arguments: str) -> str | None:
    """What git says about this checkout; None without a checkout, without git, and where git refuses."""
    if not (REPO_ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=REPO_ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@contextmanager
def run_lock(folder, what="the run folder", option="--run DIR"):
    """Hold a run's folder, which is made where it is missing. what, option: how its errors call it, and what sets it.

    A record lock (fcntl) of this process: it goes with the process, however that ends; loader workers do not inherit
    it; over NFS the server keeps it until a crashed machine is back or its lease is over. A folder that holds nothing
    but the lock afterwards is removed.

    Raises HiptrackError at once where another process has the folder, or where it cannot be made or locked.
    """
    path, shown = Path(folder) / LOCK, f"{what} {folder}"
    is_new = not path.parent.exists()
    with _locked(path, shown, option) as file:
        try:
            _sign(file, shown, option)
            yield
        finally:
            with suppress(OSError):  # another process may come just now; what became of the run counts
                if [entry.name for entry in path.parent.iterdir()] == [LOCK]:
                    path.unlink()
                    if is_new:
                        path.parent.rmdir()


def _sign(file, shown, option):
    """Say in a lock who has it."""
    try:
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError as error:
        raise HiptrackError(
            f"{shown} cannot be written: {error}; make room, or choose another with {option}."
        ) from error


def _locked(path, shown, option):
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open_own(path)
        except OSError as error:
            raise HiptrackError(f"{shown} cannot be used: {error}; choose another with {option}.") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            with file:
                file.seek(0)
                told = file.read(MAX_HOLDER).decode(errors="replace").strip()
                holder = excerpt(told) or "a process that has not said its name yet"
            raise HiptrackError(
                f"{shown} is in use by {holder}. Wait for that run or stop it, or choose another folder with {option}."
            ) from None
        except OSError as error:
            file.close()
            raise HiptrackError(
                f"{shown} cannot be locked ({error}), so two runs could write it at once; choose a folder on another file "
                f"system with {option}."
            ) from error
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()  # whoever had it before removed it in between
