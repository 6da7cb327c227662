"""Tracking with an export folder: its graphs behind the steps of HIPTrack that a Tracker takes.

The reference for programs that drive the graphs themselves; docs/export.md has the same loop without this package.
"""

import inspect
import logging
from pathlib import Path
from types import SimpleNamespace

import torch

from hiptrack.boxes import xywh_to_cxcywh
from hiptrack.config.portable import read_settings
from hiptrack.errors import CheckpointError, ConfigError, HiptrackError, NotFoundError
from hiptrack.extras.export.formats import FORMATS
from hiptrack.extras.export.settings import SETTINGS, read_export_settings
from hiptrack.files import excerpt
from hiptrack.models.backbone import Features
from hiptrack.models.challenge import ChallengeOutput
from hiptrack.models.heads import HeadMaps
from hiptrack.models.hiptrack import Prediction
from hiptrack.tracking.memory import MemoryPolicy
from hiptrack.tracking.tracker import Tracker

logger = logging.getLogger(__name__)


def exported_tracker(folder, trusted=False):
    """A Tracker of an export folder, on the CPU, with the branch, the margin and the memory that its settings name.

    trusted: read `.pt2` files, too, which can run code while they are read. Raises ConfigError, NotFoundError or
    CheckpointError.
    """
    model = ExportedModel(folder, trusted)
    mode = "on" if model.branch == "on" else "off"  # a folded branch is part of the graphs
    return Tracker(model, mode, model.memory, model.margin, device="cpu")


class ExportedModel:
    """The graphs of a folder, called as a HIPTrack is. They take one target; of a batch each row is run by itself.

    "Normalised" images are raw pixels here: the graphs normalise them. Raises NotFoundError, CheckpointError, or
    ConfigError for settings of a memory that no step holds and for files that can run code, unless `trusted`.
    """

    def __init__(self, folder, trusted=False):
        folder = Path(folder)
        path = folder / SETTINGS
        try:
            settings = read_export_settings(path)
            form, graphs = FORMATS[settings["format"]], settings["graphs"]
            self.capacities = sorted(int(name.split("-")[1]) for name in graphs if name.startswith("step-"))
            self.template_size, self.template_factor = settings["template_size"], settings["template_factor"]
            self.search_size, self.search_factor = settings["search_size"], settings["search_factor"]
            self.grid_side, self.margin = settings["grid_side"], settings["margin"]
            policy = read_settings(
                settings["memory"], inspect.signature(MemoryPolicy, eval_str=True).parameters, str(path)
            )
            self.memory, self.branch = MemoryPolicy(**policy), settings["branch"]
            self.challenge = (
                None
                if self.branch != "on"
                else SimpleNamespace(activation=settings["activation"], classes=settings["challenges"])
            )
            largest = self.capacities[-1]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: {error!r} where the settings of an export were expected.") from error
        if self.memory.capacity > largest:
            raise ConfigError(
                f"{path}: a memory of {self.memory.capacity} frames; the largest step graph holds {largest}."
            )
        if form.runs_code and not trusted:
            raise ConfigError(
                f"{folder} holds {form.suffix} files, which can run code while they are read. Where you trust whoever made them, "
                "say so: --trust-export, or exported_tracker(folder, trusted=True). An export as ONNX runs nothing."
            )
        if form.runs_code:
            logger.warning(
                "%s: its %s files are read, which can run code; they were said to be trusted", folder, form.suffix
            )
        files = {name: folder / f"{name}{form.suffix}" for name in graphs}
        self._graphs = {name: GraphFile(file, form, graphs[name]) for name, file in files.items()}
        self.backbone = ExportedBackbone(self._graphs)

    def to(self, device):
        """Itself, on the CPU. Raises ConfigError for another device."""
        if torch.device(device).type != "cpu":
            raise ConfigError(f"An exported tracker runs on the CPU here, not on {device}: device='cpu' was expected.")
        return self

    def eval(self):
        return self

    def normalise(self, images):
        """[B, 3, H, W] uint8, as it is."""
        return images

    def template_memory(self, template, features, template_box_xywh):
        """As HIPTrack's, on raw pixels."""
        enlarged = [self._graphs["template"](template=image)["template_image"] for image in template.split(1)]
        everywhere = torch.ones_like(features.kept)
        return self._remember(torch.cat(enlarged), features.template, xywh_to_cxcywh(template_box_xywh), everywhere)

    def frame_memory(self, search, features, box_cxcywh):
        """As HIPTrack's, on raw pixels."""
        return self._remember(search.float(), features.search, box_cxcywh, features.kept)

    def _remember(self, image, grid, box_cxcywh, kept):
        found = self._graphs["remember"].rows(image=image, grid=grid, box_cxcywh=box_cxcywh, kept=kept)
        return found["key"], found["value"]

    def predict(self, features, memories, use_challenge=True):
        """As HIPTrack's, by the smallest step that holds the memory; its branch is on or off as it was exported.

        memories: a (keys, values) for each row. Raises ConfigError for a memory larger than any step.
        """
        if use_challenge != (self.challenge is not None):
            raise ConfigError(
                f'Exported with --branch {self.branch}: Tracker.branch = "{"on" if self.challenge else "off"}" was expected.'
            )
        places = features.search.shape[1]
        found = []
        for row, (keys, values) in enumerate(memories):
            frames = keys.shape[1] // places
            capacity = next((capacity for capacity in self.capacities if capacity >= frames), None)
            if capacity is None:
                raise ConfigError(
                    f"A memory of {frames} frames, but the largest step of the export holds {self.capacities[-1]}: "
                    f"MemoryPolicy.capacity = {self.capacities[-1]} was expected, or an export with --memory {frames}."
                )
            unused = (0, 0, 0, (capacity - frames) * places)
            padded = {"keys": torch.nn.functional.pad(keys, unused), "values": torch.nn.functional.pad(values, unused)}
            one = features.rows(slice(row, row + 1))
            given = {"search_grid": one.search, "kept": one.kept, "class_token": one.class_token}
            found.append(self._graphs[f"step-{capacity}"](frames=torch.tensor([frames]), **padded, **given))
        found = join(found)
        challenge = ChallengeOutput(None, found["challenge"], None, None) if use_challenge else None
        maps = HeadMaps(found["score"].logit(), found["offset"], found["size"])
        return Prediction(maps, found["box_cxcywh"], challenge)


