"""What a run leaves to be read: TensorBoard, metrics.jsonl and rejected.jsonl, written by the main process only."""

import ast
import json
import math
import os
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
from tqdm import tqdm

from hiptrack.boxes import cxcywh_to_xyxy, xyxy_to_xywh
from hiptrack.errors import DataError, HiptrackError
from hiptrack.files import encoded, excerpt, iter_lines, open_own
from hiptrack.pictures import draw_box, score_overlay
from hiptrack.progress import progress

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"
TABLED = ("Loss/total", "IoU", "Accuracy", "Validation/AO", "Validation/SR0.5", "Validation/balanced_accuracy")
SHOWN = ("IoU", "Accuracy")  # beside the losses, in the lines of epochs
REJECTED = "rejected.jsonl"  # the draws that gave no clip


class RunLog:
    """The log of a run, in its folder.

    A resumed run continues it where its checkpoint left it, so that there are neither duplicates nor holes. What cannot
    be written is kept in `failure`, a HiptrackError, for the run to stop on all processes.

    Args:
        step: of the checkpoint the run resumes from, or 0.
        sizes: what `sync` gave at that checkpoint, or {}.
    """

    failure = None

    def __init__(self, run_dir, step, sizes):
        from torch.utils.tensorboard import SummaryWriter  # here: a mistyped name is told before

        self.folder = Path(run_dir)
        self.metrics, self.rejected = self.journals = [
            Journal(self.folder / name, sizes.get(name, 0)) for name in (METRICS, REJECTED)
        ]
        self.writer = SummaryWriter(str(self.folder / TENSORBOARD), purge_step=step)
        for logged, values in read_journal(self.metrics.path):
            if logged == step:  # purged too: TensorBoard knows whole steps only
                self._to_tensorboard(step, values)

    def scalars(self, step, values):
        """Log {name: number} at a global step.

        A number that is not finite, as the gradient's norm of a step that a loss scaler skips, is null in
        metrics.jsonl, since JSON has none, and absent in TensorBoard.
        """
        values = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._guarded(self._to_tensorboard, step, values)
        self._guarded(self.metrics.add, {"step": step, **values})

    def picture(self, step, name, image_rgb):
        """Log a uint8 picture [H, W, 3]."""
        self._guarded(self.writer.add_image, name, image_rgb, step, dataformats="HWC")

    def clips(self, step, stage, batch, prediction, size, most):
        """Log the first search crop of `most` clips at most, with true (green) and predicted (red) box and score map.

        batch: on any device; prediction: of its frames, row by row; size: of the crops in pixels.
        """
        images = batch["search"].flatten(0, 1).permute(0, 2, 3, 1).cpu().numpy()
        truth = (batch["boxes_xywh"].flatten(0, 1) * size).cpu().numpy()
        boxes = (xyxy_to_xywh(cxcywh_to_xyxy(prediction.box_cxcywh.detach().float().cpu())) * size).numpy()
        scores = prediction.maps.score.detach().cpu().numpy()
        for number in range(0, len(images), batch["search"].shape[1])[:most]:
            image = score_overlay(images[number], scores[number])
            image = draw_box(draw_box(image, truth[number], (0, 255, 0)), boxes[number], (255, 0, 0))
            self.picture(step, f"{stage}/{number}", image)

    def text(self, step, name, text):
        indented = "    " + text.replace("\n", "\n    ")
        self._guarded(self.writer.add_text, name, encoded(indented).decode(), step)

    def hparams(self, bindings, metrics):
        """Show bindings {name: gin text} in TensorBoard's table of runs, beside the scalars of these names."""
        from torch.utils.tensorboard.summary import hparams

        values = {name: number_or_text(encoded(text).decode()) for name, text in bindings.items()}
        for summary in hparams(values, dict.fromkeys(metrics, 0.0)):
            self._guarded(self.writer.file_writer.add_summary, summary)

    def reject(self, step, draw):
        """Log a draw that gave no clip: {reason, sequence, file}."""
        self._guarded(self.rejected.add, {"step": step, **draw})

    def sync(self):
        """Have all of it on the disk; returns the size of each journal: {name: bytes}."""
        self._guarded(self._sync_tensorboard)
        return {journal.path.name: self._guarded(journal.synced_size) for journal in self.journals}

    def close(self):
        self._guarded(self.writer.close)
        for journal in self.journals:
            self._guarded(journal.close)

    def _to_tensorboard(self, step, values):
        for name, value in values.items():
            if value is not None:
                self.writer.add_scalar(name, value, step)

    def _sync_tensorboard(self):
        self.writer.flush()
        newest = max((self.folder / TENSORBOARD).glob("events.*"), key=lambda path: path.stat().st_mtime)
        with newest.open("rb") as file:
            os.fsync(file.fileno())

    def _guarded(self, write, *arguments, **named):
        try:
            return write(*arguments, **named)
        except OSError as error:
            self.failure = HiptrackError(
                f"the log in {self.folder} cannot be written ({error}). Make room, then start the same command again: it "
                "goes on from the last checkpoint."
            )


