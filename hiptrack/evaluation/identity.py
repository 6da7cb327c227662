"""What a result was made of: the images of its sequence, and the code that tracked it.

A result is taken up again only where both are as they were.
"""

import hashlib
import json
import os
from functools import cache
from pathlib import Path

import numpy as np

import hiptrack
from hiptrack.data.image_heads import MAX_IMAGE_BYTES
from hiptrack.data.sequence import Sequence
from hiptrack.errors import DataError
from hiptrack.files import read_bytes

# The files of the package that decide where a tracker sees a target in given images.
TRACKING = (
    "boxes.py",
    "crops.py",
    "data/depth.py",
    "data/image_heads.py",
    "data/reading.py",
    "evaluation/run_sequences.py",
    "models/*.py",
    "tracking/*.py",
)


def sequence_identity(sequence: Sequence) -> str:
    """A digest of what decides the result of a Sequence: its name, the given box, the names and the content of its frames.

    Where they lie is no part, nor are their times. Raises DataError for an image that is not there.
    """
    given = np.asarray(sequence.boxes_xywh[0], np.float64).tolist()
    digest = hashlib.blake2b(json.dumps([sequence.name, given, len(sequence)]).encode(), digest_size=32)
    for path in sequence.frames:
        try:
            content = read_bytes(path, MAX_IMAGE_BYTES)
        except OSError as error:
            raise DataError(
                f"{path}: the image cannot be read ({error.strerror or error}). Restore the file."
            ) from None
        digest.update(os.fsencode(f"{os.path.basename(path)}\0{len(content)}\0") + content)
    return digest.hexdigest()


@cache
def code_identity() -> str:
    """The version of hiptrack, and a digest of the files of the package that decide a track."""
    folder, digest = Path(hiptrack.__file__).parent, hashlib.sha256()
    for path in sorted(path for pattern in TRACKING for path in folder.glob(pattern)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return f"{hiptrack.__version__} {digest.hexdigest()}"
