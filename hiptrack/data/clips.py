"""Training clips: data sets mixed by ratio, a clip for every (epoch, index)."""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import cv2
import gin
import numpy as np
import torch
from annotated_types import MinLen

from hiptrack import crops
from hiptrack.data import benchmarks, detection  # noqa: F401  both register their data sets
from hiptrack.data.crop_reading import read_crops
from hiptrack.data.labels import unlabelled
from hiptrack.data.loader import reading
from hiptrack.data.sampling import Augmentation, CausalSampler, HardExamples
from hiptrack.errors import ConfigError, DataError, HiptrackError
from hiptrack.ranges import NonNegative
from hiptrack.taxonomy import TEN

REDRAWS = 50  # a data set of which so many draws in a row are unusable is at fault


@dataclass(frozen=True)
class Geometry:
    """Sides in pixels of the crops a model reads, and their factors."""

    template_size: int
    search_size: int
    template_factor: float
    search_factor: float

    @classmethod
    def of(cls, model):
        """The geometry of a HIPTrack model."""
        return cls(model.template_size, model.search_size, model.template_factor, model.search_factor)


@gin.register
class ClipData:
    """Training clips drawn from one or several data sets.

    Args:
        datasets: the data sets.
        ratios: how often each is drawn from (default: equally).
        sampler: which frames make a clip.
        augmentation: how they are changed.
        priority: how a sequence's difficulty decides how often it is drawn; None draws those of a data set alike.
        reduced_decoding: decode a JPEG at 1/2, 1/4 or 1/8 where its crops shrink it that much, which is faster. The crops
            lie where they lay, and are smoother than the published code's, which skips pixels there; False gives its pixels.
    """

    def __init__(
        self,
        datasets: Annotated[list[object], MinLen(1)],
        ratios: list[NonNegative] | None = None,
        sampler: Callable | None = None,
        augmentation: Callable | None = None,
        priority: HardExamples | None = None,
        reduced_decoding: bool = True,
    ):
        ratios = [1.0] * len(datasets) if ratios is None else ratios
        if len(ratios) != len(datasets) or sum(ratios) <= 0:
            raise ConfigError(
                f"ClipData: {len(datasets)} data sets with ratios {ratios}: one ratio for each data set was expected, with "
                "one above 0."
            )
        self.datasets, self.taxonomy = datasets, TEN
        self.ratios = np.array(ratios, dtype=float) / sum(ratios)
        self.sampler = sampler or CausalSampler()
        self.augmentation = augmentation or Augmentation()
        self.priority = priority
        self.reduced_decoding = reduced_decoding

    def label_by(self, taxonomy, annotations=None):
        """Have the labels of all data sets read by a Taxonomy, from `annotations` where a set names no folder itself."""
        self.taxonomy = taxonomy
        for dataset in self.datasets:
            dataset.label_by(taxonomy, annotations)

    @property
    def drawn(self):
        """The data sets that clips are drawn from: those of a ratio above 0."""
        return [dataset for dataset, ratio in zip(self.datasets, self.ratios) if ratio > 0]

    @property
    def labelled_frames(self):
        """Number of frames with a challenge label that can be drawn."""
        endless = sum(dataset.labelled_frames for dataset in self.drawn if dataset.is_endless)
        read = [s for dataset in self.drawn if not dataset.is_endless for s in usable_sequences(dataset)]
        return endless + sum(int((s.labels.annotated & s.visible).sum()) for s in read if s.labels is not None)

    def class_shares(self):
        """[C]: the share of the drawn frames that has each class as its label, on average; unlabelled frames have none.

        As clips are drawn: data sets by their ratios, the sequences of one alike, visible frames of a sequence alike.
        Raises ConfigError for a data set that is drawn as it is asked for.
        """
        for dataset in self.drawn:
            if dataset.is_endless:
                raise ConfigError(
                    f"{dataset.name} draws its frames as they are asked for: their classes cannot be counted. Give the weights "
                    "by name: ChallengeLoss.class_weights = {'occlusion': 2.0}."
                )
        shares = np.zeros(len(self.taxonomy.classes))
        for dataset, ratio in zip(self.datasets, self.ratios):
            usable = usable_sequences(dataset) if ratio else []
            for sequence in usable:
                if sequence.labels is not None:
                    columns = sequence.labels.flags[sequence.labels.annotated & sequence.visible]
                    shares += ratio / len(usable) / sequence.visible.sum() * self.taxonomy.expected_counts(columns)
        return shares


