"""Tracking of videos and folders: what is written, what the tracker sees, how it ends, what it refuses."""

import dataclasses
import functools
import os
import runpy
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
from small_videos import decoded, fails, lines_of, write_folder, write_video
from toy import moving_target, save_toy, toy_model

from hiptrack import crops
from hiptrack.config import REPO_ROOT
from hiptrack.errors import CheckpointError, ConfigError, DataError, HiptrackError
from hiptrack.extras.video import outputs
from hiptrack.extras.video.sources import FolderSource
from hiptrack.extras.video.track import TrackRequest, parse_box, track
from hiptrack.signals import STOP_SIGNALS
from hiptrack.taxonomy import CLASSES
from hiptrack.tracking.memory import MemoryPolicy
from hiptrack.tracking.tracker import Tracker

pytestmark = pytest.mark.usefixtures("clean_gin")
FRAMES = 12
GREY = 128


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_toy(path, challenge="ChallengeBranch", seed=4)
    return path


@pytest.fixture
def box():
    return tuple(moving_target(1)[1].tolist())


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "harbour.mp4", moving_target(FRAMES)[0])


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "harbour", moving_target(FRAMES)[0])


@pytest.mark.parametrize("branch", ["off", "on", "folded"])
@pytest.mark.parametrize("kind", ["video", "folder"])
def test_the_lines_are_what_the_tracker_says(kind, branch, request, checkpoint, box, tmp_path):
    source, out = request.getfixturevalue(kind), tmp_path / "new" / "out.jsonl"
    made = functools.partial(Tracker, branch=branch)
    assert track(TrackRequest(str(source), checkpoint, box, jsonl=out), made) == 0
    pictures = decoded(source)[0] if kind == "video" else moving_target(FRAMES)[0]
    tracker = Tracker.from_checkpoint(checkpoint, branch=branch)
    tracker.init(pictures[0], box)
    first, *lines = lines_of(out)
    assert first.pop("seconds") >= 0 and first == {"frame": 1, "box": list(box), "score": None}
    assert len(lines) == FRAMES - 1
    for number, (line, picture) in enumerate(zip(lines, pictures[1:], strict=True), 2):
        result = tracker.update(picture)
        assert line.pop("seconds") > 0
        challenge = line.pop("challenge", None)
        assert line == {"frame": number, "box": result.box.tolist(), "score": result.score}
        if branch == "on":
            assert challenge == dict(zip(CLASSES, map(float, result.challenge), strict=True))
        else:
            assert challenge is None


@pytest.mark.parametrize("ending", ["mp4", "avi"])
@pytest.mark.parametrize("size", [(320, 240), (161, 121)])
def test_the_video_shows_the_box_at_its_place(ending, size, checkpoint, tmp_path):
    source = write_folder(tmp_path / "grey", [np.full((size[1], size[0], 3), GREY, np.uint8)] * 5)
    out, lines = tmp_path / f"out.{ending}", tmp_path / "out.jsonl"
    write_video(tmp_path / f"probe.{ending}", [np.zeros((48, 64, 3), np.uint8)], "MJPG" if ending == "avi" else "mp4v")
    assert track(TrackRequest(str(source), checkpoint, (60, 50, 40, 30), out, lines)) == 0
    pictures, fps = decoded(out)
    assert len(pictures) == 5 and fps == 25
    even = size[0] + size[0] % 2, size[1] + size[1] % 2
    for picture, line in zip(pictures, lines_of(lines), strict=True):
        assert picture.shape == (even[1], even[0], 3)
        x, y, w, h = np.round(line["box"]).astype(int)
        right, below = min(x + w, size[0] - 1), min(y + h, size[1] - 1)
        edge = [picture[y : y + 1, x:right], picture[y:below, x : x + 1].swapaxes(0, 1)]
        red, green, blue = np.concatenate(edge, 1).astype(int).mean((0, 1))
        assert red > blue + 15 and blue > green + 10  # pink, however coarse the codec's colours
    corner = pictures[0][-8:, -8:].astype(int)  # nothing is drawn there
    assert abs(corner - GREY).max() < 12


