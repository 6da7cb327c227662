"""Every image of a data set, decoded once: which are damaged or odd, and boxes that lie outside of them.

A JPEG with a hole in its data is decoded without an error, to grey or to stripes. jpeg_holes.py finds the most common ones;
of all others only the decoder's own words on stderr tell, without the file's name. So each process here that decodes
has a file in the place of its stderr, and reads what was said of each image. (Training and tracking share their stderr
with others, and cannot.)
"""

import os
import re
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import chain, islice

import cv2
from tqdm import tqdm

from hiptrack.data.image_heads import UPRIGHT, orientation
from hiptrack.data.reading import decode_bgr, read_image, show
from hiptrack.data.sequence import Sequence, SequenceDataset
from hiptrack.errors import DataError

CHUNK = 32  # images that a process gets at a time
AHEAD = 4  # chunks of each process that wait at most
BORDER = 1.0  # pixels by which a box may reach beyond its image without a note

HARMLESS = re.compile("warning", re.IGNORECASE)  # of a colour profile or a comment, say: the picture is whole


@dataclass(frozen=True)
class Look:
    """What became of one image: its (width, height), bits a channel and Exif orientation; the lines that the decoder said;
    the error instead, where it cannot be read."""

    size: tuple[int, int] = (0, 0)
    bits: int = 8
    orientation: int = UPRIGHT
    said: tuple[str, ...] = ()
    error: str | None = None

    @property
    def is_deep(self):
        return self.bits > 8


@dataclass
class ImageReport:
    """What `check_images` found. `problems`: how many, each of which it told. `notes`: {what is odd, but right: how many
    images, and the first}."""

    tell: Callable[[str], None]
    sequences: int = 0
    images: int = 0
    problems: int = 0
    notes: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add_problem(self, text):
        self.problems += 1
        self.tell(text)

    def add_note(self, what, path):
        count, first = self.notes.get(what, (0, path))
        self.notes[what] = count + 1, first

    def __str__(self):
        lines = [f"{what}: {count} (the first: {first})" for what, (count, first) in self.notes.items()]
        return "\n".join([*lines, f"{self.sequences} sequences, {self.images} images, {self.problems} problems"])


def check_images(dataset: SequenceDataset, tell: Callable[[str], None]) -> ImageReport:
    """Decode every image of a data set once, in as many processes as there are cores.

    tell: gets each problem when it is found: a sequence that cannot be read; an image that cannot be read, that its
    decoder complains of, or that differs from the first of its sequence in size or depth; a box that shows no pixel of
    its image. Raises DataError for what is wrong with the set as a whole, and where a process dies.
    """
    report, sequences = ImageReport(tell), []
    for _, found in dataset.read_each():
        if isinstance(found, DataError):
            report.add_problem(str(found))
        else:
            sequences.append(found)
    stills = {}
    for sequence in sequences:
        if sequence.is_still:
            stills.setdefault(sequence.frames[0], []).append((sequence, 0))
    videos = [sequence for sequence in sequences if not sequence.is_still]
    frames = ((path, [(own, index)]) for own in videos for index, path in enumerate(own.frames))
    total, firsts = sum(map(len, videos)) + len(stills), {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with (
        tqdm(total=total, desc="reading", unit="image", leave=False) as bar,
        ProcessPoolExecutor(cores, initializer=_start_process) as pool,
    ):
        for path, owners, look in _looks(pool, chain(frames, stills.items()), AHEAD * cores):
            _judge(report, path, owners, look, firsts)
            bar.update()
    report.sequences, report.images = len(sequences), total
    return report


def _looks(pool, frames, ahead) -> Iterator[tuple[str, list, Look]]:
    """Yields (path, owners, Look) of (path, owners) in order, so many chunks of which are in work at a time."""
    waiting = deque()
    for chunk in iter(lambda: list(islice(frames, CHUNK)), []):
        asked = [(path, owners[0][0].image_size) for path, owners in chunk]
        waiting.append((chunk, pool.submit(_look_at, asked)))
        if len(waiting) > ahead:
            yield from _looked(*waiting.popleft())
    while waiting:
        yield from _looked(*waiting.popleft())


def _looked(chunk, future):
    try:
        looks = future.result()
    except BrokenProcessPool:
        raise DataError(
            f"A process that read images died, at {chunk[0][0]} or some hundred images after it. Check these files and the "
            "machine's memory."
        ) from None
    for (path, owners), look in zip(chunk, looks, strict=True):
        yield path, owners, look


def _judge(report: ImageReport, path: str, owners: list[tuple[Sequence, int]], look: Look, firsts: dict[int, Look]):
    """Add what is wrong with an image and with the boxes on it. firsts: {id of a sequence: its first image that is read}."""
    if look.error:
        report.add_problem(look.error)
        return
    complaints = [line for line in look.said if not HARMLESS.search(line)]
    if complaints:
        report.add_problem(f"{path}: a part of the picture is damaged; its decoder says: {'; '.join(complaints)}")
    elif look.said:
        report.add_note(f"its decoder says: {look.said[0]}", path)
    if look.is_deep:
        report.add_note(f"{look.bits} bits a channel", path)
    if look.orientation != UPRIGHT:
        report.add_note(f"Exif orientation {look.orientation}", path)
    for sequence, index in owners:
        first = firsts.setdefault(id(sequence), look)
        if (look.size, look.is_deep) != (first.size, first.is_deep):
            report.add_problem(
                f"{path}: the frame has {_form(look)}, the first of {sequence.name} has {_form(first)}. Expected the same in all "
                "frames of a sequence."
            )
        if index < len(sequence.boxes_xywh) and sequence.visible[index]:
            _judge_box(report, path, sequence, sequence.boxes_xywh[index], look)


def _judge_box(report, path, sequence, box, look):
    (x, y, w, h), (width, height) = box, look.size
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        hint = " Does it belong to the picture as it is stored, without its Exif orientation?"
        report.add_problem(
            f"{path}: the box {show(box)} of {sequence.name} lies outside the picture of {width}x{height} pixels."
            f"{'' if look.orientation == UPRIGHT else hint}"
        )
    elif min(x, y, width - x - w, height - y - h) < -BORDER:
        report.add_note("a box that reaches beyond the picture", path)


def _form(look):
    return f"{look.size[0]}x{look.size[1]} pixels of {look.bits} bits a channel"


_ear = None  # what this process says on stderr


def _start_process():
    global _ear
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process stops the others
    cv2.setNumThreads(0)
    _ear = tempfile.TemporaryFile()  # noqa: SIM115  as long as the process
    os.dup2(_ear.fileno(), 2)


def _look_at(asked):
    """The Looks at (path, stated size or None)."""
    return [_look(*image) for image in asked]


def _look(path, stated_size):
    try:
        data, head = read_image(path)
        turned = orientation(data)
        _heard()
        image = decode_bgr(path, data, stated_size=stated_size)
    except DataError as error:
        return Look(error=str(error))
    return Look(image.shape[1::-1], head.bits, turned, _heard())


def _heard():
    """The lines that were said on stderr since it was asked last."""
    said = os.pread(_ear.fileno(), 2**16, 0).decode("utf-8", "replace")
    os.lseek(_ear.fileno(), 0, os.SEEK_SET)
    os.ftruncate(_ear.fileno(), 0)
    return tuple(dict.fromkeys(line.strip() for line in said.splitlines() if line.strip()))
