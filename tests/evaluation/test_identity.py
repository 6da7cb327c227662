"""Results are of the images and the code that they were made of: what changes their identity, and what does not."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import hiptrack
from hiptrack.data.listing import FramePaths
from hiptrack.data.sequence import Sequence
from hiptrack.errors import DataError
from hiptrack.evaluation import identity
from hiptrack.evaluation.identity import TRACKING, code_identity, sequence_identity

NAMES = [f"{number:08d}.jpg" for number in range(1, 8)]


def sequence(folder, names=NAMES, box=(1, 2, 30, 40)):
    return Sequence("a", FramePaths(str(folder), names), np.array([box], float), np.ones(len(names), bool), None)


@pytest.fixture
def folder(tmp_path):
    """Seven images of one size."""
    (tmp_path / "a").mkdir()
    for number, name in enumerate(NAMES):
        (tmp_path / "a" / name).write_bytes(bytes([number] * 10))
    return tmp_path / "a"


@pytest.mark.parametrize("number", range(7))
def test_other_content_of_one_image_shows_whatever_its_size_and_time(folder, number):
    before, image = sequence_identity(sequence(folder)), folder / NAMES[number]
    status = image.stat()
    image.write_bytes(b"x" * 10)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert sequence_identity(sequence(folder)) != before


def test_an_image_more_another_order_and_another_box_show(folder):
    turned = [*NAMES[2::-1], *NAMES[3:]]
    others = [sequence(folder, NAMES[:6]), sequence(folder, turned), sequence(folder, box=(1, 2, 30, 40.0001))]
    assert len({sequence_identity(some) for some in (sequence(folder), *others)}) == 4


def test_where_the_images_lie_and_their_times_do_not_show(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "b", copy_function=shutil.copyfile)
    os.utime(tmp_path / "b" / NAMES[0], ns=(5, 5))
    assert sequence_identity(sequence(tmp_path / "b")) == sequence_identity(sequence(folder))


def test_an_image_that_is_gone_or_a_pipe_is_named(folder):
    (folder / NAMES[1]).unlink()
    with pytest.raises(DataError, match=r"00000002\.jpg: the image cannot be read"):
        sequence_identity(sequence(folder))
    os.mkfifo(folder / NAMES[1])
    with pytest.raises(DataError, match=r"00000002\.jpg: the image cannot be read \(not a regular file\)"):
        sequence_identity(sequence(folder))


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
