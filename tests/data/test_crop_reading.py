"""Crops read from files: those of the whole image, whatever was left out in decoding it."""

import cv2
import numpy as np
import pytest
from helpers_data import CLIPS

from hiptrack import crops
from hiptrack.data import crop_reading
from hiptrack.data.crop_reading import read_crops
from hiptrack.data.folders import FolderDataset
from hiptrack.data.reading import read_image_rgb
from hiptrack.errors import DataError

SUBSAMPLINGS = [
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
]
LESS = 3.0  # grey levels that a crop of a reduced decoding may differ by in the mean


def write_jpeg(path, image, *options):
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 92, *options])
    return str(path)


def picture(width, height, seed=0):
    """A picture with detail at every scale, as in nature: its amplitude grows with the scale. Without black."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.float32)
    for cell in (2, 4, 8, 16, 32, 64):
        noise = rng.standard_normal((height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * (1.5 * cell**0.5)
    return np.clip(image, 30, 255).astype(np.uint8)


def of_whole(path, *wanted):
    image = read_image_rgb(path)
    return [crops.crop(image, *crop) for crop in wanted]


@pytest.fixture
def decoded(monkeypatch):
    """The flags and sizes (width, height) of the images that are decoded, in order."""
    seen, decode = [], crop_reading.decode_bgr

    def watched(path, data, flags=cv2.IMREAD_COLOR):
        image = decode(path, data, flags)
        seen.append((flags, image.shape[1::-1]))
        return image

    monkeypatch.setattr(crop_reading, "decode_bgr", watched)
    return seen


# Whole decoding


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_a_crop_is_that_of_the_whole_image_to_the_bit_though_decoding_stops_below_it(tmp_path, subsampling, decoded):
    path = write_jpeg(tmp_path / "a.jpg", picture(161, 123), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, subsampling)
    for bottom in range(8, 123, 5):
        crop = ((40.0, bottom - 8.0, 8.0, 8.0), 2.0, 16)  # reaches 4 px further down
        (found,) = read_crops(path, [crop])
        assert np.array_equal(found, of_whole(path, crop)[0])
        assert decoded[-1][1][1] <= bottom + 8
    assert decoded[0][1] == (161, 16)


@pytest.mark.parametrize("reduce", [True, False])
def test_several_crops_of_a_file_are_decoded_once_as_the_finest_of_them_needs_it(tmp_path, reduce, decoded):
    path = write_jpeg(tmp_path / "a.jpg", picture(320, 240))
    wanted = [
        ((100.0, 80.0, 60.0, 60.0), 4.0, 32),
        ((20.0, 30.0, 20.0, 20.0), 2.0, 32),
        ((10.0, 10.0, 30.0, 30.0), 4.0, 64),
    ]
    found = read_crops(path, wanted, reduce)
    assert len(decoded) == 1
    assert all(map(np.array_equal, found, of_whole(path, *wanted)))


def test_without_reduction_the_pixels_are_those_of_the_whole_image(tmp_path):
    path, crop = write_jpeg(tmp_path / "a.jpg", picture(320, 240)), ((100.0, 80.0, 60.0, 60.0), 4.0, 32)
    assert np.array_equal(read_crops(path, [crop], reduce=False)[0], of_whole(path, crop)[0])
    assert not np.array_equal(read_crops(path, [crop])[0], of_whole(path, crop)[0])


def with_exif(data):
    """A JPEG that says that it is to be turned by a right angle."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


