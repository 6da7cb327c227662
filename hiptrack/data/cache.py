"""The annotations of a data set in one memory-mapped file, so that a start does not parse thousands of small files.

The file is of safetensors' format: nothing in it can run. It holds a checksum, and the identity (sources.py) of every
file and folder that was read; if one of them differs, or the file is damaged, the data set is read and the file written
anew. What was changed just before it was read is not kept: by its time a change just after could not be told. All
processes share the file's pages.
"""

import hashlib
import logging
import os
import time
import zlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save

from hiptrack import taxonomy as taxonomies
from hiptrack.data.labels import FrameLabels, unlabelled
from hiptrack.data.listing import FramePaths
from hiptrack.data.sources import is_same, noting_sources
from hiptrack.files import check_file, write_atomically
from hiptrack.taxonomy import Taxonomy

VARIABLE = "HIPTRACK_CACHE"
FEWEST_SOURCES = 200  # fewer are read in no time
SETTLED = 2.0  # seconds after which a change shows in the time of a file on any file system (FAT counts in twos)
MAX_BYTES = 2**36
PER_FRAME = ("frames", "visible", "cover", "flags", "annotated")

logger = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """Where the files lie: HIPTRACK_CACHE, else `hiptrack` in XDG_CACHE_HOME or ~/.cache.

    None where the variable is empty, or where there is no home.
    """
    named = os.environ.get(VARIABLE)
    if named is None:
        named = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "hiptrack")
    folder = Path(os.path.expanduser(named))
    return folder.absolute() if named and folder.parts[0] != "~" else None


def read_cached(name: str, key: str, make, read, taxonomy: Taxonomy) -> list:
    """The sequences that `read()` returns, or those it returned before where nothing that it read has changed.

    name: of the data set, for logs. key: what `read` depends on besides its sources. make: Sequence;
    taxonomy: of its labels.
    """
    folder = cache_folder()
    if folder is None:
        return read()
    path = folder / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.safetensors"
    if os.path.lexists(path):
        try:
            arrays = _open(path)
            changed = _changed(arrays)
            if changed is None:
                logger.info("%s: annotations from %s", name, path)
                return _unpack(arrays, make, taxonomy)
            logger.info("%s: %s has changed, the annotations are read anew", name, changed)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
            logger.warning("%s: %s is damaged (%s), the annotations are read anew", name, path, error)
    settled = time.time() - SETTLED
    with noting_sources() as sources:
        sequences = read()
    if len(sources) < FEWEST_SOURCES or max(max(times) for _, _, *times, _ in sources.values()) > settled * 1e9:
        return sequences
    try:
        arrays = _pack(sequences, sources, taxonomy)
        write_atomically(path, save({**arrays, "checksum": np.array(_checksum(arrays))}))
    except OSError as error:
        logger.warning(
            "%s: the annotations cannot be kept in %s (%s) and are read at every start; set %s to a folder that can be "
            "written, or to nothing.",
            name, folder, error.strerror or error, VARIABLE,
        )  # fmt: skip
    return sequences


def _code():
    """A digest of the code that reads annotations and its lists: other ones may read the same files otherwise."""
    folder = Path(__file__).parent
    files = sorted([*folder.glob("*.py"), *folder.glob("lists/*.txt"), Path(taxonomies.__file__)])
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).digest()


def _checksum(arrays):
    """A number for the names, kinds, shapes and contents of some arrays."""
    checksum = 0
    for name in sorted(arrays):
        own = arrays[name]
        checksum = zlib.crc32(f"{name} {own.dtype} {own.shape}".encode(), checksum)
        checksum = zlib.crc32(np.ascontiguousarray(own), checksum)
    return checksum


def _open(path):
    """{name: array} of a file, mapped into memory; a change stays in this process. ValueError where damaged."""
    from safetensors.torch import load_file  # that for NumPy copies the file; PyTorch is slow to load

    check_file(path, MAX_BYTES)
    arrays = {name: tensor.numpy() for name, tensor in load_file(path).items()}
    if arrays.pop("checksum").tolist() != _checksum(arrays):
        raise ValueError("its checksum is wrong")
    return arrays


def _changed(arrays):
    """What is no longer as it was when the annotations were read, or None."""
    if arrays["code"].tobytes() != _code():
        return "the code that reads them"
    for path, known in zip(_texts(arrays["sources"]), arrays["identities"].tolist(), strict=True):
        if not is_same(path, tuple(known)):
            return path
    return None


def _pack(sequences, sources, taxonomy):
    """{name: array} of everything. Frames, and boxes, of all sequences stand one after another."""
    paths = [s.frames if isinstance(s.frames, FramePaths) else FramePaths("", s.frames) for s in sequences]
    files = {}
    frames = [files.setdefault(name, len(files)) for own in paths for name in own.names]
    labels = [s.labels or unlabelled(len(s), taxonomy) for s in sequences]
    return {
        "code": np.frombuffer(_code(), np.uint8),
        "sources": _packed(sources),
        "identities": np.array(list(sources.values()), np.int64),
        "names": _packed(s.name for s in sequences),
        "folders": _packed(own.folder for own in paths),
        "files": _packed(files),
        "lengths": np.array([len(s) for s in sequences], np.int64),
        "boxed": np.array([len(s.boxes_xywh) for s in sequences], np.int64),
        "is_labelled": np.array([s.labels is not None for s in sequences]),
        "is_still": np.array([s.is_still for s in sequences]),
        "image_sizes": np.array([s.image_size or (0, 0) for s in sequences], np.int64),
        "frames": np.array(frames, np.int64),
        "visible": np.concatenate([s.visible for s in sequences]),
        "cover": np.concatenate([s.cover for s in sequences]),
        "flags": np.concatenate([own.flags for own in labels]),
        "annotated": np.concatenate([own.annotated for own in labels]),
        "boxes": np.concatenate([s.boxes_xywh for s in sequences]),
    }


def _unpack(arrays, make, taxonomy):
    """The sequences of _pack; their arrays are parts of those in the file."""
    files = _texts(arrays["files"])
    each = [_texts(arrays["names"]), _texts(arrays["folders"]), arrays["is_labelled"], arrays["is_still"].tolist()]
    each.append([tuple(size) if any(size) else None for size in arrays["image_sizes"].tolist()])
    each.append(np.split(arrays["boxes"], arrays["boxed"].cumsum()[:-1]))
    each += [np.split(arrays[name], arrays["lengths"].cumsum()[:-1]) for name in PER_FRAME]
    sequences = []
    for name, folder, is_labelled, is_still, image_size, boxes, frames, visible, cover, flags, annotated in zip(
        *each, strict=True
    ):
        paths = FramePaths(folder, [files[place] for place in frames.tolist()])
        labels = FrameLabels(flags, annotated, taxonomy) if is_labelled else None
        sequences.append(make(name, paths, boxes, visible, cover, labels, is_still, image_size))
    return sequences


def _packed(texts):
    """Names and paths as one array of bytes. None of them holds a zero byte."""
    return np.frombuffer("\0".join(texts).encode("utf-8", "surrogateescape"), np.uint8)


def _texts(packed):
    return packed.tobytes().decode("utf-8", "surrogateescape").split("\0")