class ClipDataset(torch.utils.data.Dataset):
    """A clip for every (epoch, index), made from (seed, stage, epoch, index) and, with ClipData.priority, the difficulties
    of the sequences at the start of the epoch; from nothing else.

    A sample is a dict: template [3, Ht, Ht] uint8, template_box [4], search [F, 3, Hs, Hs] uint8, boxes_xywh [F, 4]
    (boxes xywh normalised by the crop side), labels [F] class indices (-1: unlabelled), flags [F, C] float (all classes
    of a frame: FrameLabels.multi_hot), gaps [F] (frames from the search frame before; 0 for the first), sequence: its
    name after that of its data set, source: text naming sequence and frames, rejected: the draws before it that gave no
    clip, in order, each {"reason": "unreadable image" or "empty crop" or "no visible frame", "sequence": its name,
    "file": the image's path or None, "error": what is wrong with it, or None}. After REDRAWS of those in a row, as for
    any other error of the data, a HiptrackError is returned in the sample's place: raised in a worker it would lose its
    words.
    """

    def __init__(self, data: ClipData, geometry: Geometry, seed: int, stage: int):
        self.data, self.geometry = data, geometry
        self.seed, self.stage = seed, stage
        # read here, in the main process: once, and what is malformed stops the start
        self.sequences = [usable_sequences(dataset) for dataset in data.datasets]
        self._cumulative = None
        if data.priority is not None:
            self._prepare_priority()

    def _prepare_priority(self):
        data = self.data
        endless = [dataset.name for dataset in data.datasets if dataset.is_endless]
        if endless:
            raise ConfigError(
                f"ClipData.priority draws a sequence again that was difficult, and {endless[0]} hardly ever shows a scene twice: leave "
                "one of them out."
            )
        self._names = [[f"{dataset.name}/{s.name}" for s in own] for dataset, own in zip(data.datasets, self.sequences)]
        alike = [name for name, count in Counter(itertools.chain(*self._names)).items() if count > 1]
        if alike:
            raise ConfigError(
                f"ClipData.priority keeps difficulties by name, and {alike[0]} occurs twice: give each data set its own "
                "FolderDataset.name."
            )
        # shared, for the workers to see what changes in the main process
        self._cumulative = [torch.zeros(len(own), dtype=torch.float64).share_memory_() for own in self.sequences]
        self.prioritise({})

    def prioritise(self, difficulties):
        """Draw by {data set/sequence: difficulty} from now on. Only between two epochs, while no worker draws."""
        for cumulative, names in zip(self._cumulative, self._names, strict=True):
            known = np.array([difficulties.get(name, np.nan) for name in names])
            cumulative.copy_(torch.from_numpy(self.data.priority.probabilities(known).cumsum()))

    def __getitem__(self, key):
        epoch, index = key
        rng = np.random.default_rng((self.seed, self.stage, epoch, index))
        try:
            return self._draw(rng)
        except HiptrackError as error:
            return error
        except cv2.error as error:
            return DataError(f"OpenCV failed on clip {index} of epoch {epoch}: {error}")

    def _draw(self, rng):
        rejected = []
        while len(rejected) < REDRAWS:
            number, sequence = self.draw_sequence(rng)
            if not sequence.visible.any():
                rejected.append(_Rejected("no visible frame").of(sequence))
                continue
            template, search = self.data.sampler(sequence.visible, rng)
            try:
                clip = self._clip(sequence, template, search, rng)
                name = f"{self.data.datasets[number].name}/{sequence.name}"
                return {**clip, "sequence": name, "rejected": rejected}
            except _Rejected as draw:
                rejected.append(draw.of(sequence))
        raise DataError(
            f"{REDRAWS} clips drawn one after another could not be used: {_summary(rejected)}. Check the files and "
            "the boxes of these sequences, or lower Augmentation.centre_jitter and scale_jitter."
        )

    def draw_sequence(self, rng):
        """(the number of a data set, one of its sequences)."""
        number = rng.choice(len(self.sequences), p=self.data.ratios)
        sequences = self.sequences[number]
        if self._cumulative is None:
            return number, sequences[rng.integers(len(sequences))]
        cumulative = self._cumulative[number].numpy()
        return number, sequences[cumulative.searchsorted(rng.random() * cumulative[-1], side="right")]

    def draw_crops(self, boxes_xywh, rng):
        """(box, factor, size in pixels) of the crops of a clip with these true boxes: the template's, the search frames'."""
        template, *search = boxes_xywh
        geometry, jitter = self.geometry, self.data.augmentation.jitter
        wanted = [(template, geometry.template_factor, geometry.template_size)]
        return wanted + [(jitter(box, rng), geometry.search_factor, geometry.search_size) for box in search]

    def _clip(self, sequence, template, search, rng):
        """The sample these frames make; _Rejected where they make none."""
        frames = [template, *search]
        true = [sequence.boxes_xywh[frame] for frame in frames]
        wanted = self.draw_crops(true, rng)
        images = self._read(sequence, frames, wanted)
        boxes = [box_in(crop, box) for crop, box in zip(wanted, true, strict=True)]
        images, boxes = self.data.augmentation(images, boxes, rng)
        labels = unlabelled(len(sequence), self.data.taxonomy) if sequence.labels is None else sequence.labels
        tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
        return {
            "template": tensors[0],
            "template_box": torch.from_numpy(boxes[0]),
            "search": torch.stack(tensors[1:]),
            "boxes_xywh": torch.from_numpy(boxes[1:]),
            "labels": torch.tensor([labels.draw(frame, rng) for frame in search]),
            "flags": torch.from_numpy(labels.multi_hot(search)),
            "gaps": torch.from_numpy(np.abs(np.diff(search, prepend=search[0]))),
            "source": f"{sequence.name} frames {[frame + 1 for frame in frames]}",
        }

    def _read(self, sequence, frames, wanted):
        """The wanted crop of each frame; a frame that comes again is decoded once."""
        images = {}
        for frame in dict.fromkeys(frames):
            places = [place for place, other in enumerate(frames) if other == frame]
            found = _read_crops(sequence, frame, [wanted[place] for place in places], self.data.reduced_decoding)
            images.update(zip(places, found))
        return [images[place] for place in range(len(frames))]


