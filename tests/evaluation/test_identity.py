"""Results are of the images and the code that they were made of: what changes their identity, and what does not."""

import os
import shutil
from pathlib import Path

import pytest

import hiptrack
from hiptrack.data.reading import FramePaths
from hiptrack.errors import DataError
from hiptrack.evaluation import identity
from hiptrack.evaluation.identity import TRACKING, code_identity, images_identity

NAMES = [f"{number:08d}.jpg" for number in range(1, 8)]
TIME = 1_700_000_000 * 10**9 + 5


@pytest.fixture
def frames(tmp_path):
    """Seven images of one size and time."""
    (tmp_path / "a").mkdir()
    for number, name in enumerate(NAMES):
        put(tmp_path / "a" / name, bytes([number] * 10))
    return FramePaths(str(tmp_path / "a"), NAMES)


def put(path, content, time=TIME):
    Path(path).write_bytes(content)
    os.utime(path, ns=(time, time))


@pytest.mark.parametrize("number", [0, 3, 6])
def test_other_content_of_the_first_the_middle_and_the_last_image_shows_whatever_its_time(frames, number):
    before = images_identity(frames)
    put(frames[number], b"x" * 10)
    assert images_identity(frames) != before


def test_size_or_time_of_any_image_shows(frames):
    before = images_identity(frames)
    put(frames[1], b"x" * 11)
    longer = images_identity(frames)
    put(frames[1], bytes([1] * 10), TIME + 1)
    assert len({before, longer, images_identity(frames)}) == 3
    put(frames[1], bytes([1] * 10))
    assert images_identity(frames) == before


def test_an_image_more_or_another_order_shows(frames):
    shorter, turned = frames[:6], [*frames[2::-1], *frames[3:]]
    assert len({images_identity(some) for some in (frames, shorter, turned)}) == 3


def test_where_the_images_lie_does_not_show(frames, tmp_path):
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # with their times
    assert images_identity(FramePaths(str(tmp_path / "b"), NAMES)) == images_identity(tuple(frames))


def test_an_image_that_is_gone_or_a_pipe_is_named(frames):
    os.unlink(frames[1])
    with pytest.raises(DataError, match=r"00000002\.jpg: the image cannot be read"):
        images_identity(frames)
    os.mkfifo(frames[1])
    os.unlink(frames[0])
    os.mkfifo(frames[0])
    with pytest.raises(DataError, match=r"00000001\.jpg: the image cannot be read \(not a regular file\)"):
        images_identity(frames)


def test_the_code_is_its_version_and_the_files_that_decide_a_track(tmp_path, monkeypatch):
    package = tmp_path / "hiptrack"
    shutil.copytree(Path(hiptrack.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "nano"))
    monkeypatch.setattr(identity.hiptrack, "__file__", str(package / "__init__.py"))
    found = code_identity.__wrapped__
    before = found()
    assert before.startswith(f"{hiptrack.__version__} ")
    for file in ("models/heads.py", "tracking/memory.py", "crops.py", "data/reading.py"):
        (package / file).write_text((package / file).read_text() + "\n# another\n")
        before, earlier = found(), before
        assert before != earlier, file
    (package / "training" / "train.py").write_text("another way to train")
    assert found() == before
    monkeypatch.setattr(identity.hiptrack, "__version__", "99")
    assert found() != before


def test_each_of_the_files_that_decide_is_there():
    folder = Path(hiptrack.__file__).parent
    assert all(list(folder.glob(pattern)) for pattern in TRACKING)
