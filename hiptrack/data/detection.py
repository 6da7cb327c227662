"""Detection sets for training: objects of COCO's pictures, tracks of ImageNet-VID."""

import os
from dataclasses import dataclass, field
from typing import Annotated
from xml.etree import ElementTree

import gin
import msgspec
import numpy as np

from hiptrack.data.annotation_form import MAX_COORDINATE, Box
from hiptrack.data.listing import FramePaths, files, image_names, in_order, subfolders
from hiptrack.data.reading import is_plain, require_pixels
from hiptrack.data.sequence import FULL_COVER, GOT10K, Sequence, SequenceDataset
from hiptrack.data.sources import note_source
from hiptrack.errors import DataError
from hiptrack.files import read_text
from hiptrack.ranges import NonNegative

MAX_JSON_BYTES = 2**30

_BELOW = r"(?s)^(?![/\\]|(.*[/\\])?\.\.([/\\]|$))[^\0]+$"  # a path that stays below its folder
# The same for every object.
_VISIBLE = np.broadcast_to(np.True_, 1)
_COVER = np.broadcast_to(np.int64(FULL_COVER), 1)


@gin.register
@dataclass(eq=False)
class COCODataset(SequenceDataset):
    """COCO (Lin et al., ECCV 2014) for training: an object is a sequence of one frame, drawn as often as a clip needs.

    `root/annotations/instances_<split>.json` and the pictures in `root/<split>/` or `root/images/<split>/`, or in folders
    there. A sequence is called `<picture>-<annotation id>`; where that comes again, with `.2`, `.3` and so on behind it in
    the order of the file; `<picture>-object` where there is no id. Left out are crowds (iscrowd) and objects with a side
    below `smallest`.

    A picture that has an Exif orientation is turned, or not, so that it has the width and height that the file states.
    Where it has them either way, or the file states none, it is turned.

    Args:
        split: for example 'train2017'.
        smallest: in pixels; by default the least side of the boxes that the tracker gives.
    """

    split: str = "train2017"
    annotations: None = field(default=None, init=False)
    HAS_ANNOTATIONS = False
    smallest: NonNegative = 10.0

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
        instances = _read_instances(path)
        pictures, folder = {}, os.path.join(self._folders()[0], "")
        for place, picture in enumerate(instances.images):
            if picture.id in pictures:
                raise DataError(
                    f"{path}: images[{place}] has the id {picture.id!r}, as an image before it has. Expected an id of its own for "
                    "each, by which annotations name it; restore the file."
                )
            stem = os.path.splitext(os.path.basename(picture.file_name))[0]
            pictures[picture.id] = stem, folder + picture.file_name, picture.size
        if instances.annotations and all(max(entry.bbox) <= 1 for entry in instances.annotations):
            require_pixels(path, np.array([entry.bbox for entry in instances.annotations]))
        self._objects, taken = {}, {}
        for place, entry in enumerate(instances.annotations):
            if entry.iscrowd:
                continue
            if entry.image_id not in pictures:
                raise DataError(
                    f"{path}: annotations[{place}] is of the picture {entry.image_id!r}, which is none of `images`. "
                    "Restore the file."
                )
            stem, file, size = pictures[entry.image_id]
            name = _free_name(f"{stem}-{entry.called}", taken)
            if min(entry.bbox[2:]) >= max(self.smallest, 1e-6):
                self._objects[name] = file, size, entry.bbox
        return list(self._objects)

    def _read_sequence(self, name):
        file, size, box = self._objects.pop(name)
        return Sequence(name, (file,), np.array([box]), _VISIBLE, _COVER, is_still=True, image_size=size)


def _free_name(name, taken):
    """The name, or where it is taken the first free one of `name.2`, `name.3` and so on; `taken`: {name: last number}."""
    free, number = name, taken.get(name, 0)
    while free in taken:
        number += 1
        free = f"{name}.{number}"
    taken[name] = max(number, 1)
    taken.setdefault(free, 1)
    return free


class _Picture(msgspec.Struct):
    id: int | float | str
    file_name: Annotated[str, msgspec.Meta(pattern=_BELOW)]
    width: int | float | None = None
    height: int | float | None = None

    @property
    def size(self):
        """(width, height) in pixels, None where the file does not state both; 0 stands for unknown."""
        return (int(self.width), int(self.height)) if self.width and self.height else None


class _Object(msgspec.Struct):
    image_id: int | float | str
    bbox: Box
    id: int | float | str | None = None
    iscrowd: int | bool = False

    @property
    def called(self):
        """What stands for the id in the object's name; tools that use floats write 7.0."""
        if self.id is None:
            return "object"
        return int(self.id) if isinstance(self.id, float) and self.id.is_integer() else self.id


class _Instances(msgspec.Struct):
    """The part of COCO's form that is read."""

    images: list[_Picture]
    annotations: list[_Object]


def _read_instances(path):
    note_source(path)
    try:
        return msgspec.json.decode(read_text(path, MAX_JSON_BYTES), type=_Instances)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}). Expected COCO's instances; restore the file.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(
            f"{path}: no COCO instances ({error}). Expected an object with `images` (id, file_name below the folder of pictures, width, height) and "
            "`annotations` (id, image_id, bbox x, y, w, h in pixels, iscrowd); restore the file."
        ) from None


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
    HAS_ANNOTATIONS = False

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
        stems = [name[:-4] for name in in_order(annotations, [n for n in files(annotations) if n.endswith(".xml")])]
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
            require_pixels(os.path.join(annotations, f"{stems[first]}.xml"), boxes)
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
        text = entry.findtext(f"bndbox/{side}") or "nan"
        value = float(text)
        if not abs(value) <= MAX_COORDINATE or not is_plain(text):
            raise ValueError(f"{side} of track {track} is {text[:80]}")
        corners.append(value)
    return track, corners, (entry.findtext("occluded") or "0").strip() == "1"


DETECTION = {"coco": COCODataset, "vid": ImageNetVIDDataset}
