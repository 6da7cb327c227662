"""Run a tracker over sequences, sharded over processes, and report how well it tracks and classifies, and how fast.

A tracker is any object with `init(frame_rgb uint8 [H,W,3], box_xywh)` and `update(frame_rgb)`, the latter
returning an object with `.box` (xywh, pixels), `.score` and `.challenge` ([C] or None); or one that follows several
targets, as hiptrack.tracking.tracker.Tracker does: what it starts then has `state` and `restore`, so that it can be gone on
with. Its attribute `multi_label`, where it has one, says whether several classes may hold at once.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from hiptrack.data.labels import draw_fixed
from hiptrack.data.sequence import GOT10K, Protocol
from hiptrack.errors import DataError, HiptrackError, NotFoundError
from hiptrack.evaluation import metrics, results
from hiptrack.evaluation.analysis import ATTRIBUTE_SEQUENCES, by_challenge
from hiptrack.evaluation.metrics import ONE_PASS_NUMBERS, OnePass, mean_curves, one_pass_curves
from hiptrack.evaluation.results import SequenceResult, is_finished, read_key, read_taxonomy
from hiptrack.evaluation.run_sequences import run_sequences
from hiptrack.evaluation.unfinished import Unfinished
from hiptrack.taxonomy import TEN, Taxonomy

REPORT = "report.json"  # its name in a results folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SequenceScore:
    """One sequence's result and its numbers.

    ious [M], None without ground truth; one_pass: its curves, None also where the benchmark has none; confusion [C,C]
    (rows true, columns predicted), None without a labelled frame that has class outputs; multi_label: (flags [L,C]
    bool, class outputs [L,C]) of the labelled frames, None also where the classes exclude each other; resumed: read
    back from files rather than tracked.
    """

    result: SequenceResult
    ious: np.ndarray | None
    one_pass: OnePass | None
    confusion: np.ndarray | None
    multi_label: tuple[np.ndarray, np.ndarray] | None
    resumed: bool


@dataclass(frozen=True)
class Report:
    """The evaluation of a list of sequences, in their order.

    scores: of the sequences that finished; failures: (name, message) of each that did not; protocol: the benchmark's;
    taxonomy: of labels and class outputs.
    The overall numbers are those of the finished ones: AO and SR over all frames, those of one-pass evaluation over
    sequences. by_challenge: of `analysis.by_challenge`, where attribute_sequences is explained, too.
    """

    scores: tuple[SequenceScore, ...]
    failures: tuple[tuple[str, str], ...]
    protocol: Protocol = GOT10K
    taxonomy: Taxonomy = TEN
    by_challenge: dict[str, dict] | None = None
    attribute_sequences: str = "majority"

    @property
    def ious(self) -> list[np.ndarray]:
        """The IoUs [M] of each sequence with ground truth."""
        return [score.ious for score in self.scores if score.ious is not None]

    @cached_property
    def overall(self) -> dict[str, float] | None:
        """{"AO", "SR0.5", "SR0.75"}, and in one-pass evaluation {"AUC", ...} (OnePass.numbers); None where no frame has
        ground truth."""
        return _summarise(self.ious, self.one_pass)

    @cached_property
    def one_pass(self) -> OnePass | None:
        """The mean of the sequences' curves; None without one-pass evaluation or without ground truth."""
        return mean_curves([score.one_pass for score in self.scores])

    @cached_property
    def success_curve(self) -> np.ndarray | None:
        """[101] share of frames with IoU > 0, 0.01, ... 1, or None where no frame has ground truth."""
        return metrics.success_curve(self.ious) if any(len(part) for part in self.ious) else None

    @cached_property
    def confusion(self) -> np.ndarray | None:
        """[C,C] counts over all labelled frames (rows true, columns predicted), None without any."""
        parts = [score.confusion for score in self.scores if score.confusion is not None]
        return np.sum(parts, 0) if parts else None

    @cached_property
    def classification(self) -> dict | None:
        """metrics.summarise_classification over all labelled frames, or None where there are none."""
        return None if self.confusion is None else metrics.summarise_classification(self.confusion)

    @cached_property
    def multi_label(self) -> dict | None:
        """metrics.summarise_multi_label over all labelled frames; None without any, or if classes are exclusive."""
        parts = [score.multi_label for score in self.scores if score.multi_label is not None]
        return metrics.summarise_multi_label(*map(np.concatenate, zip(*parts, strict=True))) if parts else None

    @cached_property
    def speed(self) -> dict[str, float | None]:
        """Frames per second of the updates alone (fps_model) and with init and decoding (fps_end_to_end), and
        the updates' milliseconds at the median and the 95th percentile; None where nothing was timed."""
        return _speed([score.result for score in self.scores])


