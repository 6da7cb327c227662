"""Result files of tracked sequences in GOT-10k's form, kept under a key so that stale ones are never reused.

    <folder>/key.json                    what the results were made with
    <folder>/<seq>/<seq>_001.txt         one box a line, x,y,w,h in pixels, %.3f, the first one given
    <folder>/<seq>/<seq>_time.txt        seconds of each frame, %.8f
    <folder>/<seq>/<seq>_details.npz     what that form has no place for: scores, class outputs, image size

Every file is written under another name and renamed; a sequence's box file is written last, so what has it is
finished. Nothing here deletes a result. The key is that of the tracker: a folder may hold results of any sequences.
"""

import inspect
import io
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hiptrack.config.portable import read_settings
from hiptrack.errors import CheckpointError, ConfigError, DataError
from hiptrack.evaluation.identity import sequence_identity
from hiptrack.files import check_archive, check_file, check_own, excerpt, read_bytes, read_text, write_atomically
from hiptrack.taxonomy import TEN, Taxonomy

KEY = "key.json"
MAX_BYTES = 2**28  # of any file of a result
LONGEST_NAME = 255  # bytes, of a file on nearly all systems
LONGEST_ENDING = "_unfinished.safetensors"  # of the files of a sequence, see unfinished.py
# What lies in a results folder beside the folders of sequences.
OWN = {KEY, "report.json", "submission.zip"} | {
    f"{stem}.{kind}"
    for stem in ("report", "success", "branch", "by_challenge")
    for kind in ("html", "csv", "md", "tex", "png")
}


@dataclass(frozen=True)
class SequenceResult:
    """What a tracker did on one sequence of N frames.

    boxes_xywh [N,4] pixels (the first is the given box); seconds [N] of init and of each update, without
    decoding; end_to_end_seconds of the whole sequence with decoding; scores [N] (1 for the first frame);
    challenges [N,C] or None, rows NaN where the tracker gave none; image_size (width, height); moments: score maps and
    search regions of some frames, {frame from 1: ([S,S], xywh [4])}; made_of: the `sequence_identity`, empty where
    nothing is kept.
    """

    name: str
    boxes_xywh: np.ndarray
    seconds: np.ndarray
    end_to_end_seconds: float
    scores: np.ndarray
    challenges: np.ndarray | None
    image_size: tuple[int, int]
    moments: dict = field(default_factory=dict)
    made_of: str = ""


def claim_folder(folder, key, names, taxonomy):
    """Make `folder` the place of the results with `key` (a string that changes whenever results would).

    `names` are the sequences about to be tracked, `taxonomy` has the tracker's classes. Any number of processes may
    call this at once with the same key. Raises DataError when the folder holds results of another key or of none, for a
    name that no result can have, and for a sequence's folder that is a link.
    """
    for name in names:
        _require_place(folder, name)
    key_path = Path(folder) / KEY
    try:
        for name in names:
            check_own(sequence_folder(folder, name))
        # Looked at before the key, which another process of this run writes before its first result.
        found = [name for name in names if _box_path(folder, name).exists()]
        theirs = sorted(name for name in OWN - {KEY} if os.path.lexists(Path(folder) / name))
        if not key_path.exists():
            if found:
                raise DataError(
                    f"{folder} holds results (of {found[0]} among others) but no key.json that says what "
                    "made them, so they are not reused. Choose another results folder, or move these away."
                )
            if theirs:
                raise DataError(
                    f"{folder} is no folder of results (it has no {KEY}), and its {theirs[0]} would be overwritten. Choose another "
                    "results folder."
                )
            write_atomically(key_path, (json.dumps({"key": key, "taxonomy": taxonomy.as_dict()}) + "\n").encode())
    except OSError as error:
        raise DataError(
            f"The results folder {folder} cannot be used: {error}. Name a folder that can be written."
        ) from error
    stored = read_key(folder)
    if stored != key:
        raise DataError(
            f"{folder} holds results of another checkpoint or configuration, or of another version of hiptrack (key {stored}; this evaluation "
            f"has {key}), which are neither reused nor overwritten. Choose another results folder, or move "
            "these results away."
        )


