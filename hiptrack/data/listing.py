"""What a folder of a data set holds, and in which order: sequences, and the frames of one."""

import collections.abc
import functools
import logging
import os
import re
import sys

from hiptrack.data.sources import note_source
from hiptrack.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
# Folders that file systems, disk stations, archives and tools put beside the data; hidden ones are left out anyway.
SYSTEM_FOLDERS = (
    "@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "RECYCLER", "System Volume Information", "lost+found",
    "__MACOSX", "__pycache__",
)  # fmt: skip

_SYSTEM_FOLDERS = frozenset(map(str.lower, SYSTEM_FOLDERS))
_DIGITS = re.compile("([0-9]+)")
_FRACTION = re.compile(r"(?<![0-9.,])([0-9]+)[.,]([0-9]+)(?![0-9]|[.,][0-9])")  # 3.25, not 2024.5.1
_MOST_DIGITS = 255  # of a file's name
SHOWN = 3  # names of each order

logger = logging.getLogger(__name__)


class FramePaths(collections.abc.Sequence):
    """The paths of a folder's images, each put together when it is asked for.

    TrackingNet has thirty thousand folders of some hundred frames. The names are alike in all of them and shared, so
    that a frame costs eight bytes rather than a path.
    """

    __slots__ = ("folder", "names")

    def __init__(self, folder: str, names):
        self.folder, self.names = os.path.join(folder, ""), tuple(map(sys.intern, names))

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return tuple(self.folder + name for name in self.names[index])
        return self.folder + self.names[index]

    def __eq__(self, other):
        return isinstance(other, collections.abc.Sequence) and tuple(self) == tuple(other)

    def __hash__(self):
        return hash(tuple(self))


def image_names(folder: str, hint: str = "") -> list[str]:
    """Names of a folder's images (jpg, jpeg, png, bmp) in the order of time; DataError, with the `hint`, for none."""
    names = [name for name in files(folder) if name.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise DataError(
            f"{folder}: no images. Expected the frames of a sequence ({', '.join(IMAGE_SUFFIXES)}) in this "
            f"folder; add them.{hint}"
        )
    return in_order(folder, names)


def in_order(folder: str, names: list[str]) -> list[str]:
    """The names of a folder's frames in natural order.

    Digits behind a point count as decimals (0.1, 0.15, 0.2), or as a number of their own (0.1, 0.2, 0.15). Where this
    makes a difference, that reading holds by which no two names are the same, or by which no number is missing; DataError
    where both can be.
    """
    together = "".join(names)
    if together.count(".") == len(names) and "," not in together:  # the only point is that of the suffix
        return sorted(names, key=natural_key)
    stems = {name: os.path.splitext(name)[0] for name in names}
    counted = sorted(names, key=lambda name: natural_key(stems[name]))
    decimals = {
        name: _FRACTION.sub(lambda found: f"{found[1]}.{found[2]:0<{_MOST_DIGITS}}", stems[name]) for name in names
    }
    by_value = sorted(names, key=lambda name: natural_key(decimals[name]))
    if by_value == counted or _has_twins(decimals.values()) or _is_a_count(stems.values()):
        return counted
    if _has_twins(stems.values()):
        return by_value
    place = next(place for place, (one, other) in enumerate(zip(counted, by_value)) if one != other)
    shown = [", ".join(order[place : place + SHOWN]) for order in (by_value, counted)]
    raise DataError(
        f"{folder}: the order of the frames cannot be told. With decimals behind the point it is {shown[0]} ..., with a number "
        f"of its own there it is {shown[1]} .... Expected as many digits behind the point in every name; rename the images."
    )


def _is_a_count(names):
    """Whether names differ in one number alone, which misses none between its first and its last."""
    parts = [natural_key(name)[0] for name in names]  # text and numbers by turns
    if len({len(own) for own in parts}) > 1 or len({tuple(own[::2]) for own in parts}) > 1:
        return False
    varying = [sorted(numbers) for numbers in zip(*(own[1::2] for own in parts)) if len(set(numbers)) > 1]
    return len(varying) == 1 and varying[0] == list(range(varying[0][0], varying[0][0] + len(varying[0])))


def _has_twins(names):
    """Whether natural order takes two of some names for the same."""
    parts = [tuple(natural_key(name)[0]) for name in names]
    return len(set(parts)) < len(parts)


def natural_key(name: str) -> tuple:
    """Sorting key by which frame10 comes after frame9."""
    parts = _DIGITS.split(name.lower())
    parts[1::2] = map(int, parts[1::2])
    return (parts, name)


def subfolders(folder: str) -> list[str]:
    """Names of the folders in a folder, in natural order; hidden ones and SYSTEM_FOLDERS are left out.

    A link that leads nowhere, or to itself, is among them: whoever reads it says what is wrong.
    """
    names = []
    for entry in entries(folder):
        if _is_folder(entry) is False:
            continue
        if entry.name.lower() in _SYSTEM_FOLDERS:
            _say_passed_over(entry.name)
        else:
            names.append(entry.name)
    return sorted(names, key=natural_key)


def files(folder: str) -> list[str]:
    """Names of what a folder holds besides folders, hidden ones left out; links that lead nowhere are among them."""
    return [entry.name for entry in entries(folder) if not _is_folder(entry)]


def text_files(folder: str) -> list[str]:
    """Names without `.txt` of the text files in a folder, in natural order, hidden ones left out."""
    return sorted((name[:-4] for name in files(folder) if name.endswith(".txt")), key=natural_key)


def entries(folder: str) -> list[os.DirEntry]:
    """What a folder holds, hidden entries left out."""
    note_source(folder)
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read ({error.strerror}). Restore it.") from None


def _is_folder(entry):
    """True, False, or None for a link that leads nowhere or to itself."""
    try:
        if entry.is_file():
            return False
        if entry.is_dir():
            return True
    except OSError:
        return None
    return None if entry.is_symlink() else False


@functools.cache  # once, however many folders have one
def _say_passed_over(name):
    logger.info("folders called %s belong to a system, not to the data, and are passed over", name)