def box_in(crop, box_xywh):
    """A box [4] in a crop (box, factor, size): xywh normalised by its side."""
    around, factor, size = crop
    return crops.box_to_crop(box_xywh, around, size / crops.crop_side(around, factor), size)


class _Rejected(Exception):
    """A draw that gives no clip, and why; `file`: the image at fault, if one is, and `error`: how."""

    def __init__(self, reason, file=None, error=None):
        self.reason, self.file, self.error = reason, file, error

    def of(self, sequence):
        """The entry of a sample's list of rejected draws (see ClipDataset)."""
        return {"reason": self.reason, "sequence": sequence.name, "file": self.file, "error": self.error}


def _read_crops(sequence, number, wanted, reduce):
    """The crops of a frame of a Sequence, an image's path or what draws its own; _Rejected where it gives none."""
    frame = sequence.frames[number]
    try:
        if hasattr(frame, "crop"):
            return [frame.crop(*place) for place in wanted]
        with reading(frame):
            return read_crops(frame, wanted, reduce, sequence.frames[0], sequence.image_size)
    except crops.EmptyCrop:
        raise _Rejected("empty crop") from None
    except (DataError, cv2.error) as error:
        raise _Rejected("unreadable image", frame, str(error)) from None


def _summary(rejected):
    """How many draws were rejected for each reason, with the first of them."""
    parts = []
    for reason, count in Counter(draw["reason"] for draw in rejected).items():
        first = next(draw for draw in rejected if draw["reason"] == reason)
        place = ", ".join(filter(None, (first["sequence"], first["error"] or first["file"])))
        parts.append(f"{count} x {reason} (for example in {place})")
    return "; ".join(parts)


def usable_sequences(dataset):
    """The sequences a clip can be drawn from: a box for each frame, and two visible frames at least, or a picture."""
    if dataset.is_endless:
        return dataset.sequences
    boxed = [s for s in dataset.sequences if len(s.boxes_xywh) == len(s.frames)]
    usable = [s for s in boxed if s.visible.sum() >= (1 if s.is_still else 2)]
    if not usable:
        raise DataError(
            f"{dataset.name}: none of its {len(dataset.sequences)} sequences has two visible frames with boxes; training needs "
            "a split with a box for every frame."
        )
    return usable
