"""What a result was made of: the images of its sequence, and the code that tracked it.

A result is taken up again only where both are as they were.
"""

import hashlib
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import hiptrack
from hiptrack.data.reading import MAX_IMAGE_BYTES
from hiptrack.errors import DataError
from hiptrack.files import read_bytes

# The files of the package that decide where a tracker sees a target in given images.
TRACKING = (
    "boxes.py",
    "crops.py",
    "data/reading.py",
    "evaluation/run_sequences.py",
    "models/*.py",
    "tracking/*.py",
)


def images_identity(frames: Sequence[str]) -> str:
    """A digest of a sequence's image files, which are given in order; where they lie is no part.

    Of each its name, its bytes and the time of its last change; of the first, the middle and the last their content too.
    So images that were copied without their times count as others. Raises DataError for an image that is not there.
    """
    read = {0, len(frames) // 2, len(frames) - 1}
    digest = hashlib.sha256()
    for number, path in enumerate(frames):
        try:
            status = os.stat(path)
            content = hashlib.sha256(read_bytes(path, MAX_IMAGE_BYTES)).hexdigest() if number in read else ""
        except OSError as error:
            raise DataError(
                f"{path}: the image cannot be read ({error.strerror or error}). Restore the file."
            ) from None
        told = f"{os.path.basename(path)}\0{status.st_size}\0{status.st_mtime_ns}\0{content}\0"
        digest.update(told.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@cache
def code_identity() -> str:
    """The version of hiptrack, and a digest of the files of the package that decide a track."""
    folder, digest = Path(hiptrack.__file__).parent, hashlib.sha256()
    for path in sorted(path for pattern in TRACKING for path in folder.glob(pattern)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return f"{hiptrack.__version__} {digest.hexdigest()}"
