"""Detection sets for training: objects of COCO's pictures, tracks of ImageNet-VID."""

import json
import os
from dataclasses import dataclass, field
from xml.etree import ElementTree

import gin
import numpy as np

from hiptrack.data.labels import MAX_COORDINATE
from hiptrack.data.reading import FramePaths, entries, image_names, natural_key, nearest_name, note_source, subfolders
from hiptrack.data.sequence import FULL_COVER, GOT10K, Sequence, SequenceDataset
from hiptrack.errors import DataError
from hiptrack.files import read_text

MAX_JSON_BYTES = 2**30

# The same for every object.
_VISIBLE = np.broadcast_to(np.True_, 1)
_COVER = np.broadcast_to(np.int64(FULL_COVER), 1)


@gin.register
@dataclass(eq=False)
class COCODataset(SequenceDataset):
    """COCO (Lin et al., ECCV 2014) for training: an object is a sequence of one frame, drawn as often as a clip needs.

    `root/annotations/instances_<split>.json` and the pictures in `root/<split>/` or `root/images/<split>/`. A sequence
    is called `<picture>-<annotation id>`. Left out are crowds (iscrowd) and objects with a side below `smallest`.

    Args:
        split: for example 'train2017'.
        smallest: in pixels; by default the least side of the boxes that the tracker gives.
    """

    split: str = "train2017"
    annotations: None = field(default=None, init=False)
    smallest: float = 10.0

    LAYOUT = "annotations/instances_<split>.json and a folder of the split's pictures"
    SPLITS = None
    PLACE = ("root", "split")
    PROTOCOL = GOT10K

    def _folders(self):
        plain, nested = os.path.join(self.root, self.split), os.path.join(self.root, "images", self.split)
        pictures = nested if os.path.isdir(nested) and not os.path.isdir(plain) else plain
        return [pictures, os.path.join(self.root, "annotations")]

    def _names(self):
        path = os.path.join(self.root, "annotations", f"instances_{self.split}.json")
        pictures, objects = _read_instances(path)
        folder = os.path.join(self._folders()[0], "")
        self._objects = {}
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


MAX_XML_BYTES = 2**20


@gin.register
@dataclass(eq=False)
class ImageNetVIDDataset(SequenceDataset):
    """ImageNet-VID (Russakovsky et al., IJCV 2015) for training: a sequence for each track of each video.

    `root/Data/VID/train/<group>/<video>/000000.JPEG` and `root/Annotations/VID/train/<group>/<video>/000000.xml`; in
    val the videos lie beside each other without groups. A sequence is called `<video>-<trackid>` and lasts from the
    first to the last frame with that track; between them, frames without it, and frames in which it is marked
    `occluded`, have no visible target (the latter as in ltr/dataset/imagenetvid.py of github.com/visionml/pytracking).
    Width is xmax - xmin. Reading a million small files takes minutes.

    Args:
        split: 'train' or 'val'.
    """

    split: str = "train"
    annotations: None = field(default=None, init=False)

    LAYOUT = "Data/VID/<split> and Annotations/VID/<split> with the same folders of videos"
    SPLITS = ("train", "val")
    PROTOCOL = GOT10K

    def _folders(self):
        return [os.path.join(self.root, part, "VID", self.split) for part in ("Annotations", "Data")]

    def _names(self):
        annotations, data = self._folders()
        self._made = {}
        for group in subfolders(annotations) if self.split == "train" else [""]:
            for video in subfolders(os.path.join(annotations, group)):
                self._read_video(os.path.join(annotations, group, video), os.path.join(data, group, video), video)
        return list(self._made)

    def _read_sequence(self, name):
        return self._made.pop(name)

    def _read_video(self, annotations, folder, video):
        """Makes the sequences of a video with its XML files in one folder and its images in the other."""
        stems = [entry.name[:-4] for entry in entries(annotations) if entry.name.endswith(".xml")]
        stems.sort(key=natural_key)
        images = {os.path.splitext(image)[0]: image for image in image_names(folder)}
        tracks = {}
        for place, stem in enumerate(stems):
            if stem not in images:
                raise DataError(
                    f"{os.path.join(annotations, stem)}.xml: there is no image {stem} in {folder}. Restore it, or remove the "
                    "annotation."
                )
            for track, corners, occluded in _read_objects(os.path.join(annotations, f"{stem}.xml")):
                tracks.setdefault(track, {}).setdefault(place, (corners, occluded))
        for track, seen in tracks.items():
            first, last = min(seen), max(seen)
            boxes, visible = np.zeros((last - first + 1, 4)), np.zeros(last - first + 1, bool)
            for place, ((left, top, right, bottom), occluded) in seen.items():
                boxes[place - first] = left, top, right - left, bottom - top
                visible[place - first] = right > left and bottom > top and not occluded
            frames = FramePaths(folder, [images[stem] for stem in stems[first : last + 1]])
            name = f"{video}-{track}"
            self._made[name] = Sequence(name, frames, boxes, visible, np.where(visible, FULL_COVER, 0))


def _read_objects(path):
    """[(track, (xmin, ymin, xmax, ymax), occluded)] of a frame's annotation."""
    note_source(path)
    try:
        text = read_text(path, MAX_XML_BYTES)
        if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities could unpack to any size
            raise ValueError("it declares entities")
        return [_read_object(entry) for entry in ElementTree.fromstring(text).iter("object")]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise DataError(
            f"{path}: cannot be read ({str(error)[:80]}). Expected ImageNet-VID's annotation of a frame: objects with trackid, "
            "bndbox (xmin, ymin, xmax, ymax in pixels) and occluded; restore the file."
        ) from None


def _read_object(entry):
    track = (entry.findtext("trackid") or "").strip()
    if not track.isalnum():
        raise ValueError(f"the trackid is {track!r}")
    corners = []
    for side in ("xmin", "ymin", "xmax", "ymax"):
        value = float(entry.findtext(f"bndbox/{side}") or "nan")
        if not abs(value) <= MAX_COORDINATE:
            raise ValueError(f"{side} of track {track} is {value}")
        corners.append(value)
    return track, corners, (entry.findtext("occluded") or "0").strip() == "1"