def test_the_search_region_is_the_crop_that_was_looked_at():
    tracker = Tracker(toy_model(), device="cpu")
    pictures, box = moving_target(4)
    tracker.init(pictures[0], box)
    assert tracker.target.search_xywh is None
    for picture in pictures[1:]:
        before = tracker.target.box_xywh
        tracker.update(picture)
        side = crops.crop_side(before, 4.0)
        assert tracker.target.search_xywh.tolist() == [*crops.crop_origin(before, side), side, side]
    tracker.init(pictures[0], box)
    assert tracker.target.search_xywh is None


@pytest.mark.parametrize("kind", ["png", "mp4", "avi"])
def test_red_reaches_the_tracker_as_red(kind, checkpoint, tmp_path, monkeypatch):
    red = np.zeros((90, 120, 3), np.uint8)
    red[30:60, 40:80] = (250, 20, 40)
    if kind == "png":
        source = write_folder(tmp_path / "red", [red] * 3)
    else:
        source = write_video(tmp_path / f"red.{kind}", [red] * 3, "mp4v" if kind == "mp4" else "MJPG")
    seen = []
    for name in ("init", "update"):
        real = getattr(Tracker, name)
        monkeypatch.setattr(
            Tracker, name, lambda self, frame, *more, real=real: (seen.append(frame), real(self, frame, *more))[1]
        )
    track(TrackRequest(str(source), checkpoint, (40, 30, 40, 30), jsonl=tmp_path / "out.jsonl"))
    assert len(seen) == 3
    for frame in seen:
        r, g, b = frame[35:55, 45:75].reshape(-1, 3).mean(0)
        assert r > 220 and g < 60 and b < 80


def test_start_and_frames_choose_a_part(checkpoint, box, video, folder, tmp_path):
    for source in (video, folder):
        for frames, expected in ((3, [4, 5, 6]), (None, list(range(4, FRAMES + 1))), (99, list(range(4, FRAMES + 1)))):
            out = tmp_path / "out.jsonl"
            assert track(TrackRequest(str(source), checkpoint, box, jsonl=out, start=4, frames=frames)) == 0
            assert [line["frame"] for line in lines_of(out)] == expected
            assert lines_of(out)[0]["box"] == list(box)


def test_what_stands_at_the_outputs_is_overwritten_but_not_before_tracking_starts(checkpoint, box, folder, tmp_path):
    out, lines = tmp_path / "out.avi", tmp_path / "out.jsonl"
    for path in (out, lines):
        path.write_bytes(b"old" * 99999)
    request = TrackRequest(str(folder), checkpoint, box, out, lines, frames=2)
    with pytest.raises(DataError):
        track(dataclasses.replace(request, box_xywh=(500, 0, 9, 9)))
    with pytest.raises(HiptrackError):
        track(dataclasses.replace(request, checkpoint=tmp_path / "none.safetensors"))
    assert out.read_bytes() == lines.read_bytes() == b"old" * 99999
    track(request)
    assert len(lines_of(lines)) == len(decoded(out)[0]) == 2


