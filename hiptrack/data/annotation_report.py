"""Counts and checks of a folder of challenge annotations."""

import os
import re
from dataclasses import dataclass, field

import gin
import numpy as np
import torch

from hiptrack.boxes import iou_and_giou, xywh_to_xyxy
from hiptrack.data.labels import (
    Annotation,
    Problem,
    annotation_path,
    fixed_generator,
    iter_annotations,
)
from hiptrack.data.listing import image_names, subfolders
from hiptrack.data.reading import read_boxes
from hiptrack.errors import DataError
from hiptrack.screen import shown
from hiptrack.tables import as_text
from hiptrack.taxonomy import TEN, Taxonomy

SPLITS = ("", "train", "val", "test")
_PLACE = re.compile(r"(?:(.*?)(?::[0-9]+)?: )?(.*)", re.DOTALL)  # a problem's file, and what is wrong
_VALUE = re.compile(r" is .*: (?=object missing|expected )")  # that stands in a line
GOOD_OVERLAP = 0.9


@dataclass
class AnnotationReport:
    """What `check_annotations` found.

    `problems`: one text for every malformed line or unreadable file, `file:line: reason`. `class_counts`:
    [C], by the draw that is fixed outside training. `flag_counts`: [C - 1], columns as in `FrameLabels`.
    `data_given`: whether there were data to match lines to. `not_found`: annotated sequences without frames in the
    data, `without_file`: folders without their own annotation file. `frames`: number of frames of the sequences
    found, `annotated`: how many of them have a valid line. `stated` and `truth`: [K, 4], ground_truth_bbox as written
    and the box of the same frame in groundtruth.txt (xywh, with an area).
    """

    taxonomy: Taxonomy
    data_given: bool = False
    sequences: int = 0
    lines: int = 0
    problems: list[str] = field(default_factory=list)
    class_counts: np.ndarray = field(init=False)
    flag_counts: np.ndarray = field(init=False)
    without_file: list[str] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)
    frames: int = 0
    annotated: int = 0
    stated: list[tuple[float, ...]] = field(default_factory=list)
    truth: list[tuple[float, ...]] = field(default_factory=list)

    def __post_init__(self):
        self.class_counts = np.zeros(len(self.taxonomy.classes), np.int64)
        self.flag_counts = np.zeros(len(self.taxonomy.challenges), np.int64)

    def agreement(self) -> dict[str, tuple[float, float]] | None:
        """Reading of ground_truth_bbox -> (mean IoU, share of IoU > 0.9); None where nothing was compared."""
        if not self.truth:
            return None
        stated = torch.tensor(self.stated, dtype=torch.float64)
        truth_xyxy = xywh_to_xyxy(torch.tensor(self.truth, dtype=torch.float64))
        result = {}
        for reading, stated_xyxy in (("xywh", xywh_to_xyxy(stated)), ("xyxy", stated)):
            iou = iou_and_giou(stated_xyxy, truth_xyxy)[0]
            result[reading] = (iou.mean().item(), (iou > GOOD_OVERLAP).double().mean().item())
        return result


@gin.configurable(denylist=["directory", "data"])
def check_annotations(directory: str, data: str | None = None, taxonomy: Taxonomy | None = None) -> AnnotationReport:
    """Reads every `<directory>/<sequence>/<sequence>.jsonl` to its end.

    `data`: a folder of sequences, or one with the splits train, val and test; with it lines are matched
    to images and boxes, without it by `frame_id` alone. `taxonomy`: the classes; None: the ten. Raises DataError where
    a folder is missing or holds no annotation file; everything else is collected in the report.
    """
    for path, content in ((directory, "<sequence>/<sequence>.jsonl"), (data, "sequences or their splits")):
        if path is not None and not os.path.isdir(path):
            raise DataError(f"{path}: does not exist or is no folder. Give the folder that holds {content}.")
    report = AnnotationReport(taxonomy or TEN, data is not None)
    for name in subfolders(directory):
        if os.path.lexists(annotation_path(directory, name)):
            _check_sequence(report, annotation_path(directory, name), name, data)
        else:
            report.without_file.append(name)
    if not report.sequences:
        raise DataError(
            f"{directory}: no annotation file in {len(report.without_file)} folders. Expected "
            "<sequence>/<sequence>.jsonl in it; give the folder that holds the sequences' folders."
        )
    return report