def number_or_text(text):
    """A literal number or truth value of gin, to be sorted by and plotted; anything else as it stands."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, (bool, int, float)) else text


class NoLog:
    """The log of the processes that write none: its calls do nothing."""

    failure = None

    def sync(self):
        return {}

    def scalars(self, *_):
        pass

    reject = clips = close = scalars


@contextmanager
def run_bar(stages, at, accelerator):
    """A RunBar over the steps of a run from a Position to the end of the last stage."""
    left = sum(stage.epochs * stage.steps_per_epoch for stage in stages[at.stage :])
    if left:
        left -= at.epoch * stages[at.stage].steps_per_epoch + at.epoch_step
    with progress(at.step + left, "step", done=at.step, shown=accelerator.is_main_process) as bar:
        yield RunBar(bar)


class RunBar:
    """Shows how far a run is, and sums up each epoch in a line."""

    def __init__(self, bar):
        self._bar = bar

    def begin_epoch(self, stage, at):
        self._bar.set_description(f"{stage.name} {at.epoch + 1}/{stage.epochs}", refresh=False)
        self._began, self._seen = time.monotonic(), []

    def step(self, scalars):
        """A step was taken, with these scalars."""
        told = {_word(name): value for name, value in scalars.items() if name.startswith("Loss/") or name in SHOWN}
        self._seen.append(told)
        brief = {name: f"{value:.3f}" for name, value in told.items() if name in ("loss", "IoU", "accuracy")}
        self._bar.set_postfix(brief, refresh=False)
        self._bar.update()

    def end_epoch(self, stage, at, validation):
        """A line on the epoch: means over the steps that this process took, the validation's values if there was one."""
        names = dict.fromkeys(name for told in self._seen for name in told)
        values = {name: [told[name] for told in self._seen if name in told] for name in names}
        parts = [_listed({name: sum(own) / len(own) for name, own in values.items()})] if names else []
        parts += [f"validation {_listed(validation)}"] if validation else []
        parts.append(tqdm.format_interval(time.monotonic() - self._began))
        if len(self._seen) < stage.steps_per_epoch:
            parts.append(f"resumed, with {len(self._seen)} of its {stage.steps_per_epoch} steps left")
        return f"{stage.name} epoch {at.epoch + 1}/{stage.epochs}: {'; '.join(parts)}"


def _word(name):
    """A scalar's name in a line."""
    return "loss" if name == "Loss/total" else name.removeprefix("Loss/").replace("Accuracy", "accuracy")


def _listed(values):
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())


def read_metrics(run_dir):
    """{name: [(step, value), ...]} of a run's metrics.jsonl, without what was not finite."""
    curves = {}
    for step, values in read_journal(Path(run_dir) / METRICS):
        for name, value in values.items():
            if value is not None:
                curves.setdefault(name, []).append((step, value))
    return curves


MAX_JOURNAL_BYTES, MAX_ENTRY_BYTES = 2**31, 2**20


class Journal:
    """A JSONL file that one process appends to.

    Args:
        path: the file; made where it is missing.
        size: bytes of it that count; what an interrupted run wrote beyond them is cut off, a broken line with it.
    """

    def __init__(self, path, size):
        self.path = Path(path)
        self.file = open_own(self.path)
        self.file.truncate(min(size, self.path.stat().st_size))
        self.file.seek(0)
        self.file.truncate(sum(len(line) for line in self.file if line.endswith(b"\n")))

    def add(self, entry):
        self.file.write(json.dumps(entry).encode() + b"\n")
        self.file.flush()

    def synced_size(self):
        """Bytes so far, all of them on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.path.stat().st_size

    def close(self):
        self.file.close()


def read_journal(path):
    """Yields (step, {name: finite number or None}) of each line of a metrics.jsonl, but of a last one that was cut short.

    Raises DataError at a line of another form, FileNotFoundError without the file.
    """
    try:
        for number, line in iter_lines(path, MAX_JOURNAL_BYTES, MAX_ENTRY_BYTES):
            if line is None:
                raise DataError(f"{path}:{number}: longer than {MAX_ENTRY_BYTES} bytes. Remove the line, or the file.")
            if not line.endswith(b"\n"):
                return
            try:
                values = _values(line)
                step = values.pop("step")
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                what = 'no JSON object of a "step" and of numbers'
                raise DataError(
                    f"{path}:{number}: {what} ({excerpt(str(error))}). Remove the line, or the file."
                ) from error
            yield step, values
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}. Move it away.") from error


_ENTRY = msgspec.json.Decoder(dict[str, int | float | None])


def _values(line):
    """{name: finite number or None} of a line, its step a whole number; ValueError and others where it is none."""
    try:
        values = _ENTRY.decode(line)
    except msgspec.DecodeError:  # NaN is no JSON, but Python writes it
        values = json.loads(line)
    for name, value in values.items():
        if type(value) is float:
            values[name] = value if math.isfinite(value) else None
        elif value is not None and not (type(value) is int and abs(value) < 2**63):
            raise ValueError(f"{name} is {value!r}")
    if type(values["step"]) is not int or values["step"] < 0:
        raise ValueError(f"step is {values['step']!r}")
    return values