def shard(costs, num_processes) -> list[list[int]]:
    """Indices of `costs` (frames to track) for each process: longest first, each to the least loaded; deterministic."""
    shards, loads = [[] for _ in range(num_processes)], [0] * num_processes
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        lightest = loads.index(min(loads))
        shards[lightest].append(index)
        loads[lightest] += costs[index]
    return shards


def evaluate_sequences(
    tracker,
    sequences,
    results_dir=None,
    key: str | None = None,
    process_index: int = 0,
    num_processes: int = 1,
    gather: Callable[[list], list] | None = None,
    protocol: Protocol = GOT10K,
    batch: int = 1,
    taxonomy: Taxonomy | None = None,
    attribute_sequences: str = "majority",
) -> Report:
    """Track and score all sequences; with several processes every one calls this and gets the same Report.

    results_dir: where to write GOT-10k result files; what it already holds under the same `key` (a string that changes
    with the checkpoint and the configuration) is read back instead of tracked again, where it is of the same sequence; a
    sequence of which another result is there fails. Those under way are kept there too, every minute.
    gather: list -> concatenated list over all processes (accelerate.utils.gather_object does).
    protocol: which numbers the benchmark reports; AO and SR are always among them.
    taxonomy: the names of the tracker's class outputs, and what the sequences' labels were read by; None: the ten.
    batch: how many sequences each process tracks side by side; more than one needs a tracker of several targets.
    attribute_sequences: which sequences one-pass evaluation counts for a challenge, see `analysis.by_challenge`.
    A sequence that fails is logged and stands in the report's failures; the others finish. Scores are of the
    boxes as the files hold them (%.3f), whether or not files are written.

    Raises DataError for no sequences, for two of one name, and for results of another key in results_dir; HiptrackError where
    a result cannot be written.
    """
    taxonomy = taxonomy or TEN
    if num_processes > 1 and gather is None:
        raise ValueError("gather is needed with more than one process")
    if (results_dir is None) != (key is None):
        raise ValueError("results_dir and key go together")
    if attribute_sequences not in ATTRIBUTE_SEQUENCES:
        raise ValueError(f"attribute_sequences is {attribute_sequences!r}, none of {', '.join(ATTRIBUTE_SEQUENCES)}")
    for sequence in sequences:
        if sequence.labels is not None and sequence.labels.taxonomy != taxonomy:
            raise DataError(
                f"{sequence.name} is labelled by the classes {', '.join(sequence.labels.taxonomy.classes)}, but scored by "
                f"{', '.join(taxonomy.classes)}: both must be the same."
            )
    names = [sequence.name for sequence in sequences]
    if not names:
        raise DataError("There is no sequence to evaluate: the data set is empty, or all of it is excluded.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"The sequence name {repeated[0]} occurs more than once in the data to evaluate ({len(repeated)} "
            "such names); results are kept by name. Evaluate the data sets one at a time."
        )
    finished, unfinished = set(), None
    if results_dir is not None:
        results.claim_folder(results_dir, key, names, taxonomy)
        finished = {name for name in names if results.is_finished(results_dir, name)}
        if gather is not None:  # others may have begun already: one process's view counts
            finished = gather([finished])[0]
        unfinished = Unfinished(results_dir, key)
    costs = [0 if sequence.name in finished else len(sequence) for sequence in sequences]
    own = shard(costs, num_processes)[process_index]
    scored = partial(_scored, protocol=protocol, multi_label=getattr(tracker, "multi_label", False))
    before = [index for index in own if names[index] in finished]
    ahead = [index for index in own if names[index] not in finished]
    read = partial(_read_back, results_dir, unfinished, len(taxonomy.classes))
    outcomes = [(index, *scored(read, sequences[index], resumed=True)) for index in before]
    tracked = run_sequences(tracker, [sequences[index] for index in ahead], batch, unfinished, process_index == 0)
    for place, outcome in tracked:
        keep = partial(_keep, outcome, results_dir, unfinished)
        outcomes.append((ahead[place], *scored(keep, sequences[ahead[place]], resumed=False)))
    if gather is not None:
        outcomes = gather(outcomes)
    outcomes = sorted(outcomes, key=lambda outcome: outcome[0])
    if [index for index, _, _ in outcomes] != list(range(len(names))):
        raise HiptrackError(
            f"{len(outcomes)} outcomes came back for {len(names)} sequences: the processes do not work on "
            "the same list, or gather does not join their lists."
        )
    scores = tuple(score for _, score, _ in outcomes if score is not None)
    report = Report(
        scores,
        tuple((names[index], message) for index, score, message in outcomes if score is None),
        protocol,
        taxonomy,
        by_challenge(scores, sequences, protocol, taxonomy.classes, attribute_sequences),
        attribute_sequences,
    )
    resumed = sum(score.resumed for score in report.scores)
    if resumed and process_index == 0:
        logger.info("%d of %d sequences were finished before and read back from %s", resumed, len(names), results_dir)
    return report


def _scored(result_of, sequence, resumed, protocol, multi_label):
    """(SequenceScore, None), or (None, message) where there is no result or it cannot be scored, for whatever reason.

    result_of: called with the sequence to give its result.
    """
    try:
        result = result_of(sequence)
        flags = _multi_label(result, sequence) if multi_label else None
        ious, curves = _ious(result, sequence), _one_pass(result, sequence, protocol)
        return SequenceScore(result, ious, curves, _confusion(result, sequence), flags, resumed), None
    except HiptrackError as error:
        logger.error("%s failed: %s", sequence.name, error)
        return None, str(error)
    except OSError as error:  # of writing a result: no fault of the sequence, and every other would meet it too
        raise HiptrackError(
            f"{error.filename}: the result of {sequence.name} cannot be written ({error.strerror}). The sequences that are "
            "finished are kept. Make room or mend the folder, then start the same command again, which goes on from there."
        ) from error
    except Exception as error:  # one sequence must not take the others with it; the report names it
        logger.exception("%s failed", sequence.name)
        return None, f"{type(error).__name__}: {error}"


def _read_back(results_dir, unfinished, classes, sequence):
    result = results.read_result(results_dir, sequence.name, len(sequence), sequence.boxes_xywh[0], classes)
    results.require_made_of(results_dir, result, sequence)
    if unfinished is not None:
        unfinished.forget(sequence)  # which a process that was killed had no time for
    return result


def _keep(outcome, results_dir, unfinished, sequence):
    """The result of a sequence that was tracked, as its files hold it; raises what it failed by."""
    if isinstance(outcome, HiptrackError):
        raise outcome
    if results_dir is not None:
        outcome = replace(outcome, made_of=unfinished.made_of(sequence))
        results.write_result(results_dir, outcome)
        unfinished.forget(sequence)
    logger.info("%s: %d frames in %.1f s", sequence.name, len(sequence), outcome.end_to_end_seconds)
    return results.as_written(outcome)


def _ious(result, sequence):
    if len(sequence.boxes_xywh) == 1:  # a test split: nothing but the given box
        return None
    return metrics.frame_ious(result.boxes_xywh, sequence.boxes_xywh, result.image_size, sequence.cover)


def _one_pass(result, sequence, protocol):
    if len(sequence.boxes_xywh) == 1 or not protocol.is_one_pass:
        return None
    return one_pass_curves(result.boxes_xywh, sequence.boxes_xywh, sequence.visible, protocol)


def _confusion(result, sequence):
    frames = _labelled_frames(result, sequence)
    if frames is None:
        return None
    from sklearn.metrics import confusion_matrix  # here: see metrics.summarise_multi_label

    true = [draw_fixed(sequence.labels, sequence.name, frame) for frame in frames]
    return confusion_matrix(true, result.challenges[frames].argmax(1), labels=np.arange(result.challenges.shape[1]))


def _multi_label(result, sequence):
    frames = _labelled_frames(result, sequence)
    return None if frames is None else (sequence.labels.multi_hot(frames) > 0, result.challenges[frames])


def _labelled_frames(result, sequence):
    """The labelled frames [L] with class outputs, or None without any."""
    if sequence.labels is None or result.challenges is None:
        return None
    frames = np.flatnonzero(sequence.labels.annotated & ~np.isnan(result.challenges).any(1))
    return frames if len(frames) else None


def _summarise(ious, curves):
    overlaps = metrics.summarise(ious) if any(len(part) for part in ious) else {}
    return {**overlaps, **(curves.numbers() if curves else {})} or None


def _speed(parts):
    updates = np.concatenate([part.seconds[1:] for part in parts]) if parts else np.empty(0)
    total = sum(part.end_to_end_seconds for part in parts)
    timed = updates.sum() > 0
    return {
        "fps_model": float(len(updates) / updates.sum()) if timed else None,
        "fps_end_to_end": float(sum(len(part.seconds) for part in parts) / total) if total > 0 else None,
        "update_ms_p50": float(np.percentile(updates, 50) * 1e3) if timed else None,
        "update_ms_p95": float(np.percentile(updates, 95) * 1e3) if timed else None,
    }


def as_dict(report) -> dict:
    """The report as JSON-ready values; None where a number does not exist."""
    classification = None
    if report.classification:
        confusion = report.confusion.tolist()
        classification = {"classes": list(report.taxonomy.classes), **report.classification, "confusion": confusion}
    multi_label = {"classes": list(report.taxonomy.classes), **report.multi_label} if report.multi_label else None
    counts_sequences = report.by_challenge and report.protocol.is_one_pass
    return {
        "overall": report.overall,
        "complete": not report.failures,
        "speed": report.speed,
        "metrics": list(report.protocol.metrics),
        "taxonomy": report.taxonomy.as_dict(),
        "success_curve": None if report.success_curve is None else report.success_curve.tolist(),
        "by_challenge": report.by_challenge,
        "attribute_sequences": report.attribute_sequences if counts_sequences else None,
        "one_pass": None if report.one_pass is None else {k: v.tolist() for k, v in vars(report.one_pass).items()},
        "classification": classification,
        "multi_label": multi_label,
        "sequences": {score.result.name: _sequence_dict(score, report.protocol) for score in report.scores},
        "failures": dict(report.failures),
    }


def _sequence_dict(score, protocol):
    names = (*GOT10K.metrics, *ONE_PASS_NUMBERS) if protocol.is_one_pass else GOT10K.metrics
    return {
        "frames": len(score.result.seconds),
        "resumed": score.resumed,
        **dict.fromkeys(names),
        **(_summarise([] if score.ious is None else [score.ious], score.one_pass) or {}),
        **_speed([score.result]),
    }


class _Absent:
    """In the place of a tracker: what has no result files fails."""

    def init(self, frame_rgb, box_xywh):
        raise HiptrackError("it has no result files here; evaluate again, which goes on where it stopped")


def read_back(folder, dataset, attribute_sequences="majority"):
    """The score.Report of a results folder on a data set; sequences without files are its failures.

    attribute_sequences: see `analysis.by_challenge`.
    Raises NotFoundError or DataError for a folder that holds no results of it.
    """
    if not Path(folder).is_dir():
        raise NotFoundError(f"not found: {folder} (a folder that hiptrack eval wrote)", str(folder))
    key, taxonomy = read_key(folder), read_taxonomy(folder)
    dataset.label_by(taxonomy)
    sequences = dataset.sequences
    if not any(is_finished(folder, sequence.name) for sequence in sequences):
        raise DataError(
            f"{folder} holds no result of the {len(sequences)} sequences of {dataset.name}. Expected the --root and --split that it "
            "was made with."
        )
    return evaluate_sequences(
        _Absent(),
        sequences,
        folder,
        key,
        protocol=dataset.PROTOCOL,
        taxonomy=taxonomy,
        attribute_sequences=attribute_sequences,
    )
