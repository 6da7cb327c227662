"""A tracker as a folder, which may be a repository of the Hugging Face Hub.

    model.safetensors   the weights file, which says itself how its model is built (models/weights.py)
    config.json         the tracker's settings: arguments of its constructor
    README.md           the model card

Nothing of it can run code, so that a folder from elsewhere is as safe as a picture.
"""

import inspect
import json
from dataclasses import fields
from pathlib import Path

from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HTTPError

from hiptrack.config.portable import arguments_of, read_settings
from hiptrack.errors import CheckpointError, ConfigError, HiptrackError, NotFoundError
from hiptrack.files import excerpt, read_text, signature, write_atomically
from hiptrack.models.strip import strip_branch
from hiptrack.nano import NAME

WEIGHTS, SETTINGS = "model.safetensors", "config.json"
# Of a tracker's fields: the weights file holds the model, the others belong to a machine.
NOT_STORED = ("model", "precision", "compile", "device")
MAX_BYTES = 2**20  # of the settings
# What huggingface_hub raises: of the network, the Hub's answers, its cache (all OSError but the first), bad names.
HUB_ERRORS = (HTTPError, OSError, ValueError)
CARD = """---
{{ card_data }}
---

# {{ repo_id.split("/")[-1] if repo_id else "A tracker" }}

A single-object visual tracker: HIPTrack (Cai, Liu and Wang, CVPR 2024, {{ paper_url }}) with template crops
of {{ model.template_size }} px and search crops of {{ model.search_size }} px
{%- if settings.branch == "on" %}, and a branch that names what makes a frame hard{% endif %}.

## Use

```python
from hiptrack import Tracker

tracker = Tracker.from_pretrained("{{ repo_id or "org/name, or a folder" }}")
tracker.init(first_frame, (x, y, w, h))  # uint8 RGB [H, W, 3]; the target's box in pixels
result = tracker.update(next_frame)  # .box, .score{{ ", .challenge" if settings.branch == "on" }}
```

`config.json` holds the settings it was saved with; arguments replace them: `from_pretrained(..., branch="off")`. The weights are
safetensors: loading them runs no code of this repository.

## To be told by who publishes it

What it was trained on, how well it tracks on which benchmark, and under which licence it may be used.
"""


class WeightsFile:
    """The file that a tracker's weights were read from, and when it was last changed."""

    def __init__(self, path):
        self.path = Path(path).absolute()
        self._stamp = signature(self.path)

    def require_same(self):
        """Raise NotFoundError where the file is gone, CheckpointError where it is another one than was read."""
        if not self.path.is_file():
            raise NotFoundError(f"not found: {self.path} (the weights that this tracker was read from)", str(self.path))
        if signature(self.path) != self._stamp:
            raise CheckpointError(f"{self.path} has changed since this tracker was read from it; read it again.")