def test_requests_that_cannot_be_met_are_named(checkpoint, box, folder, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    good = TrackRequest(str(folder), checkpoint, box, jsonl=out)

    def bad(kind, message, **changes):
        fails(kind, message, dataclasses.replace(good, **changes))

    bad(ConfigError, "Nothing would be seen of the tracking. Expected --out, --jsonl or --display.", jsonl=None)
    bad(ConfigError, "--start 0: a number from 1 on was expected.", start=0)
    bad(ConfigError, "--frames 0: a number from 1 on was expected.", frames=0)
    bad(
        ConfigError,
        "--out film.gif: a video file ending in .mp4, .m4v, .mov, .mkv, .avi was expected.",
        out="film.gif",
    )
    bad(ConfigError, f"--jsonl {checkpoint} is the weights file. Expected another path.", jsonl=checkpoint)
    same = tmp_path / "same.mp4"
    bad(ConfigError, f"--jsonl {same} is also given as --out. Expected another path.", out=same, jsonl=same)
    frame = folder / "frame3.png"
    overwritten = "is what is tracked. Expected another path: it would be overwritten."
    bad(ConfigError, f"--jsonl {frame} {overwritten}", jsonl=frame)
    bad(
        DataError,
        "The first box [120.0, 10.0, 20.0, 20.0] (xywh) lies outside the 120x90 frame.",
        box_xywh=(120, 10, 20, 20),
    )
    bad(
        DataError,
        "The first box [0.593, 0.733, 0.047, 0.208] (xywh) is smaller than a pixel: is it in pixels? One that is normalised to "
        "0..1 is multiplied by the frame's size, 120x90.",
        box_xywh=(0.593, 0.733, 0.047, 0.208),
    )
    bad(DataError, f"{folder}: frame 13 was asked for as the first, but there are only 12 frames.", start=13)
    monkeypatch.setattr(outputs, "has_display", lambda: False)
    bad(ConfigError, "There is no display to draw the box on: give --box x,y,w,h.", box_xywh=None)
    bad(ConfigError, "There is no display to show frames on: leave out --display.", display=True)
    assert not out.exists() and cv2.imread(str(frame)) is not None
    for text in ("1,2,3", "1,2,3,x", "", "1 2 3 4"):
        with pytest.raises(ConfigError) as raised:
            parse_box(text)
        assert str(raised.value) == f"--box {text}: four numbers x,y,w,h in pixels were expected."
    assert parse_box("-1,2.5, 3,4") == (-1, 2.5, 3, 4)


def test_the_source_is_never_overwritten(checkpoint, box, video, tmp_path):
    link = tmp_path / "link.mp4"
    link.symlink_to(video)
    content = video.read_bytes()
    for path in (video, link):
        message = f"--out {path} is what is tracked. Expected another path: it would be overwritten."
        fails(ConfigError, message, TrackRequest(str(video), checkpoint, box, path))
        fails(ConfigError, message, TrackRequest(f"file://{video}", checkpoint, box, path))
    assert video.read_bytes() == content


def test_outputs_that_cannot_be_written_are_named(checkpoint, box, folder, tmp_path):
    (tmp_path / "file").write_text("")
    below, here = tmp_path / "file" / "out.jsonl", tmp_path / "folder.mp4"
    here.mkdir()
    request = TrackRequest(str(folder), checkpoint, box, jsonl=below)
    fails(HiptrackError, f"{below} cannot be written: Not a directory (--jsonl: a file)", request)
    request = TrackRequest(str(folder), checkpoint, box, here)
    fails(HiptrackError, f"{here} cannot be written: Is a directory (--out: a file)", request)
    if os.path.exists("/dev/full"):
        request = TrackRequest(str(folder), checkpoint, box, jsonl="/dev/full")
        fails(HiptrackError, "/dev/full cannot be written: No space left on device (--jsonl: a file)", request)


def test_a_video_that_was_not_written_is_an_error(checkpoint, box, folder, tmp_path, monkeypatch, capfd):
    out = tmp_path / "out.mp4"
    real = outputs.VideoOutput.write

    def until_the_disk_is_full(room):
        def write(self, picture):
            if self.frames < room:
                real(self, picture)
            else:
                self.frames += 1  # OpenCV says nothing

        return write

    for path, room in ((out, 0), (out.with_suffix(".avi"), 2), (out.with_suffix(".mkv"), 2)):
        monkeypatch.setattr(outputs.VideoOutput, "write", until_the_disk_is_full(room))
        with pytest.raises(HiptrackError, match=f"{path} was not written completely: it holds {room} of [0-9]+ frames"):
            track(TrackRequest(str(folder), checkpoint, box, path))
        assert "wrote" not in capfd.readouterr().err
    monkeypatch.setattr(cv2.VideoWriter, "isOpened", lambda self: False)
    with pytest.raises(HiptrackError, match="OpenCV has no encoder for mp4v video of 120x90 pixels at 25 frames/s"):
        track(TrackRequest(str(folder), checkpoint, box, tmp_path / "other.mp4"))
    assert not (tmp_path / "other.mp4").exists()


def test_no_name_steers_the_terminal(checkpoint, box, folder, tmp_path, capfd):
    odd = tmp_path / "x\x1b[2J\ny"
    odd.symlink_to(folder)
    track(TrackRequest(str(odd), checkpoint, box, tmp_path / "a\x1b[1m.mp4", frames=2))
    told = capfd.readouterr().err
    assert "x\\x1b[2J\\ny: no frame rate is known" in told and "a\\x1b[1m.mp4 (2 frames)" in told and "\x1b" not in told


def test_a_tracker_that_fails_leaves_what_it_did(checkpoint, box, folder, tmp_path, monkeypatch):
    real, calls = Tracker.update, []

    def update(self, frame):
        calls.append(frame.shape)
        if len(calls) == 4:
            raise CheckpointError("The model's output is not finite")
        return real(self, frame)

    monkeypatch.setattr(Tracker, "update", update)
    out = tmp_path / "out.avi"
    fails(CheckpointError, "The model's output is not finite", TrackRequest(str(folder), checkpoint, box, out))
    assert len(decoded(out)[0]) == 4


def signal_at(number, frame, monkeypatch, times=1):
    real = FolderSource.frames

    def frames(self, start=1):
        for place, picture in real(self, start):
            for _ in range(times if place == frame else 0):
                os.kill(os.getpid(), number)
            yield place, picture

    monkeypatch.setattr(FolderSource, "frames", frames)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_after_the_frame(number, code, checkpoint, box, folder, tmp_path, monkeypatch):
    signal_at(number, 5, monkeypatch)
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    out, lines = tmp_path / "out.avi", tmp_path / "out.jsonl"
    assert track(TrackRequest(str(folder), checkpoint, box, out, lines)) == code
    assert len(lines_of(lines)) == len(decoded(out)[0]) == 5
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before


def test_a_terminal_that_is_closed_does_not_end_what_nohup_started(checkpoint, box, folder, tmp_path, monkeypatch):
    signal_at(signal.SIGHUP, 5, monkeypatch)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert track(TrackRequest(str(folder), checkpoint, box, jsonl=tmp_path / "out.jsonl")) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert len(lines_of(tmp_path / "out.jsonl")) > 5


def test_ctrl_c_twice_ends_it_at_once_with_readable_files(checkpoint, box, folder, tmp_path, monkeypatch):
    signal_at(signal.SIGINT, 5, monkeypatch, times=2)
    out, lines = tmp_path / "out.avi", tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        track(TrackRequest(str(folder), checkpoint, box, out, lines))
    assert len(lines_of(lines)) == len(decoded(out)[0]) == 4


def test_the_tool_ends_by_sigterm_as_one_process(checkpoint, box, video, tmp_path):
    """The whole tool: the signal comes while frame 5 is read."""
    program = (
        "import os, runpy, signal, sys\n"
        "from hiptrack.extras.video.sources import VideoSource\n"
        "real = VideoSource.frames\n"
        "def frames(self, start=1):\n"
        "    for number, frame in real(self, start):\n"
        "        number == 5 and os.kill(os.getpid(), signal.SIGTERM)\n"
        "        yield number, frame\n"
        "VideoSource.frames = frames\n"
        f"runpy.run_path({str(REPO_ROOT / 'tools' / 'track.py')!r}, run_name='__main__')\n"
    )
    out, lines = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    arguments = [str(video), "--checkpoint", str(checkpoint), "--box", ",".join(map(str, box))]
    arguments += ["--out", str(out), "--jsonl", str(lines), "Tracker.branch=on"]
    environment = {**os.environ, "PYTHONPATH": str(REPO_ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 143, done.stderr
    assert f"wrote {out} (5 frames)" in done.stderr and f"wrote {lines} (5 frames)" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    pictures, fps = decoded(out)
    assert len(pictures) == len(lines_of(lines)) == 5 and fps == 10


def run_tool(monkeypatch, *arguments):
    """Exit code of tools/track.py in this process."""
    monkeypatch.setattr(sys, "argv", ["track.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(REPO_ROOT / "tools" / "track.py"), run_name="__main__")
    return left.value.code


def test_the_tool_says_errors_and_exits_with_1(checkpoint, folder, tmp_path, monkeypatch, capsys):
    more = ["--checkpoint", checkpoint, "--jsonl", tmp_path / "out.jsonl"]
    assert run_tool(monkeypatch, folder, *more, "--box", "1,2,3") == 1
    assert capsys.readouterr().err == "error: --box 1,2,3: four numbers x,y,w,h in pixels were expected.\n"
    assert run_tool(monkeypatch, folder, *more, "--box=-50,3,20,20") == 1
    assert "The first box [-50.0, 3.0, 20.0, 20.0] (xywh) lies outside the 120x90 frame." in capsys.readouterr().err
    assert run_tool(monkeypatch, folder, *more, "--box", "3,3,20,20", "Tracker.brnch=on") == 1
    assert 'command line: "Tracker.brnch=on": Tracker has no parameter "brnch"' in capsys.readouterr().err
    assert run_tool(monkeypatch, folder, *more, "--box", "3,3,20,20", "evaluate.batch=8") == 1
    assert "evaluate.batch belongs to hiptrack eval" in capsys.readouterr().err
    assert run_tool(monkeypatch, folder, *more, "--box", "3,3,20,20", "MemoryPolicy.capacity=5") == 1
    assert "evaluate reaches no MemoryPolicy; refer to it" in capsys.readouterr().err


def test_the_tool_tracks_as_configured(checkpoint, box, folder, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    files = ["--gin", "gin/eval/branch_on.gin", "--gin", "gin/memory/short.gin"]
    bindings = ["MemoryPolicy.capacity=2", "MemoryPolicy.interval=1", "Tracker.margin=30", "Tracker.smoothing=0.5"]
    more = ["--checkpoint", checkpoint, "--jsonl", out, "--box", ",".join(map(str, box))]
    assert run_tool(monkeypatch, folder, *files, *more, *bindings) == 0
    policy = MemoryPolicy(interval=1, capacity=2)
    tracker = Tracker.from_checkpoint(checkpoint, branch="on", memory=policy, margin=30, smoothing=0.5)
    pictures = moving_target(FRAMES)[0]
    tracker.init(pictures[0], box)
    for line, picture in zip(lines_of(out)[1:], pictures[1:], strict=True):
        result = tracker.update(picture)
        assert line["box"] == result.box.tolist()
        assert list(line["challenge"].values()) == [float(share) for share in result.challenge]


def test_the_box_is_drawn_by_mouse_where_there_is_a_display(checkpoint, folder, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(outputs, "has_display", lambda: True)
    monkeypatch.setattr(cv2, "selectROI", lambda title, picture: (shown.append(picture), (20, 30, 24, 18))[1])
    monkeypatch.setattr(cv2, "destroyWindow", lambda title: None)
    lines = tmp_path / "out.jsonl"
    assert track(TrackRequest(str(folder), checkpoint, jsonl=lines, frames=2)) == 0
    assert lines_of(lines)[0]["box"] == [20, 30, 24, 18]
    assert np.array_equal(shown[0][..., ::-1], moving_target(1)[0][0])  # OpenCV shows BGR
    monkeypatch.setattr(cv2, "selectROI", lambda title, picture: (0, 0, 0, 0))
    message = "No box was drawn. Draw one with the mouse and press Enter, or give --box x,y,w,h."
    fails(DataError, message, TrackRequest(str(folder), checkpoint, jsonl=lines))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a display has no name")
def test_a_display_needs_a_name_and_an_opencv_with_windows(monkeypatch):
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "QT", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    assert not outputs.has_display()
    monkeypatch.setenv("DISPLAY", ":0")
    assert outputs.has_display()
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")  # opencv-python-headless
    assert not outputs.has_display()


def test_closing_the_window_ends_it(checkpoint, box, folder, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(outputs, "has_display", lambda: True)
    for name in ("namedWindow", "destroyAllWindows"):
        monkeypatch.setattr(cv2, name, lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, picture: shown.append(picture.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda wait: ord("q") if len(shown) == 3 else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    lines = tmp_path / "out.jsonl"
    assert track(TrackRequest(str(folder), checkpoint, box, jsonl=lines, display=True)) == 0
    assert len(shown) == len(lines_of(lines)) == 3
