"""ImageNet-VID's tracks as sequences."""

import os
from xml.etree import ElementTree

import gin
import numpy as np

from hiptrack.bounded import read_text
from hiptrack.data.dataset import FULL_COVER, Sequence, SequenceDataset
from hiptrack.data.labels import MAX_COORDINATE
from hiptrack.data.protocol import GOT10K
from hiptrack.data.reading import FramePaths, entries, image_names, natural_key, subfolders
from hiptrack.data.sources import note_source
from hiptrack.errors import DataError

MAX_XML_BYTES = 2**20


@gin.register
class ImageNetVIDDataset(SequenceDataset):
    """ImageNet-VID (Russakovsky et al., IJCV 2015) for training: a sequence for each track of each video.

    `root/Data/VID/train/<group>/<video>/000000.JPEG` and `root/Annotations/VID/train/<group>/<video>/000000.xml`; in val the
    videos lie beside each other without groups. A sequence is called `<video>-<trackid>` and lasts from the first to the last
    frame with that track; between them, frames without it, and frames in which it is marked `occluded`, have no visible target
    (the latter as in ltr/dataset/imagenetvid.py of github.com/visionml/pytracking). Width is xmax - xmin. Reading a million
    small files takes minutes.

    Args:
        root: the folder of Data and Annotations.
        split: 'train' or 'val'.
        include, exclude: names of the sequences to take, to leave out.
        name: what logs call the set.
    """

    LAYOUT = "Data/VID/<split> and Annotations/VID/<split> with the same folders of videos"
    SPLITS = ("train", "val")
    PROTOCOL = GOT10K
    IS_CACHED = True

    def __init__(
        self,
        root: str,
        split: str = "train",
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(root, split, None, include, exclude, name)
        self._made = {}

    def _folders(self):
        return [os.path.join(self.root, part, "VID", self.split) for part in ("Annotations", "Data")]

    def _names(self):
        annotations, data = self._folders()
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
