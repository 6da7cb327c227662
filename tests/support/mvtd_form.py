"""A small data set in MVTD's form (Bakht et al., arXiv 2506.02866), made of clips in GOT-10k layout.

    python tests/support/mvtd_form.py CLIPS OUT

The last two clips become OUT/test, the others OUT/train, called as MVTD calls its sequences ("1-Ship"), with frames
`frame0001.jpg` that are links to the clips' own. There is no val/ and no list.txt. OUT/annotations holds a file for
each sequence in the form of docs/data.md.

The flags of these annotations follow rules that a machine can apply (RULES). They are no claim about what is to be seen
in the frames: nobody looked at them.
"""

import argparse
import json
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
from helpers_data import write_lines

from hiptrack.data.folders import FolderDataset

KINDS = ("Ship", "Boat", "Sailboat", "USV")
TESTED = 2  # sequences of test/
LABELS = ("absence.label", "cover.label", "cut_by_image.label")  # of train/ alone
RUN = 10  # frames for which a flag drawn by a hash stays as it is


@dataclass(frozen=True)
class Frame:
    """What a rule sees. `number` counts from 1; boxes are xywh in pixels: of this frame, of the last one that had a
    box, and of the first; `image_size` is (width, height)."""

    sequence: str
    number: int
    box: tuple[float, float, float, float]
    last: tuple[float, float, float, float]
    first: tuple[float, float, float, float]
    image_size: tuple[int, int]


def side(box):
    """The size of a box: the side of a square of its area."""
    return (box[2] * box[3]) ** 0.5


def is_small(frame):
    """The box is smaller than 40 pixels."""
    return side(frame.box) < 40


def has_another_size(frame):
    """The box is smaller than 0.7 times the first one, or larger than 1.4 times."""
    return not 0.7 <= side(frame.box) / side(frame.first) <= 1.4


def is_at_the_edge(frame):
    """The box comes nearer to the image's edge than a tenth of its size, or goes beyond it."""
    x, y, w, h = frame.box
    width, height = frame.image_size
    return min(x, y, width - x - w, height - y - h) < side(frame.box) / 10


def is_fast(frame):
    """The box's centre moved by more than an eighth of its size."""
    (x, y, w, h), (x0, y0, w0, h0) = frame.box, frame.last
    moved = ((x + w / 2 - x0 - w0 / 2) ** 2 + (y + h / 2 - y0 - h0 / 2) ** 2) ** 0.5
    return moved > side(frame.box) / 8


def drawn(flag, share):
    """A rule that draws the flag for a share of all runs of RUN frames, by a hash of flag, sequence and run."""

    def rule(frame):
        run = f"{flag} {frame.sequence} {frame.number // RUN}"
        return zlib.crc32(run.encode()) % 1000 < 1000 * share

    return rule


# Part of a line of the annotations -> flag in it -> its rule.
RULES = {
    "vlm_response": {
        "occlusion": drawn("occlusion", 0.1),
        "motion_blur": is_fast,
        "illu_change": drawn("illu_change", 0.1),
        "partial_visibility": is_at_the_edge,
        "variance_appear": drawn("variance_appear", 0.15),
        "background_clutter": drawn("background_clutter", 0.15),
    },
    "cv_response": {
        "scale_variation": has_another_size,
        "low_res": is_small,
        "low_contrast": drawn("low_contrast", 0.3),
    },
}


def make_mvtd_form(clips, out, rules=RULES):
    """Write train/, test/ and annotations/ into the folder `out`, which must not have them yet.

    clips: a folder of three sequences or more; list.txt is heeded where there is one. rules: {"vlm_response": {flag:
    rule}, "cv_response": {flag: rule}}, where a rule takes a Frame and says whether the flag is set; other flags than
    those of RULES make the annotations of a lab with classes of its own. A frame without a box has no line.
    """
    out, sequences = Path(out), FolderDataset(str(clips)).sequences
    for index, sequence in enumerate(sequences):
        name = f"{index + 1}-{KINDS[index % len(KINDS)]}"
        is_tested = index >= len(sequences) - TESTED
        folder = out / ("test" if is_tested else "train") / name
        write_frames(folder, sequence, () if is_tested else LABELS)
        write_lines(out / "annotations" / name / f"{name}.jsonl", map(json.dumps, annotate(name, sequence, rules)))


def write_frames(folder, sequence, labels):
    """A sequence folder of links to the frames, with the clip's boxes and, where it has them, the label files `labels`."""
    folder.mkdir(parents=True)
    for number, path in enumerate(sequence.frames, 1):
        (folder / frame_file(number, path)).symlink_to(Path(path).resolve())
    for name in ("groundtruth.txt", *labels):
        source = Path(sequence.frames[0]).parent / name
        if source.exists():
            shutil.copy(source, folder)


def frame_file(number, path):
    return f"frame{number:04d}{Path(path).suffix}"


def annotate(name, sequence, rules):
    """Yields the annotation of each frame that has a box, with the box as xyxy in pixels."""
    height, width = cv2.imread(sequence.frames[0]).shape[:2]
    first = last = tuple(sequence.boxes_xywh[0].tolist())
    for number, (path, box, visible) in enumerate(
        zip(sequence.frames, sequence.boxes_xywh.tolist(), sequence.visible, strict=True), 1
    ):
        if not visible:
            continue
        frame = Frame(name, number, tuple(box), last, first, (width, height))
        flags = {part: {flag: int(rule(frame)) for flag, rule in rules[part].items()} for part in rules}
        yield {
            "sequence_name": name,
            "frame_id": number,
            "frame_file": frame_file(number, path),
            "cv_response": flags["cv_response"],
            "vlm_response": {
                flag: {"flag": value, "conf": float(value)} for flag, value in flags["vlm_response"].items()
            },
            "ground_truth_bbox": [box[0], box[1], box[0] + box[2], box[1] + box[3]],
        }
        last = frame.box


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", help="folder of clips: images and groundtruth.txt")
    parser.add_argument("out", help="folder of the new data set")
    arguments = parser.parse_args()
    make_mvtd_form(arguments.clips, arguments.out)


if __name__ == "__main__":
    main()
