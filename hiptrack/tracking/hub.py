"""A tracker as a folder, which may be a repository of the Hugging Face Hub.

    model.safetensors   the weights, which say themselves how their model is built (models/weights.py)
    config.json         the tracker's settings: the arguments of its constructor
    README.md           the model card

Nothing of it can run code, so that a folder from elsewhere is as safe as a picture.
"""

import inspect
import json
from pathlib import Path

from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HTTPError

from hiptrack.bounded import excerpt, read_text
from hiptrack.errors import CheckpointError, ConfigError, HiptrackError, NotFoundError
from hiptrack.files import write_atomically
from hiptrack.models.strip import without_branch
from hiptrack.models.weights import save_weights
from hiptrack.tracking.settings import as_json, read_settings

WEIGHTS, SETTINGS = "model.safetensors", "config.json"
MAX_BYTES = 2**20  # of the settings
# What huggingface_hub raises: of the network, the Hub's answers, its cache (all OSError but the first), and names that cannot be.
HUB_ERRORS = (HTTPError, OSError, ValueError)
CARD = """---
{{ card_data }}
---

# {{ repo_id.split("/")[-1] if repo_id else "A tracker" }}

A single-object visual tracker: HIPTrack (Cai, Liu and Wang, CVPR 2024, {{ paper_url }}) with {{ parameters }}
parameters, template crops of {{ model.template_size }} px and search crops of {{ model.search_size }} px
{%- if classes %}, and a branch that names what makes a frame hard ({{ classes }} classes){% endif %}.

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


class TrackerHubMixin(
    ModelHubMixin,
    library_name="hiptrack",
    tags=["object-tracking", "visual-tracking"],
    paper_url="https://arxiv.org/abs/2311.02072",
    model_card_template=CARD,
):
    """`save_pretrained`, `push_to_hub` and `from_pretrained` of a tracker."""

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

        settings: arguments of the constructor, in the place of the stored ones. revision: branch, tag or commit; it and what
        follows are `huggingface_hub.snapshot_download`'s. Raises NotFoundError, CheckpointError or ConfigError.

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
        stored = _stored_settings(folder / SETTINGS, inspect.signature(cls, eval_str=True).parameters)
        try:
            return cls.from_checkpoint(folder / WEIGHTS, device=device, **{**stored, **settings})
        except ConfigError as error:
            raise ConfigError(f"{pretrained_model_name_or_path}: {error}") from error

    def save_pretrained(self, save_directory, **options):
        """Write weights, settings and, where there is none, a model card to a folder; the options are ModelHubMixin's.

        Raises ConfigError for a model that was not read from a weights file: how it is built is not known.
        """
        if self.model.description is None:  # before the mixin removes what stands in the folder
            raise ConfigError(
                "This tracker's model was built in Python, so that nothing says how to build it again. "
                "Write it with hiptrack.models.weights.save_weights and take it up by Tracker.from_checkpoint."
            )
        return super().save_pretrained(save_directory, **options)

    def push_to_hub(self, repo_id, *, model_card_kwargs=None, **options):
        """Upload what `save_pretrained` writes to a repository, made where there is none; returns the commit's address.

        options: ModelHubMixin's (private, branch, commit_message, token, ...). Raises HiptrackError with the Hub's reason.
        """
        card = {"repo_id": repo_id, **(model_card_kwargs or {})}
        try:
            return super().push_to_hub(repo_id, model_card_kwargs=card, **options)
        except HUB_ERRORS as error:
            raise HiptrackError(f"{repo_id} could not be pushed to the Hub: {_reason(error)}") from error

    def generate_model_card(self, *args, **facts):
        """The card of this tracker; facts: further values for its template."""
        branch = self.model.challenge
        known = {
            "repo_id": None,
            "model": self.model,
            "parameters": f"{sum(tensor.numel() for tensor in self.model.parameters()):,}",
            "classes": branch and branch.classifier.out_features,
            "settings": self._settings(),
        }
        return super().generate_model_card(*args, **{**known, **facts})

    def _save_pretrained(self, save_directory):
        description = self.model.description
        if self.model.challenge is None:  # folded, if the description still has one
            description = without_branch(description)
        save_weights(save_directory / WEIGHTS, self.model, description)
        text = json.dumps(self._settings(), indent=2, sort_keys=True) + "\n"
        write_atomically(save_directory / SETTINGS, text.encode())

    def _settings(self):
        """The constructor's arguments as JSON values. Folded weights have no branch any more, and track as they are."""
        settings = {
            "branch": "off" if self.branch == "folded" else self.branch,
            "memory": self.policy,
            "margin": self.margin,
            "smoothing": self.smoothing,
            "adaptation": self.adaptation,
        }
        return {name: as_json(value) for name, value in settings.items()}


def _download(repo_id, **options):
    """The folder in the Hub's cache with the files of a repository."""
    try:
        return Path(snapshot_download(repo_id, allow_patterns=[WEIGHTS, SETTINGS], **options))
    except HUB_ERRORS as error:
        raise NotFoundError(
            f"{repo_id}: there is no such folder, and the Hub gives no such repository: {_reason(error)}", repo_id
        ) from error


def _stored_settings(path, parameters):
    kept = {name: entry for name, entry in parameters.items() if name not in ("model", "device")}
    try:
        return read_settings(json.loads(read_text(path, MAX_BYTES)), kept, str(path))
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
