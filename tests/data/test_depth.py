"""Images of 16 bits a channel: the range of a sequence's first frame holds for all its frames, however they are read."""

import logging

import cv2
import numpy as np
import pytest
from helpers_data import write_lines
from one_sequence import run_sequence

from hiptrack import crops
from hiptrack.data.clips import ClipData, ClipDataset, Geometry
from hiptrack.data.crop_reading import read_crops
from hiptrack.data.depth import LevelRange
from hiptrack.data.folders import FolderDataset
from hiptrack.data.reading import read_image_rgb
from hiptrack.data.sampling import Augmentation
from hiptrack.errors import DataError
from hiptrack.evaluation.baselines import StillBox
from hiptrack.extras.video.sources import open_source
from hiptrack.tracking.tracker import Tracker

FORMS = {"narrow": lambda grey: 7000 + 4 * grey, "14 bits": lambda grey: 40 * grey, "16 bits": lambda grey: 257 * grey}


def scene(number, target=255):
    """A grey picture [60, 80] uint16 of 0 to 200, with a bright target that moves."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 201, (12, 16)).astype(np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC)
    image[10:26, 10 + number : 30 + number] = target
    return image.astype(np.uint16)


def write_frames(folder, images, suffix=".png"):
    folder.mkdir(parents=True)
    for number, image in enumerate(images, 1):
        assert cv2.imwrite(str(folder / f"{number:04d}{suffix}"), image)
    write_lines(folder / "groundtruth.txt", [f"{9 + number},10,20,16" for number in range(1, len(images) + 1)])


@pytest.fixture(params=FORMS)
def deep(request, tmp_path):
    """A sequence of five frames in 16 bits, the third of which has a darker target, and the same in 8 bits."""
    grey = [scene(number, 120 if number == 2 else 255) for number in range(5)]
    write_frames(tmp_path / "deep" / "a", [FORMS[request.param](image).astype(np.uint16) for image in grey])
    write_frames(tmp_path / "plain" / "a", [image.astype(np.uint8) for image in grey])
    return tmp_path


def sequence_of(folder):
    return FolderDataset(str(folder)).sequences[0]


def read(folder):
    frames = sequence_of(folder).frames
    return [read_image_rgb(path, frames[0]) for path in frames]


def test_frames_look_as_in_8_bits(deep):
    for ours, plain in zip(read(deep / "deep"), read(deep / "plain"), strict=True):
        assert ours.dtype == np.uint8 and cv2.absdiff(ours, plain).max() <= 3
        assert np.ptp(ours) > 180


def test_what_is_still_keeps_its_grey_though_a_target_gets_darker(deep):
    frames = read(deep / "deep")
    assert all(np.array_equal(frame[30:], frames[0][30:]) for frame in frames)
    assert int(frames[2][18, 20].max()) < int(frames[1][18, 20].min()) - 100


def test_tracking_a_folder_a_data_set_and_training_see_the_same_pixels(deep):
    sequence, expected, seen = sequence_of(deep / "deep"), read(deep / "deep"), []

    class Sees(StillBox):
        def init(self, frame_rgb, box_xywh):
            seen.append(frame_rgb)
            super().init(frame_rgb, box_xywh)

        def update(self, frame_rgb):
            seen.append(frame_rgb)
            return super().update(frame_rgb)

    run_sequence(Sees(), sequence)
    assert all(map(np.array_equal, seen, expected)) and len(seen) == 5
    with open_source(str(deep / "deep" / "a")) as source:
        assert all(np.array_equal(frame, expected[number - 1]) for number, frame in source.frames(3))
        assert "more than 8 bits" in source.notes[0]
    crop = (sequence.boxes_xywh[2], 3.0, 16)
    (found,) = read_crops(sequence.frames[2], [crop], first=sequence.frames[0])
    assert np.array_equal(found, crops.crop(expected[2], *crop))


def test_training_clips_are_those_of_the_8_bit_frames(deep):
    still = Augmentation(grey=0, flip=0, brightness=0, centre_jitter=0, scale_jitter=0)
    clips = [
        ClipDataset(ClipData([FolderDataset(str(deep / kind))], augmentation=still), Geometry(32, 48, 2.0, 3.0), 0, 0)
        for kind in ("deep", "plain")
    ]
    for index in range(4):
        ours, plain = (clip[0, index] for clip in clips)
        for name in ("template", "search"):
            assert (ours[name].int() - plain[name].int()).abs().max() <= 3


def test_dead_pixels_do_not_flatten_the_picture():
    first = 7000 + 4 * scene(0)
    first[0, 0], first[5, 7], first[50, 50] = 0, 65535, 65535
    assert np.ptp(LevelRange(first)(first)[1:]) > 180


def test_a_flat_frame_and_few_levels_are_not_stretched():
    flat = np.full((10, 10), 500, np.uint16)
    assert np.ptp(LevelRange(flat)(flat)) == 0
    levels = LevelRange(np.arange(500, 520, dtype=np.uint16))
    assert np.diff(levels(np.arange(500, 520, dtype=np.uint16)).astype(int)).max() == 1


def test_a_frame_beyond_the_range_is_told_once(caplog):
    levels = LevelRange(7000 + 4 * scene(0), "hot.png")
    levels(7000 + 4 * scene(1))
    assert caplog.text == ""
    for _ in range(2):
        levels(9000 + 4 * scene(1))
    assert caplog.text.count("hot.png: ") == 1 and "outside the range of its first frame" in caplog.text


def test_colours_keep_their_balance(tmp_path):
    colours = np.zeros((40, 40, 3), np.uint16)
    colours[..., 0], colours[..., 1], colours[20:, :, 2] = 4000, 8000, 40_000
    write_frames(tmp_path / "a", [colours] * 2)
    blue, green, red = read_image_rgb(str(tmp_path / "a" / "0001.png"))[30, 30][::-1].astype(int)
    assert blue < green < red == 255 and abs(green - 2 * blue) <= 30


@pytest.mark.parametrize("odd", ["first", "later"])
def test_8_and_16_bits_in_one_sequence_are_an_error(tmp_path, odd):
    images = [scene(0).astype(np.uint8), 40 * scene(1)]
    write_frames(tmp_path / "a", images if odd == "first" else images[::-1])
    first, second = sequence_of(tmp_path).frames
    with pytest.raises(DataError, match=r"0002.png: the image has (8|16) bits a channel, the first frame .*0001.png"):
        read_image_rgb(second, first)


def test_other_files_that_hold_16_bits_and_floats(tmp_path):
    _, tiff = cv2.imencode(".tiff", 7000 + 4 * scene(0))
    _, floats = cv2.imencode(".pfm", scene(0).astype(np.float32))
    (tmp_path / "a.png").write_bytes(tiff.tobytes())
    (tmp_path / "b.png").write_bytes(floats.tobytes())
    assert np.ptp(read_image_rgb(str(tmp_path / "a.png"))) > 180
    with pytest.raises(DataError, match="b.png: the image has values of the type float32. Expected 8 or 16 bits"):
        read_image_rgb(str(tmp_path / "b.png"))


def test_images_of_few_bits_are_read_as_they_are(tmp_path):
    black_and_white = np.zeros((20, 20), np.uint8)
    black_and_white[:10] = 255
    assert cv2.imwrite(str(tmp_path / "a.png"), black_and_white, [cv2.IMWRITE_PNG_BILEVEL, 1])
    path = str(tmp_path / "a.png")
    assert read_image_rgb(path, path)[..., 0].tolist() == black_and_white.tolist()


def test_the_log_says_it_once_a_data_set(deep, caplog):
    with caplog.at_level(logging.INFO):
        dataset = FolderDataset(str(deep / "deep"), name="thermal")
        _ = dataset.sequences, dataset.sequences
        _ = FolderDataset(str(deep / "plain"), name="camera").sequences
    assert caplog.text.count("thermal: images of more than 8 bits a channel") == 1
    assert "camera: images" not in caplog.text


def test_a_tracker_names_the_helper_for_such_frames():
    tracker, frame = Tracker.nano(device="cpu"), np.repeat(7000 + 4 * scene(0)[..., None], 3, 2)
    with pytest.raises(DataError, match="not uint16 .*LevelRange turns 16 bits into 8"):
        tracker.init(frame, (10, 10, 20, 16))
    tracker.init(LevelRange(frame)(frame), (10, 10, 20, 16))
    with pytest.raises(DataError, match="values of the type uint8. Expected uint16"):
        LevelRange(frame)(frame.astype(np.uint8))
