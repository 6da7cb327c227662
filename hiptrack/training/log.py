"""What a run leaves to be read: TensorBoard, metrics.jsonl and the terminal, written by the main process only."""

import json
import os
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class RunLog:
    """Scalars and pictures of a run, in `run_dir/tensorboard` and `run_dir/metrics.jsonl`.

    What an interrupted run logged beyond the step it resumes from is dropped, so that there are neither duplicates nor
    holes. On other than the main process nothing is written.
    """

    def __init__(self, run_dir, is_main, resume_step):
        self.writer = self.file = None
        if not is_main:
            return
        path = Path(run_dir) / "metrics.jsonl"
        if path.exists():
            _keep_until(path, resume_step)
        self.file = path.open("a")
        self.writer = SummaryWriter(str(Path(run_dir) / "tensorboard"), purge_step=resume_step + 1)

    def scalars(self, step, values):
        """Log {name: number} at a global step."""
        if self.file is None:
            return
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()

    def picture(self, step, name, image_rgb):
        """Log a uint8 picture [H, W, 3]."""
        if self.writer is not None:
            self.writer.add_image(name, image_rgb, step, dataformats="HWC")

    def text(self, name, text):
        """Log a text, shown as code."""
        if self.writer is not None:
            self.writer.add_text(name, "    " + text.replace("\n", "\n    "))

    def close(self):
        """Flush and close."""
        if self.file is not None:
            self.file.close()
            self.writer.close()


def _keep_until(path, step):
    """Drop the lines after a step, and a last line cut short."""
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except json.JSONDecodeError:
            break
    temporary = path.with_name("tmp-metrics.jsonl")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)


def read_metrics(run_dir):
    """{name: [(step, value), ...]} of a run's metrics.jsonl."""
    curves = {}
    for line in (Path(run_dir) / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        for name, value in entry.items():
            if name != "step":
                curves.setdefault(name, []).append((entry["step"], value))
    return curves