def _require_place(folder, name):
    """Raise DataError for a sequence whose files would have too long names, or that is called like another file there."""
    longest = len(os.fsencode(sequence_folder(folder, name).name + LONGEST_ENDING))
    if longest > LONGEST_NAME:
        raise DataError(
            f"The name of the sequence {excerpt(name, 60)} is too long: {len(os.fsencode(name))} bytes, with which a file of "
            f"results would have {longest}. At most {LONGEST_NAME} are possible. Rename its folder."
        )
    if name.lower() in OWN:
        raise DataError(f"The sequence {name} is called like a file of the results folder. Rename its folder.")


def read_key(folder):
    """The key of the results in a folder. Raises DataError where there is none."""
    return _read_key_file(folder)["key"]


def read_taxonomy(folder):
    """The Taxonomy of the results in a folder; the ten classes for those of before there were others.

    Raises DataError where the file cannot be read, or its classes cannot be.
    """
    stored, path = _read_key_file(folder).get("taxonomy"), str(Path(folder) / KEY)
    if stored is None:
        return TEN
    try:
        return Taxonomy(**read_settings(stored, inspect.signature(Taxonomy, eval_str=True).parameters, path))
    except (CheckpointError, ConfigError, TypeError) as error:
        raise DataError(f"{path}: {error} Move the results away to have them made again.") from error


def _read_key_file(folder):
    path = Path(folder) / KEY
    try:
        stored = json.loads(read_bytes(path, MAX_BYTES))
        return {**stored, "key": stored["key"]}
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}): {folder} is no folder of results.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f'{path} is not of the form {{"key": "..."}}, so what made the results beside it is unknown. '
            "Choose another results folder, or move these results away."
        ) from error


def is_finished(folder, name):
    """True when all files of the sequence are there."""
    return all(
        path.is_file() for path in (_box_path(folder, name), _time_path(folder, name), _details_path(folder, name))
    )


def write_result(folder, result):
    """Write the files of one SequenceResult. Raises DataError for a name that is not a plain folder name."""
    details = {
        "scores": result.scores,
        "end_to_end_seconds": np.float64(result.end_to_end_seconds),
        "image_size": np.asarray(result.image_size, np.int64),
        "made_of": np.array(result.made_of),
    }
    if result.challenges is not None:
        details["challenges"] = result.challenges
    if result.moments:
        details["moment_frames"] = np.array(list(result.moments), np.int64)
        details["moment_maps"] = np.stack([score_map for score_map, _ in result.moments.values()]).astype(np.float16)
        details["moment_regions"] = np.stack([region for _, region in result.moments.values()]).astype(np.float64)
    buffer = io.BytesIO()
    np.savez(buffer, **details)
    write_atomically(_details_path(folder, result.name), buffer.getvalue())
    write_atomically(_time_path(folder, result.name), _format_seconds(result.seconds).encode())
    write_atomically(_box_path(folder, result.name), _format_boxes(result.boxes_xywh).encode())


def as_written(result):
    """The SequenceResult that its files hold: boxes and seconds rounded as the text form rounds them."""
    boxes = _parse(_format_boxes(result.boxes_xywh), 4, len(result.boxes_xywh), "result")
    seconds = _parse(_format_seconds(result.seconds), 1, len(result.seconds), "result")[:, 0]
    return replace(result, boxes_xywh=boxes, seconds=seconds)


def read_result(folder, name, num_frames, given_xywh, classes):
    """Read the files of one sequence back, checked against its frames, its given box and the number of classes.

    Raises DataError naming the file (and line) when a line is not of the expected numbers, when the number of
    lines is not `num_frames`, and when the first box is not `given_xywh`.
    """
    box_path, time_path, details_path = (
        _box_path(folder, name),
        _time_path(folder, name),
        _details_path(folder, name),
    )
    boxes = _parse(_read_text(box_path), 4, num_frames, box_path)
    seconds = _parse(_read_text(time_path), 1, num_frames, time_path)[:, 0]
    given = _parse(_format_boxes([given_xywh]), 4, 1, "ground truth")[0]
    if not np.array_equal(boxes[0], given):
        raise DataError(
            f"{box_path}:1: the box is {boxes[0].tolist()}, but the sequence begins with {given.tolist()}: "
            "these results are of other data. Choose another results folder, or move these results away."
        )
    details = _read_details(details_path, num_frames, classes)
    return SequenceResult(
        name,
        boxes,
        seconds,
        float(details["end_to_end_seconds"]),
        details["scores"],
        details.get("challenges"),
        tuple(details["image_size"].tolist()),
        _moments(details),
        str(details["made_of"]),
    )


