"""hiptrack-nano, the packaged tracker: a folder for `Tracker.from_pretrained`. README.md is its model card."""

from pathlib import Path

NAME = "nano"
FOLDER = Path(__file__).parent
WEIGHTS = FOLDER / "model.safetensors"


def weights_path(name):
    """The weights file of a name: "nano" is the packaged one (a file of that name is ./nano); any other is a path."""
    return WEIGHTS if name == NAME else Path(name)


def checkpoint_path(name):
    """The path of a weights file or tracker's folder: "nano" is the packaged folder (a file of that name is ./nano)."""
    return FOLDER if name == NAME else Path(name)


def checkpoint_name(path: Path) -> str:
    """What a checkpoint is called in reports: "nano", or its last name without suffix."""
    return NAME if path == FOLDER else path.stem
