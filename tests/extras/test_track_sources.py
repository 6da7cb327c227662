"""Where frames come from: files, folders, cameras, streams; how they end, and what is said when they cannot be read."""

import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from small_videos import decoded, fails, lines_of, write_folder, write_video
from toy import moving_target, save_toy, toy_model

from hiptrack.errors import ConfigError, DataError
from hiptrack.extras.video import outputs, sources
from hiptrack.extras.video import track as track_video
from hiptrack.extras.video.containers import ASF, EBML, SEGMENT, missing_bytes
from hiptrack.extras.video.sources import Source, open_source
from hiptrack.extras.video.track import TrackRequest, track
from hiptrack.tracking.memory import MemoryPolicy
from hiptrack.tracking.tracker import Tracker

pytestmark = pytest.mark.usefixtures("clean_gin")
FRAMES = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_toy(path)
    return path


@pytest.fixture
def box():
    return tuple(moving_target(1)[1].tolist())


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "harbour", moving_target(FRAMES)[0])


def test_sources_that_cannot_be_opened_are_named(tmp_path):
    def bad(text, message):
        with pytest.raises(DataError) as raised:
            open_source(str(text))
        assert str(raised.value) == message

    bad(
        tmp_path / "none.mp4",
        f"{tmp_path}/none.mp4: there is no such file or folder. Expected a video file, a folder of images, a camera (a "
        "number or /dev/videoN) or a stream (rtsp://..., http://...).",
    )
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    bad(
        text,
        f"{text}: cannot be opened as a video. Expected a whole file in a format that OpenCV reads (mp4, avi, mkv, ...); "
        "it may be cut off, damaged or of another kind.",
    )
    (tmp_path / "empty").mkdir()
    bad(
        tmp_path / "empty",
        f"{tmp_path}/empty: no images. Expected the frames of a sequence (.jpg, .jpeg, .png, .bmp) in this folder; add them.",
    )
    if sys.platform == "linux":
        with pytest.raises(DataError, match="^camera 9876: there is no /dev/video9876. Expected a camera's number"):
            open_source("9876")


def test_a_damaged_frame_ends_it_with_its_number(checkpoint, box, folder, tmp_path, capfd):
    frame = folder / "frame7.png"
    frame.write_bytes(frame.read_bytes()[:300])
    out, lines = tmp_path / "out.avi", tmp_path / "out.jsonl"
    message = (
        f"frame 7 cannot be decoded: {frame}: the image is damaged or cut off (300 bytes). Expected a complete JPEG, PNG or "
        "BMP file; copy it again from its source."
    )
    fails(DataError, message, TrackRequest(str(folder), checkpoint, box, out, lines))
    assert len(lines_of(lines)) == len(decoded(out)[0]) == 6
    assert f"wrote {out} (6 frames)" in capfd.readouterr().err


def test_a_video_that_ends_early_is_an_error(checkpoint, box, tmp_path, monkeypatch, capfd):
    whole = write_video(tmp_path / "whole.avi", moving_target(40)[0], "MJPG")
    cut, lines = tmp_path / "cut.avi", tmp_path / "out.jsonl"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    there = len(decoded(cut)[0])
    assert 0 < there < 39
    message = (
        f"{cut}: frame {there + 1} cannot be decoded, and the file ought to have 40. Expected a whole video; this one is cut "
        f"off or damaged there. With at most {there} frames it can be tracked."
    )
    fails(DataError, message, TrackRequest(str(cut), checkpoint, box, jsonl=lines))
    assert len(lines_of(lines)) == there
    assert track(TrackRequest(str(cut), checkpoint, box, jsonl=lines, frames=there)) == 0
    monkeypatch.setattr(sources, "packets", lambda path: 40)  # as of a file trimmed by its edit list
    assert track(TrackRequest(str(cut), checkpoint, box, jsonl=lines)) == 0
    assert f"{cut}: {there} frames were shown of the 40 it holds" in capfd.readouterr().err


