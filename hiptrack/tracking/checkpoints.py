"""What --checkpoint names: a weights file, or a tracker's folder as `save_pretrained` writes it, with settings."""

from pathlib import Path

from hiptrack.config import bound_values
from hiptrack.nano import FOLDER, NAME
from hiptrack.tracking.hub import SETTINGS, WEIGHTS, stored_settings
from hiptrack.tracking.tracker import Tracker


def checkpoint_name(path: Path) -> str:
    """What a checkpoint is called in reports: "nano", or its last name without suffix."""
    return NAME if path == FOLDER else path.stem


def is_tracker_folder(path: Path) -> bool:
    return (path / SETTINGS).is_file() and (path / WEIGHTS).is_file()


def parts_of(path: Path) -> tuple[Path, dict[str, object]]:
    """A checkpoint's weights file, and the folder's settings of the Tracker that the loaded configuration leaves open.

    Raises CheckpointError for settings that cannot be read.
    """
    if not is_tracker_folder(path):
        return path, {}
    bound = {name.split("/")[-1] for name in bound_values()}
    stored = stored_settings(path / SETTINGS, Tracker)
    return path / WEIGHTS, {name: value for name, value in stored.items() if f"Tracker.{name}" not in bound}