def test_files_of_other_kinds_are_decoded_as_a_whole(tmp_path, capfd):
    image, crop = picture(320, 240), ((100.0, 20.0, 60.0, 60.0), 2.0, 30)
    paths = [str(tmp_path / name) for name in ("a.png", "a.bmp", "turned.jpg", "progressive.jpg", "restarts.jpg")]
    assert cv2.imwrite(paths[0], image) and cv2.imwrite(paths[1], image)
    (tmp_path / "turned.jpg").write_bytes(with_exif(cv2.imencode(".jpg", image)[1].tobytes()))
    write_jpeg(paths[3], image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    write_jpeg(paths[4], image, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    for path in paths:
        assert np.array_equal(read_crops(path, [crop], reduce=False)[0], of_whole(path, crop)[0]), path
    assert read_image_rgb(paths[2]).shape == (320, 240, 3)
    assert np.array_equal(read_crops(paths[2], [crop])[0], of_whole(paths[2], crop)[0])
    for path in paths[3:]:  # these can be reduced, but not cut
        assert difference(path, crop) < LESS
    assert capfd.readouterr().err == ""  # libjpeg has nothing to complain of


def test_a_grey_file_gives_crops_of_three_channels(tmp_path):
    path = write_jpeg(tmp_path / "a.jpg", picture(320, 240)[..., 0])
    for crop in [((100.0, 80.0, 20.0, 20.0), 2.0, 32), ((100.0, 80.0, 60.0, 60.0), 4.0, 32)]:
        (found,) = read_crops(path, [crop])
        assert found.shape == (32, 32, 3) and difference(path, crop) < LESS


# Reduced decoding


def difference(path, crop):
    """Mean absolute difference to the crop of the whole image, in grey levels."""
    return cv2.absdiff(read_crops(path, [crop])[0], of_whole(path, crop)[0]).mean()


@pytest.mark.parametrize("side, flags", [(127, cv2.IMREAD_COLOR), (128, cv2.IMREAD_REDUCED_COLOR_2)])
def test_an_image_is_reduced_from_where_the_crop_shrinks_it_by_two(tmp_path, decoded, side, flags):
    path = write_jpeg(tmp_path / "a.jpg", picture(640, 480))
    read_crops(path, [((200.0, 200.0, side / 4, side / 4), 4.0, 64)])
    assert decoded[0][0] == flags


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("size", [(800, 600), (799, 597), (801, 602), (803, 599)])
def test_marks_lie_where_they_lie_in_the_crop_of_the_whole_image(tmp_path, size, reduction):
    rng = np.random.default_rng(reduction)
    width, height = size
    for number in range(6):
        side = rng.uniform(1.0, 1.9) * reduction * 32
        centre = rng.uniform(0.2, 0.8, 2) * size if number else np.array(size) - side / 5  # also at the far corner
        around = (*(centre - side / 8), side / 4, side / 4)
        mark = centre + rng.uniform(-0.15, 0.15, 2) * side
        rows, columns = np.mgrid[:height, :width]
        spot = np.exp(-((columns - mark[0]) ** 2 + (rows - mark[1]) ** 2) / (2 * (1.5 * reduction) ** 2))
        path = write_jpeg(tmp_path / "a.jpg", np.repeat((240 * spot)[..., None], 3, 2).astype(np.uint8))
        crop = (around, 4.0, 32)
        places = [centre_of(image) for image in (read_crops(path, [crop])[0], of_whole(path, crop)[0])]
        assert np.abs(places[0] - places[1]).max() < 0.1  # pixels of the crop


def centre_of(image):
    weights = np.where(image[..., 0] > 20, image[..., 0], 0).astype(float)
    return np.array([(weights.sum(axis) * np.arange(32)).sum() for axis in (0, 1)]) / weights.sum()


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("size", [(800, 600), (797, 595), (798, 593), (801, 601)])
def test_reduced_crops_and_their_black_borders_are_those_of_the_whole_image(tmp_path, size, reduction):
    path = write_jpeg(tmp_path / "a.jpg", picture(*size))
    width, height = size
    side = 1.3 * reduction * 48 / 4  # of the box
    middle, far_x, far_y = 0.5 * height - side / 2, width - side, height - side
    places = [
        (0.4 * width, middle),
        (-side / 2, middle),
        (far_x, middle),
        (0.3 * width, -side / 2),
        (0.3 * width, far_y),
    ]
    places += [
        (far_x + side / 2, far_y + side / 2),
        (1.5 * side, 1.5 * side),
        (width - 2.5 * side, height - 2.5 * side),
    ]
    for place in places:
        crop = ((*place, side, side), 4.0, 48)
        ours, whole = read_crops(path, [crop])[0], of_whole(path, crop)[0]
        assert cv2.absdiff(ours, whole).mean() < LESS
        for axis in (0, 1):  # the border lies in the same place: its blend of black and picture has the same brightness
            profiles = [image.mean((axis, 2)) for image in (ours, whole)]
            assert np.abs(profiles[0] - profiles[1]).max() < 4


def test_a_crop_far_larger_than_the_image_shows_it_in_its_place(tmp_path):
    path, crop = write_jpeg(tmp_path / "a.jpg", picture(320, 240)), ((10.0, -500.0, 900.0, 700.0), 5.0, 64)
    assert difference(path, crop) < LESS
    assert (read_crops(path, [crop])[0] > 0).any()


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not here")
def test_reduced_crops_of_real_clips_differ_by_less_than_three_grey_levels():
    reduced, differences = 0, []
    for sequence in FolderDataset(str(CLIPS), "val").sequences:
        for frame in range(0, len(sequence), 15):
            crop = (sequence.boxes_xywh[frame], 5.0, 96)
            reduced += crops.crop_side(*crop[:2]) >= 2 * 96
            differences.append(difference(sequence.frames[frame], crop))
    assert reduced > 30
    assert np.mean(differences) < LESS and np.max(differences) < 2 * LESS


# What is wrong


@pytest.mark.parametrize("box", [(-90.0, 10.0, 8.0, 8.0), (10.0, 10.0, 0.0, 5.0), (10.0, 10.0, np.nan, 5.0)])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_crop_that_shows_nothing(tmp_path, name, box):
    assert cv2.imwrite(str(tmp_path / name), picture(80, 60))
    with pytest.raises(crops.EmptyCrop, match="shows nothing of the 80x60 image"):
        read_crops(str(tmp_path / name), [(box, 2.0, 16)])


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_cut_file_is_an_error_even_where_the_crop_lies_before_the_cut(tmp_path, share):
    path = write_jpeg(tmp_path / "a.jpg", picture(320, 240))
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match="a.jpg: the image is damaged or cut off"):
        read_crops(path, [((10.0, 10.0, 8.0, 8.0), 2.0, 16)])


def test_any_damage_gives_crops_or_an_error(tmp_path):
    path, rng = write_jpeg(tmp_path / "a.jpg", picture(160, 120)), np.random.default_rng(0)
    data = (tmp_path / "a.jpg").read_bytes()
    read = 0
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, 700, 3):  # the head is the first 623 bytes
            damaged[place] = rng.integers(256)
        (tmp_path / "a.jpg").write_bytes(damaged)
        try:
            (crop,) = read_crops(path, [((60.0, 40.0, 30.0, 30.0), 4.0, 32)])
        except (DataError, cv2.error):
            continue
        read += 1
        assert crop.shape == (32, 32, 3)
    assert 0 < read < 300
