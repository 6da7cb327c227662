"""Initial weights of a model: of its backbone from timm or a file, or of a whole tracker from a weights file.

Called with a model on the meta device they check all they can, and load nothing.
"""

from pathlib import Path

import gin

from hiptrack.errors import CheckpointError
from hiptrack.models import hiptrack as _  # noqa: F401  registers the model's parts
from hiptrack.models.published import (
    CLASS_TOKEN,
    POSITIONS,
    from_published,
    load_published,
    load_vit,
    without_prefix,
)
from hiptrack.models.weights import is_without_memory, load_exact, read_tensors, taxonomy_in
from hiptrack.nano import weights_path


@gin.register
class TimmWeights:
    """Initial weights: the backbone's, from timm's hub under the backbone's own model name.

    Args:
        name: a timm model name with its tag, e.g. `vit_base_patch16_224.mae`.
    """

    def __init__(self, name: str):
        self.name = name

    def describe(self):
        return f"backbone <- timm {self.name}"

    def missing_paths(self):
        return []

    def __call__(self, model):
        """Fill `model.backbone`; returns a line that says what was done."""
        import timm  # here: see create_vit in backbone.py

        try:
            vit = timm.create_model(self.name, pretrained=not is_without_memory(model), num_classes=0)
        except (RuntimeError, OSError, ValueError) as error:
            raise CheckpointError(f"timm could not load pretrained weights for '{self.name}': {error}.") from error
        load_vit(model.backbone, vit.state_dict(), self.name)
        return f"backbone <- timm {self.name}"


@gin.register
class BackboneWeights:
    """Initial weights: the backbone's, from a local file of a plain ViT or MAE (timm names) or of DropTrack or OSTrack.

    Args:
        path: .safetensors, .pth or .pth.tar. None starts from random weights. What a trainer put before all names of its
            tensors (`module.`, `model.` and the like) is left out.
    """

    def __init__(self, path: str | None):
        self.path = path

    def describe(self):
        return f"backbone <- {self.path}" if self.path else "random"

    def missing_paths(self):
        return [] if self.path is None or Path(self.path).is_file() else [self.path]

    def __call__(self, model):
        """Fill `model.backbone`; returns a line that says what was done."""
        if self.path is None:
            return "initial weights: random"
        tensors, prefix = without_prefix(read_tensors(self.path))
        if not any(name.startswith("backbone.") for name in tensors):
            load_vit(model.backbone, tensors, self.path)
            return f"backbone <- plain ViT {self.path}{_told(prefix)}"
        published = {name: tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
        ours = from_published(published)
        state = {name.removeprefix("backbone."): tensor for name, tensor in ours.items()}
        if model.backbone.class_token is not None and {CLASS_TOKEN, POSITIONS} <= published.keys():
            state["class_token"], state["class_position"] = published[CLASS_TOKEN], published[POSITIONS][:, :1]
        load_exact(model.backbone, state, self.path, may_miss=r"(template|search)_temporal$")
        left = f"({len(tensors) - len(published)} tensors outside its backbone left)"
        return f"backbone <- tracker {self.path}{_told(prefix)} {left}"


def _told(prefix):
    return f", {prefix} left out of its names" if prefix else ""


@gin.register
class TrackerWeights:
    """Initial weights: the whole tracker's, from a file of ours or a published HIPTrack checkpoint.

    A branch or a neck that the file does not hold keeps its initial values; everything else must fit.

    Args:
        path: .safetensors of ours, .pth or .pth.tar of the published form, or "nano", the weights that come with the
            package. None starts from random weights. What a trainer put before all names is left out.
        branch: False leaves out the file's branch, for one that starts anew or has another form.

    Raises NotFoundError, or CheckpointError naming the tensors that do not fit.
    """

    def __init__(self, path: str | None, branch: bool = True):
        self.path, self.branch = path, branch

    def describe(self):
        without = "" if self.branch else ", without its branch"
        return f"tracker <- {self.path}{without}" if self.path else "random"

    def missing_paths(self):
        return [] if self.path is None or weights_path(self.path).is_file() else [self.path]

    def __call__(self, model):
        """Fill the model; returns a line that says what was done."""
        if self.path is None:
            return "initial weights: random"
        path = weights_path(self.path)
        tensors, prefix = without_prefix(read_tensors(path))
        if self.branch and model.challenge is not None:
            self._require_same_classes(model, path)
        if not self.branch:
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("challenge.")}
        if any(name.startswith("HIP.") for name in tensors):
            kept = load_published(model, tensors, self.path)
        else:
            kept = self._load_ours(model, tensors)
        return (
            self.describe()
            + _told(prefix)
            + (f" ({len(kept)} other tensors keep their initial values)" if kept else "")
        )

    def _require_same_classes(self, model, path):
        """Raise CheckpointError where a file of ours has a branch for other classes than the model's."""
        known = taxonomy_in(path)
        if known is not None and known != model.challenge.taxonomy:
            raise CheckpointError(
                f"{self.path}: its branch has the classes {', '.join(known.classes)} ({known}), the model's "
                f"{', '.join(model.challenge.classes)} ({model.challenge.taxonomy}). TrackerWeights.branch = False leaves out the "
                "file's branch."
            )

    def _load_ours(self, model, tensors):
        try:
            return load_exact(model, tensors, self.path, may_miss=r"challenge\.|neck\.")
        except CheckpointError as error:
            if "challenge." not in str(error):
                raise
            raise CheckpointError(f"{error} TrackerWeights.branch = False leaves out the file's branch.") from error