def require_made_of(folder, result, sequence):
    """Raise DataError where a result read from a folder was made of other images, or another given box, than this Sequence."""
    if result.made_of != sequence_identity(sequence):
        raise DataError(
            f"{_details_path(folder, result.name)} was made of other images or of another first box than the sequence "
            f"{result.name} has now, or noted by an earlier version of hiptrack. Move {sequence_folder(folder, result.name)} away to have it tracked again, or choose "
            "another results folder."
        )


def _read_details(path, num_frames, classes):
    """The arrays of a .npz file by their names, each of the shape and kind in which it was written."""
    try:
        check_file(path, MAX_BYTES)
        check_archive(path)
        with np.load(path, allow_pickle=False) as file:
            details = dict(file)
    except Exception as error:  # a damaged file makes NumPy's reader fail in any way
        raise DataError(_damaged(path, f"cannot be read ({excerpt(str(error))})")) from error
    if "made_of" not in details:
        raise DataError(
            f"{path} is of an earlier version of hiptrack, which did not note of what images it was made. Move the sequence's "
            "result folder away to have the sequence tracked again."
        )
    shapes = {"end_to_end_seconds": (), "image_size": (2,), "scores": (num_frames,), "made_of": ()}
    if "challenges" in details:
        shapes["challenges"] = (num_frames, classes)
    if "moment_frames" in details:
        kept, maps = details["moment_frames"].size, details.get("moment_maps")
        side = maps.shape[-1] if maps is not None and maps.ndim else 0
        shapes |= {"moment_frames": (kept,), "moment_maps": (kept, side, side), "moment_regions": (kept, 4)}
    for name, shape in shapes.items():
        kinds = {"image_size": "iu", "moment_frames": "iu", "made_of": "U"}.get(name, "f")
        if name not in details or details[name].shape != shape or details[name].dtype.kind not in kinds:
            raise DataError(_damaged(path, f"holds no {name} of {num_frames} frames"))
    if "moment_frames" in details and not (side and np.isfinite(details["moment_regions"]).all()):
        raise DataError(_damaged(path, "holds score maps without size or place"))
    return details


def _moments(details):
    if "moment_frames" not in details:
        return {}
    kept = zip(details["moment_maps"].astype(np.float32), details["moment_regions"], strict=True)
    return dict(zip(details["moment_frames"].tolist(), kept, strict=True))


def _format_boxes(boxes_xywh):
    return "".join(",".join(f"{value:.3f}" for value in box) + "\n" for box in boxes_xywh)


def _format_seconds(seconds):
    return "".join(f"{value:.8f}\n" for value in seconds)


def _read_text(path):
    try:
        return read_text(path, MAX_BYTES)
    except OSError as error:
        raise DataError(_damaged(path, f"cannot be read ({error})")) from error


def _parse(text, columns, num_lines, path):
    text = text.removesuffix("\n")
    count = text.count("\n") + 1  # before they are taken apart: a file may be all ends of lines
    if count != num_lines:
        raise DataError(_damaged(path, f"has {count} lines, but the sequence has {num_lines} frames"))
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            row = [float(field) for field in line.split(",")]
        except ValueError:
            row = []
        if len(row) != columns or not np.isfinite(row).all():
            raise DataError(
                _damaged(f"{path}:{number}", f"is {line[:80]!r}; expected {columns} finite number(s), comma-separated")
            )
        rows.append(row)
    return np.array(rows, np.float64)


def _damaged(where, what):
    return f"{where}: {what}. Move the sequence's result folder away to have the sequence tracked again."


def _box_path(folder, name):
    return sequence_folder(folder, name) / f"{name}_001.txt"


def _time_path(folder, name):
    return sequence_folder(folder, name) / f"{name}_time.txt"


def _details_path(folder, name):
    return sequence_folder(folder, name) / f"{name}_details.npz"


def sequence_folder(folder, name):
    """Where the files of one sequence lie. Raises DataError for a name that is not a plain folder name."""
    if name in ("", ".", "..") or name != os.path.basename(name):
        raise DataError(f"The sequence name {name!r} cannot name a result folder; expected a plain folder name.")
    return Path(folder) / name
