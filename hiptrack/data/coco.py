"""COCO's pictures as sequences of one frame."""

import json
import os

import gin
import numpy as np

from hiptrack.bounded import read_text
from hiptrack.data.dataset import FULL_COVER, Sequence, SequenceDataset
from hiptrack.data.labels import MAX_COORDINATE
from hiptrack.data.protocol import GOT10K
from hiptrack.data.reading import nearest_name
from hiptrack.data.sources import note_source
from hiptrack.errors import DataError

MAX_JSON_BYTES = 2**30

# the same for every object
_VISIBLE = np.broadcast_to(np.True_, 1)
_COVER = np.broadcast_to(np.int64(FULL_COVER), 1)


@gin.register
class COCODataset(SequenceDataset):
    """COCO (Lin et al., ECCV 2014) for training: every object is a sequence of one frame, drawn as often as a clip needs.

    `root/annotations/instances_<split>.json` and the pictures in `root/<split>/` or `root/images/<split>/`. A sequence is
    called `<picture>-<annotation id>`. Left out are crowds (iscrowd) and objects with a side below `smallest`.

    Args:
        root: the folder of annotations and pictures.
        split: for example 'train2017'.
        include, exclude: names of the sequences to take, to leave out.
        name: what logs call the set.
        smallest: in pixels; by default the least side of the boxes that the tracker gives.
    """

    LAYOUT = "annotations/instances_<split>.json and a folder of the split's pictures"
    SPLITS = None
    PLACE = ("root", "split")
    PROTOCOL = GOT10K
    IS_CACHED = True

    def __init__(
        self,
        root: str,
        split: str = "train2017",
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        name: str | None = None,
        smallest: float = 10.0,
    ):
        super().__init__(root, split, None, include, exclude, name)
        self.smallest = smallest
        self._objects = {}

    def _folders(self):
        plain, nested = os.path.join(self.root, self.split), os.path.join(self.root, "images", self.split)
        pictures = nested if os.path.isdir(nested) and not os.path.isdir(plain) else plain
        return [pictures, os.path.join(self.root, "annotations")]

    def _names(self):
        path = os.path.join(self.root, "annotations", f"instances_{self.split}.json")
        pictures, objects = _read_instances(path)
        folder = os.path.join(self._folders()[0], "")
        for place, entry in enumerate(objects):
            if not isinstance(entry, dict) or entry.get("iscrowd"):
                continue
            box, file = _box(entry, place, path), pictures.get(entry.get("image_id"))
            if file is None:
                raise DataError(
                    f"{path}: annotations[{place}] is of the picture {entry.get('image_id')!r}, which is none of `images`. "
                    "Restore the file."
                )
            if box[2:].min() >= max(self.smallest, 1e-6):
                self._objects[f"{os.path.splitext(file)[0]}-{entry.get('id')}"] = (folder + file, box)
        return list(self._objects)

    def _read_sequence(self, name):
        file, box = self._objects.pop(name)
        return Sequence(name, (file,), box[None], _VISIBLE, _COVER, is_still=True)


def _read_instances(path):
    """({picture id: file name}, annotations) of an instances file."""
    note_source(path)
    try:
        content = json.loads(read_text(path, MAX_JSON_BYTES), object_hook=_without_outline)
        pictures = {picture["id"]: picture["file_name"] for picture in content["images"]}
        objects = content["annotations"]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}). Expected COCO's instances; restore the file.") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: no COCO instances ({type(error).__name__}: {str(error)[:80]}). Expected an object with `images` (id, "
            "file_name) and `annotations` (id, image_id, bbox, iscrowd); restore the file."
        ) from None
    names = [name for name in pictures.values() if not isinstance(name, str) or name != os.path.basename(name)]
    if names or not isinstance(objects, list):
        raise DataError(
            f"{path}: the picture {str(names[:1])[:80]} is no plain file name, or `annotations` is no list. Restore the file."
        )
    return pictures, objects


def _without_outline(entry):
    """An object of the file without its outline, which is most of it."""
    entry.pop("segmentation", None)
    return entry


def _box(entry, place, path):
    """The bbox of an annotation [4] float64 xywh."""
    try:
        box = np.array(entry["bbox"], np.float64)
    except (KeyError, ValueError, TypeError):
        box = np.empty(0)
    if box.shape != (4,) or not (np.abs(box) <= MAX_COORDINATE).all():
        close = nearest_name("bbox", [str(key) for key in entry]) if "bbox" not in entry else ""
        raise DataError(
            f"{path}: annotations[{place}].bbox is {str(entry.get('bbox'))[:80]}; expected four finite numbers x, y, w, h in "
            f"pixels. {close}Restore the file."
        )
    return box
