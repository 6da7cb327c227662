"""hiptrack-nano, the tracker that comes with the package: a folder as `Tracker.from_pretrained` takes it. README.md is its model card."""

from pathlib import Path

NAME = "nano"
FOLDER = Path(__file__).parent
WEIGHTS = FOLDER / "model.safetensors"


def weights_path(name):
    """The weights file that a name stands for: "nano" is the packaged one (a file of that name is ./nano); else a path."""
    return WEIGHTS if name == NAME else Path(name)