class ExportedBackbone:
    """The graphs `template` and `features`, called as a Backbone is."""

    def __init__(self, graphs):
        self._graphs = graphs

    def embed_template(self, template):
        """[B, 3, Ht, Ht] uint8 -> tokens [B, T*T, C]."""
        return self._graphs["template"].rows(template=template)["template_tokens"]

    def __call__(self, template_tokens, search, template_box_xywh):
        """As Backbone's, but `template` of the features is the grid at the search grid's size, [B, N, C]."""
        given = {"template_tokens": template_tokens, "search": search, "template_box_xywh": template_box_xywh}
        found = self._graphs["features"].rows(**given)
        return Features(found["template_grid"], found["search_grid"], found["kept"], found.get("class_token"), ())


class GraphFile:
    """A file that is run by the names of its inputs; it ignores others. Raises NotFoundError or CheckpointError."""

    def __init__(self, path, form, settings):
        """form: one of FORMATS; settings: the graph's own, with which the file must agree."""
        if not path.is_file():
            raise NotFoundError(f"not found: {path} (a graph of the export)", str(path))
        try:
            self._run = form.load(path)
        except HiptrackError:
            raise
        except Exception as error:  # a damaged file makes the runtimes raise anything
            reason = excerpt(" ".join(str(error).split()), 300)
            raise CheckpointError(f"{path} cannot be loaded: {reason}") from error
        for key, own in (("inputs", self._run.inputs), ("outputs", self._run.outputs)):
            told = [(tensor["type"], tensor["shape"]) for tensor in settings[key]]
            if own != told:
                raise CheckpointError(
                    f"{path}: its {key} are {excerpt(str(own), 500)}, but {SETTINGS} says {excerpt(str(told), 500)}."
                )
        self.inputs, self.outputs = ([tensor["name"] for tensor in settings[key]] for key in ("inputs", "outputs"))

    def __call__(self, **tensors):
        """{output: tensor} of one row."""
        return dict(zip(self.outputs, self._run(*[tensors[name].contiguous() for name in self.inputs])))

    def rows(self, **tensors):
        """{output: tensor} of B rows, one after the other."""
        count = len(tensors[self.inputs[0]])
        return join([self(**{name: tensors[name][row : row + 1] for name in self.inputs}) for row in range(count)])


def join(rows):
    """B dictionaries of tensors of one row -> one of B rows."""
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
