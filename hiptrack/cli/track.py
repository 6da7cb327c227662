"""Track a target in a video, a folder of images, a camera or a stream: `hiptrack track harbour.mp4 --box 554,184,129,174 --out tracked.mp4`."""

import argparse
from pathlib import Path

from hiptrack import config
from hiptrack.cli.options import add_checkpoint
from hiptrack.errors import ConfigError
from hiptrack.nano import FOLDER, checkpoint_path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "source", help="video file, folder of images, camera (a number or /dev/videoN) or stream (rtsp://, http://...)"
    )
    config.add_arguments(parser)
    what = "weights file (.safetensors), tracker's folder, or folder of hiptrack export; by default nano, which comes with the package"
    add_checkpoint(parser, what, FOLDER, checkpoint_path)
    parser.add_argument(
        "--box", metavar="x,y,w,h", help="the target in the first frame tracked, in pixels; without it, drawn by mouse"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="video with what was found: .mp4, .mov, .mkv or .avi")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="a line for each frame: box, score, challenge")
    parser.add_argument("--start", type=int, default=1, metavar="N", help="first frame, from 1 (1)")
    parser.add_argument("--frames", type=int, metavar="N", help="frames at most (all)")
    parser.add_argument(
        "--trust-export",
        action="store_true",
        help="read an export's .pt2 files, which can run code while they are read",
    )
    parser.add_argument("--display", action="store_true", help="show it; q or Escape ends")
    options = vars(config.parse_args(parser))

    from hiptrack.evaluation.evaluate import configured_tracker
    from hiptrack.extras.video.track import TrackRequest, parse_box, track
    from hiptrack.tracking.hub import is_tracker_folder

    files, overrides = options.pop("gin"), options.pop("overrides")
    checkpoint = options["checkpoint"]
    if checkpoint.is_dir() and not is_tracker_folder(checkpoint) and (files or overrides):
        raise ConfigError(
            f"{checkpoint} tracks as it was exported: {' '.join([*files, *overrides])} can change nothing. Export "
            "anew, or track with the weights file."
        )
    config.load([config.packaged("gin/eval/tracker.gin"), *files], overrides, root="evaluate")
    box = options.pop("box")
    request = TrackRequest(box_xywh=None if box is None else parse_box(box), **options)
    return track(request, configured_tracker())