@pytest.mark.parametrize("ending, codec", [("mkv", "mp4v"), ("webm", "VP80"), ("flv", "FLV1"), ("wmv", "WMV2")])
def test_a_container_that_says_its_size_is_known_to_be_cut(ending, codec, checkpoint, box, tmp_path, capfd):
    whole = write_video(tmp_path / f"whole.{ending}", moving_target(40)[0], codec)
    cut, lines, size = tmp_path / f"cut.{ending}", tmp_path / "out.jsonl", whole.stat().st_size
    assert missing_bytes(whole) == 0
    assert track(TrackRequest(str(whole), checkpoint, box, jsonl=lines)) == 0
    assert len(lines_of(lines)) == 40 and "cut off" not in capfd.readouterr().err
    for kept in (size - 1, size // 2):
        cut.write_bytes(whole.read_bytes()[:kept])
        there = len(decoded(cut)[0])
        assert missing_bytes(cut) == size - kept
        message = (
            f"{cut}: it ends after frame {there}, and at least {size - kept} bytes are missing of what it ought to hold. Expected a "
            f"whole video; this one is cut off there. With at most {there} frames it can be tracked."
        )
        fails(DataError, message, TrackRequest(str(cut), checkpoint, box, jsonl=lines))
        assert len(lines_of(lines)) == there
    assert track(TrackRequest(str(cut), checkpoint, box, jsonl=lines, frames=there)) == 0 and 0 < there < 40


def test_a_recording_that_was_not_finished_is_told_to_be_short(checkpoint, box, tmp_path, capfd):
    """As after a crash of the program that wrote it: its size was left open, of which nobody can tell whether it is cut."""
    whole = write_video(tmp_path / "whole.mkv", moving_target(40)[0], "mp4v").read_bytes()
    start = whole.index(SEGMENT) + 4
    live, lines = tmp_path / "live.mkv", tmp_path / "out.jsonl"
    live.write_bytes((whole[:start] + b"\x01" + b"\xff" * 7 + whole[start + 8 :])[: len(whole) // 2])
    assert missing_bytes(live) is None
    assert track(TrackRequest(str(live), checkpoint, box, jsonl=lines)) == 0
    told = f"{live}: it ended after frame {len(lines_of(lines))}; by its length in time it would have about 40. Whether"
    assert told in capfd.readouterr().err


def test_a_transport_stream_is_cut_where_a_packet_is(checkpoint, box, tmp_path):
    whole = write_video(tmp_path / "whole.ts", moving_target(40)[0], "mp4v")
    cut, size = tmp_path / "cut.ts", whole.stat().st_size
    assert size % 188 == 0 and missing_bytes(whole) is None
    cut.write_bytes(whole.read_bytes()[: size - 100])
    assert missing_bytes(cut) == 100
    with pytest.raises(DataError, match="at least 100 bytes are missing"):
        track(TrackRequest(str(cut), checkpoint, box, jsonl=tmp_path / "out.jsonl"))


@pytest.mark.parametrize(
    "head", [EBML, EBML + bytes(40), EBML + SEGMENT + b"\x00", b"FLV\x01", b"FLV\x01" + b"\xff" * 40, ASF, b""]
)
def test_a_damaged_head_says_nothing_or_that_it_is_cut(head, tmp_path):
    (tmp_path / "x").write_bytes(head)
    missing = missing_bytes(tmp_path / "x")
    assert missing is None or missing >= 0


def test_names_with_a_colon_are_files(checkpoint, box, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("2024-05-01T10:30:00.mp4", "cam1:north.avi", "file:x.mp4"):
        write_video(f"./{name}", moving_target(FRAMES)[0])
        out = Path(f"out{name}")
        assert track(TrackRequest(name, checkpoint, box, out)) == 0
        assert len(decoded(f"./{out}")[0]) == FRAMES
    with pytest.raises(ConfigError, match="needs to be UTF-8 text"):
        track(TrackRequest(name, checkpoint, box, Path("caf\udce9.mp4")))


def test_packets_are_counted_without_decoding(tmp_path):
    video = write_video(tmp_path / "harbour.mp4", moving_target(FRAMES)[0])
    assert sources.packets(str(video)) == FRAMES


def test_a_change_of_size_ends_it(checkpoint, box, tmp_path):
    pictures = [*moving_target(3)[0], *moving_target(2, size=(160, 90))[0]]
    source, lines = write_folder(tmp_path / "frames", pictures), tmp_path / "out.jsonl"
    message = (
        "frame 4 has 160x90 pixels, those before it 120x90. Expected one size throughout; track what follows in a run of its "
        "own, from frame 4 with its own box."
    )
    fails(DataError, message, TrackRequest(str(source), checkpoint, box, jsonl=lines))
    assert len(lines_of(lines)) == 3


class FakeCapture:
    """A camera or stream of grey pictures, BGR (30, 20, 10), that ends after `last` frames."""

    opens, fps, last, asked = True, 0.0, 6, None

    def __init__(self, target, backend=None, parameters=None):
        FakeCapture.asked, self.given = target, 0

    def isOpened(self):
        return self.opens

    def get(self, what):
        return self.fps if what == cv2.CAP_PROP_FPS else -1.0

    def grab(self):
        self.given += 1
        return self.given <= self.last

    def retrieve(self):
        return True, np.full((90, 120, 3), (30, 20, 10), np.uint8)

    def release(self):
        pass


@pytest.fixture
def fake(monkeypatch):
    """OpenCV's captures are fakes while sources are read; a camera is there."""
    monkeypatch.setattr(sources.cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(sources.os.path, "exists", lambda path: True)
    return monkeypatch


@pytest.mark.parametrize("text", ["0", "/dev/video0"])
def test_a_camera_is_tracked_until_frames_or_its_loss(text, fake, checkpoint, box, tmp_path):
    lines = tmp_path / "out.jsonl"
    assert track(TrackRequest(text, checkpoint, box, jsonl=lines, frames=4)) == 0
    assert len(lines_of(lines)) == 4
    assert FakeCapture.asked == ("/dev/video0" if sys.platform == "linux" or text != "0" else 0)
    message = f"camera {text}: no picture came after frame 6. Expected one that goes on; was it unplugged?"
    fails(DataError, message, TrackRequest(text, checkpoint, box, jsonl=lines))
    assert len(lines_of(lines)) == 6


def test_a_stream_ends_without_error_and_its_password_is_not_told(fake, checkpoint, box, tmp_path, capfd):
    lines, address = tmp_path / "out.jsonl", "rtsp://me:secret@harbour.example/1"
    assert track(TrackRequest(address, checkpoint, box, jsonl=lines)) == 0
    assert FakeCapture.asked == address and len(lines_of(lines)) == 6
    assert "rtsp://harbour.example/1: the stream ended after frame 6" in (told := capfd.readouterr().err)
    assert "secret" not in told
    fake.setattr(FakeCapture, "opens", False)
    message = (
        "rtsp://harbour.example/1: the stream cannot be opened. Expected the address of a video that can be reached now "
        "(rtsp://..., http://...)."
    )
    fails(DataError, message, TrackRequest(address, checkpoint, box, jsonl=lines))
    fake.setattr(FakeCapture, "opens", True)
    fake.setattr(FakeCapture, "last", 0)
    message = "rtsp://harbour.example/1: the stream gave no frame."
    fails(DataError, message, TrackRequest(address, checkpoint, box, jsonl=lines))


@pytest.mark.parametrize(
    ("fps", "known"), [(0.0, None), (float("nan"), None), (-1, None), (90000, None), (29.97, 29.97)]
)
def test_frame_rates_that_are_none_become_25(fps, known, fake, box, capfd):
    fake.setattr(FakeCapture, "fps", fps)
    with open_source("rtsp://harbour.example/1") as source:
        assert source.fps == known
        assert track_video._fps(source) == (known or 25)
    said = "rtsp://harbour.example/1: no frame rate is known; 25 frames/s are written\n"
    assert capfd.readouterr().err == ("" if known else said)


@pytest.mark.parametrize("fps", [0.5, 23.976023976, 59.94005994, 144.0012, 239.7602, 959.04])
def test_every_frame_rate_can_be_written(fps, tmp_path):
    out, black = tmp_path / "out.mp4", np.zeros((48, 64, 3), np.uint8)
    write_video(tmp_path / "probe.mp4", [black])
    with outputs.VideoOutput(out, (64, 48), fps) as written:
        for _ in range(3):
            written.write(black)
    pictures, read = decoded(out)
    assert len(pictures) == 3 and read == pytest.approx(fps, rel=1e-3)


class Loop(Source):
    """A few frames over and over, and the memory of this process at some of them."""

    name, fps, total = "loop", 25.0, 2000

    def __init__(self, pictures, at):
        super().__init__()
        self.pictures, self.resident = pictures, dict.fromkeys(at)

    def frames(self, start=1):
        for number in range(start, self.total + 1):
            if number in self.resident:
                self.resident[number] = psutil.Process().memory_info().rss
            yield number, self.pictures[number % len(self.pictures)].copy()


@pytest.mark.slow
def test_memory_does_not_grow(checkpoint, box, tmp_path, monkeypatch):
    loop = Loop(moving_target(8)[0], at=(500, 2000))
    model = toy_model(depth=2, elimination_blocks=(), template_size=16, search_size=32)
    tracker = Tracker(model, memory=MemoryPolicy(2, (1, 2), 2, 3), device="cpu")
    monkeypatch.setattr(track_video, "open_source", lambda text: loop)
    lines = tmp_path / "out.jsonl"
    request = TrackRequest("loop", checkpoint, box, tmp_path / "out.avi", lines)
    assert track(request, lambda model: tracker) == 0
    assert tracker.target.memory.bank.frames == 3 and len(lines_of(lines)) == 2000
    assert loop.resident[2000] - loop.resident[500] < 20 * 2**20


def test_a_video_of_16_bits_is_shown_by_the_range_of_its_first_frame(tmp_path):
    path, grey = tmp_path / "thermal.mkv", np.tile(np.arange(256, dtype=np.uint16), (128, 1))
    settings = [cv2.VIDEOWRITER_PROP_DEPTH, cv2.CV_16U, cv2.VIDEOWRITER_PROP_IS_COLOR, 0]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"FFV1"), 10, (256, 128), settings)
    if not writer.isOpened():
        pytest.skip("OpenCV has no encoder for 16 bits here")
    for number in range(3):
        writer.write(7000 + 4 * grey + 200 * number)
    writer.release()
    with open_source(str(path)) as source:
        frames = [frame for _, frame in source.frames()]
    assert [int(np.ptp(frame)) for frame in frames] == [255, pytest.approx(205, abs=3), pytest.approx(155, abs=3)]
    assert len(frames) == 3 and len(np.unique(frames[0])) > 200 and "16 bits" in source.notes[0]
    with open_source(str(path)) as source:
        assert np.array_equal(next(source.frames(3))[1], frames[2])


def test_a_video_of_huge_frames_is_not_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.avi", moving_target(3)[0], "MJPG")
    monkeypatch.setattr(sources, "MAX_PIXELS", 100)
    with pytest.raises(DataError, match=r"a.avi: its frames have [0-9]+x[0-9]+ pixels, the most that is read is 100"):
        open_source(str(path))
