"""Validation during training: tracking of held-out sequences."""

from collections.abc import Callable
from dataclasses import dataclass

import gin
from accelerate.utils import gather_object

from hiptrack.errors import HiptrackError
from hiptrack.evaluation.score import evaluate_sequences
from hiptrack.models.challenge import taxonomy_of
from hiptrack.ranges import Count
from hiptrack.tracking.tracker import Tracker


@gin.register
@dataclass(eq=False)
class Validation:
    """Tracks the sequences of a data set: AO, SR0.5, SR0.75, and how well the branch classifies where it is on.

    Args:
        data: the held-out sequences.
        every: epochs between two validations; the last epoch of a stage is always followed by one.
        tracker: called with the model.
        sequences: only the first so many.
        batch: sequences that each process tracks side by side.
        allow_test_selection: the weights with the best AO are kept (best.safetensors) though the data are test data
            (selection.py).
    """

    data: object
    every: Count = 1
    tracker: Callable = Tracker
    sequences: Count | None = None
    batch: Count = 1
    allow_test_selection: bool = False

    @property
    def held_out(self):
        """The sequences that it tracks."""
        return self.data.sequences[: self.sequences]

    def missing_paths(self):
        return self.data.missing_paths()

    def is_due(self, epochs, of):
        return epochs % self.every == 0 or epochs == of

    def check(self, model, accelerator):
        """Raise ConfigError for settings of the tracker by which no validation could begin.

        The tracker is built as it is then, and let go: for a moment this takes a copy of the model.
        """
        self._open_tracker(model, accelerator)

    def _open_tracker(self, model, accelerator):
        return self.tracker(model=model, device=str(accelerator.device))

    def __call__(self, model, accelerator, gather=gather_object):
        """Track with the unwrapped model, shared out over the processes -> {name: number} (AO, ...), the same on all.

        gather: list -> the lists of all processes, joined; called once, when this process's share is tracked.
        """
        training = model.training
        tracker = self._open_tracker(model, accelerator)
        report = evaluate_sequences(
            tracker,
            self.held_out,
            process_index=accelerator.process_index,
            num_processes=accelerator.num_processes,
            gather=gather,
            batch=self.batch,
            taxonomy=taxonomy_of(model),
        )
        model.train(training)
        if report.failures:
            listed = "; ".join(f"{name}: {message}" for name, message in report.failures)
            raise HiptrackError(f"Validation could not track {len(report.failures)} sequences: {listed}")
        values = dict(report.overall or {})
        if report.classification:
            values["accuracy"] = report.classification["accuracy"]
            values["balanced_accuracy"] = report.classification["balanced_accuracy"]
        if report.multi_label:
            values["mean_average_precision"] = report.multi_label["mean_average_precision"]
            values["macro_f1"] = report.multi_label["macro_f1"]
            f1 = zip(report.taxonomy.classes, report.multi_label["f1"], strict=True)
            values.update({f"f1/{name}": value for name, value in f1 if value is not None})
        return values
