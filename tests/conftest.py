"""Fixtures that several test files share."""

import gin
import pytest

from hiptrack.extras.world.sea_files import write_dataset


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """A tiny synthetic data set: 5 training and 2 validation sequences with annotations."""
    root = tmp_path_factory.mktemp("synthetic")
    write_dataset(str(root), "train", 5, 14, (160, 120), 0)
    write_dataset(str(root), "val", 2, 14, (160, 120), 0)
    return root


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """No test, nor a process that it starts, touches the user's cache of annotations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIPTRACK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def clean_gin():
    """gin without configuration, before and after."""
    gin.clear_config()
    yield
    gin.clear_config()