def format_report(report: AnnotationReport) -> str:
    """The report as text of several lines, malformed lines first."""
    rows = _grouped(report.problems)
    rows.append(f"{report.sequences} sequences, {report.lines} lines, {len(report.problems)} problems")
    if report.without_file:
        rows.append(f"folders without an annotation file of their own: {_names(report.without_file)}")
    taxonomy = report.taxonomy
    classes = zip(taxonomy.classes, report.class_counts, strict=True)
    several = zip(taxonomy.challenges, report.flag_counts, strict=True)
    rows.append(as_text(["class (one a frame)", "frames"], classes))
    rows.append(as_text(["flagged (several a frame possible)", "frames"], several))
    if report.frames:
        rows.append(f"frames without a valid line: {report.frames - report.annotated} of {report.frames}")
    else:
        why = "the data have none of these sequences" if report.data_given else "no frames given; see --data"
        rows.append(f"frames without a valid line: not done ({why})")
    if report.not_found:
        rows.append(f"sequences without frames in the data: {_names(report.not_found)}")
    agreement = report.agreement()
    if agreement is None:
        rows.append(f"agreement of ground_truth_bbox: not done ({_why_not_compared(report)})")
    else:
        rows.append(f"agreement of ground_truth_bbox with groundtruth.txt on {len(report.truth)} frames:")
        for reading, (mean, share) in agreement.items():
            rows.append(f"  read as {reading}: mean IoU {mean:.3f}, IoU > {GOOD_OVERLAP} in {share:.1%}")
    return "\n".join(rows)


def _grouped(problems):
    """One text for each reason: the first line that has it, and how many others do, whatever value stands there."""
    alike = {}
    for problem in problems:
        file, reason = _PLACE.fullmatch(problem).groups()
        alike.setdefault(_VALUE.sub(": ", reason), []).append((file, problem))
    rows = []
    for places in alike.values():
        more = (
            f" ({len(places) - 1} more like it; files: {len({file for file, _ in places})})" if len(places) > 1 else ""
        )
        rows.append(shown(places[0][1]) + more)
    return rows


def _why_not_compared(report):
    if not report.data_given:
        return "no ground truth given; see --data"
    if not report.frames:
        return "the data have none of these sequences"
    if not report.annotated:
        return "no line is valid"
    return "no valid line is of a frame with a box in groundtruth.txt"


def _check_sequence(report, path, name, data):
    report.sequences += 1
    images, boxes = None, ()
    if data is not None:
        try:
            images, boxes = _images_and_boxes(report, data, name)
        except DataError as error:
            report.problems.append(str(error))
    for item in iter_annotations(path, name, images, report.taxonomy):
        if isinstance(item, Problem):
            report.lines += item.line is not None
            report.problems.append(str(item))
        else:
            report.lines += 1
            _count(report, name, item, images, boxes)


def _count(report, name, item: Annotation, images, boxes):
    report.class_counts[report.taxonomy.draw(item.flags, fixed_generator(name, item.frame))] += 1
    report.flag_counts += item.flags
    report.annotated += images is not None
    if item.frame < len(boxes) and (boxes[item.frame][2:] > 0).all():
        report.stated.append(item.box)
        report.truth.append(tuple(boxes[item.frame]))


def _images_and_boxes(report, data, name):
    """(image names or None, boxes or ()) of a sequence, as far as the data have them."""
    folders = [os.path.join(data, split, name) for split in SPLITS]
    folders = [folder for folder in folders if os.path.isdir(folder)]
    if not folders:
        report.not_found.append(name)
        return None, ()
    if len(folders) > 1:
        raise DataError(f"{folders[1]}: the sequence also lies in {folders[0]}; give one split as data.")
    images = image_names(folders[0])
    report.frames += len(images)
    truth = os.path.join(folders[0], "groundtruth.txt")
    try:
        return images, read_boxes(truth, len(images), True) if os.path.lexists(truth) else ()
    except DataError as error:
        report.problems.append(str(error))
        return images, ()


def _names(names):
    return ", ".join(map(shown, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