class TrackerHubMixin(
    ModelHubMixin,
    library_name="hiptrack",
    tags=["object-tracking", "visual-tracking"],
    paper_url="https://arxiv.org/abs/2311.02072",
    model_card_template=CARD,
):
    """`save_pretrained`, `push_to_hub` and `from_pretrained` of a tracker.

    What is stored is the weights file itself: a tracker may have made its model ready for a machine.
    """

    weights_file: WeightsFile | None = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *,
        device="auto",
        revision=None,
        token=None,
        cache_dir=None,
        local_files_only=False,
        force_download=False,
        **settings,
    ):
        """A tracker from a folder that `save_pretrained` wrote, or from a repository of the Hub ("org/name").

        settings: arguments of the constructor, in the place of the stored ones. revision: branch, tag or commit; it and
        what follows are `huggingface_hub.snapshot_download`'s. Raises NotFoundError, CheckpointError or ConfigError.

        In the place of the mixin's own, which reads config.json unchecked and drops what it does not know.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = _download(
                str(pretrained_model_name_or_path),
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
            )
        stored = stored_settings(folder / SETTINGS, cls)
        try:
            return cls.from_checkpoint(folder / WEIGHTS, device=device, **{**stored, **settings})
        except ConfigError as error:
            raise ConfigError(f"{pretrained_model_name_or_path}: {error}") from error

    def save_pretrained(self, save_directory, **options):
        """Write weights, settings and, where there is none, a model card to a folder; the options are ModelHubMixin's.

        Raises ConfigError for a tracker that was not read from a weights file, and for a folded one in the folder it
        was read from, and CheckpointError or NotFoundError where the weights file has changed since.
        """
        if self.weights_file is None:
            raise ConfigError(
                "This tracker's model was given to it, so that nothing says how to build it again. Only a tracker of "
                "Tracker.from_checkpoint or Tracker.from_pretrained can be saved."
            )
        target = Path(save_directory, WEIGHTS)
        if self.branch == "folded" and target.exists() and target.samefile(self.weights_file.path):
            raise ConfigError(
                f"{target} holds the branch that this tracker folded: saved there, the branch would be lost. Expected another "
                "folder."
            )
        self.weights_file.require_same()  # before the mixin removes what stands in the folder
        return super().save_pretrained(save_directory, **options)

    def push_to_hub(self, repo_id, *, model_card_kwargs=None, **options):
        """Upload what `save_pretrained` writes to a repository, made where there is none; returns the commit's address.

        options: ModelHubMixin's (private, branch, commit_message, token, ...). Raises HiptrackError with the Hub's
        reason.
        """
        card = {"repo_id": repo_id, **(model_card_kwargs or {})}
        try:
            return super().push_to_hub(repo_id, model_card_kwargs=card, **options)
        except HUB_ERRORS as error:
            raise HiptrackError(f"{repo_id} could not be pushed to the Hub: {_reason(error)}") from error

    def generate_model_card(self, *args, **facts):
        """The card of this tracker; facts: further values for its template."""
        known = {"repo_id": None, "model": self.model, "settings": self._settings()}
        return super().generate_model_card(*args, **{**known, **facts})

    def _save_pretrained(self, save_directory):
        source, target = self.weights_file.path, save_directory / WEIGHTS
        if self.branch == "folded":
            strip_branch(source, target, fold=True)
        elif not (target.exists() and target.samefile(source)):
            write_atomically(target, source.read_bytes())
        text = json.dumps(self._settings(), default=arguments_of, indent=2, sort_keys=True) + "\n"
        write_atomically(save_directory / SETTINGS, text.encode())

    def _settings(self):
        """The constructor's arguments that are stored. Folded weights have no branch any more, and track as they are."""
        settings = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in NOT_STORED}
        return {**settings, "branch": "off" if self.branch == "folded" else self.branch}


def _download(repo_id, **options):
    try:
        return Path(snapshot_download(repo_id, allow_patterns=[WEIGHTS, SETTINGS], **options))
    except HUB_ERRORS as error:
        hint = " Tracker.nano() is the tracker that comes with the package." if repo_id == NAME else ""
        raise NotFoundError(
            f"{repo_id}: there is no such folder, and the Hub gives no such repository: {_reason(error)}{hint}", repo_id
        ) from error


def stored_settings(path, tracker):
    """The constructor's arguments that a settings file holds, for a class of trackers.

    Raises NotFoundError, or CheckpointError for what cannot be read.
    """
    parameters = inspect.signature(tracker, eval_str=True).parameters
    stored = {name: parameter for name, parameter in parameters.items() if name not in NOT_STORED}
    try:
        return read_settings(json.loads(read_text(path, MAX_BYTES)), stored, str(path))
    except FileNotFoundError as error:
        raise NotFoundError(
            f"not found: {path} (the settings that save_pretrained writes). "
            "A weights file alone is taken by Tracker.from_checkpoint.",
            str(path),
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged, or no JSON file: {excerpt(str(error))}.") from error
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _reason(error):
    return excerpt(" ".join(str(error).split()), 500)


def is_tracker_folder(path: Path) -> bool:
    """Whether `save_pretrained` wrote this folder."""
    return (path / SETTINGS).is_file() and (path / WEIGHTS).is_file()
