"""`benchmark eval`: sequences as tools/eval.py tracks them, against the model alone in the same run."""

import statistics
import tempfile

from hiptrack.benchmark.model import add_model_arguments, build_model
from hiptrack.benchmark.repeat import interleaved
from hiptrack.data.reading import read_image_rgb
from hiptrack.data.sequences import FolderDataset
from hiptrack.data.synthetic import write_dataset
from hiptrack.errors import ConfigError
from hiptrack.tracking.evaluate import evaluate_sequences
from hiptrack.tracking.tracker import Tracker

PURPOSE = "evaluation: frames a second from the files on, and of the model alone"
FRAME_SIZE = (1280, 720)


def add_arguments(parser):
    """The options of `benchmark eval`."""
    add_model_arguments(parser)
    parser.add_argument("--sequences", type=int, default=2, metavar="N", help="sequences that are tracked (2)")
    parser.add_argument("--frames", type=int, default=12, metavar="N", help="frames of each (12)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], metavar="N", help="sequences tracked at once (1)")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="float32")
    parser.add_argument("--device", default="auto", help="a torch device (a GPU where there is one)")


def measure(args):
    """Returns (settings, rows): a row for each batch, medians over the repetitions."""
    if min(args.sequences, args.frames - 1, *args.batch) < 1:
        raise ConfigError("At least 1 sequence of 2 frames, and a batch of 1, were expected.")
    model, model_name = build_model(args)
    tracker = Tracker(model, precision=args.precision, device=args.device)
    del model
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(folder, "val", args.sequences, args.frames, FRAME_SIZE, 0)
        sequences = FolderDataset(folder, "val").sequences
        speeds = {batch: [] for batch in args.batch}

        def evaluation(batch):
            return lambda: speeds[batch].append(evaluate_sequences(tracker, sequences, batch=batch).speed)

        paths = [path for sequence in sequences for path in sequence.frames]
        tasks = {batch: evaluation(batch) for batch in args.batch}
        tasks["decode"] = lambda: [read_image_rgb(path) for path in paths]
        timings = interleaved(tasks, args.repetitions)
    rows = []
    for batch in args.batch:
        timed = speeds[batch][1:]  # the first was to warm up
        model_fps, whole_fps = ([speed[name] for speed in timed] for name in ("fps_model", "fps_end_to_end"))
        rows.append(
            {
                "at once": batch,
                "decode ms": timings["decode"].median * 1e3 / len(paths),
                "update ms p50": statistics.median(speed["update_ms_p50"] for speed in timed),
                "update ms p95": statistics.median(speed["update_ms_p95"] for speed in timed),
                "frames/s, model": statistics.median(model_fps),
                "frames/s, end to end": statistics.median(whole_fps),
                "end to end / model": statistics.median(w / m for w, m in zip(whole_fps, model_fps, strict=True)),
            }
        )
    frames = "{} x {} of {} x {} JPEG".format(args.sequences, args.frames, *FRAME_SIZE)
    return {"model": model_name, "precision": args.precision, "frames": frames, "repetitions": args.repetitions}, rows
