"""Fixtures that several test files share."""

import inspect
from pathlib import Path

import gin
import pytest

from hiptrack.extras.world.files import write_world

TESTS = Path(__file__).parent


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """A tiny synthetic data set: 5 training and 2 validation sequences with annotations."""
    root = tmp_path_factory.mktemp("synthetic")
    write_world(str(root), "train", 5, 14, (160, 120), 0, sea=1.0)
    write_world(str(root), "val", 2, 14, (160, 120), 0, sea=1.0)
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


# A test is slow that can reach one of these: it starts a process, or trains a run.
STARTERS = {("subprocess", "run"), ("subprocess", "Popen"), ("training_runs", "launch"), ("training_runs", "run_here")}
# So is what computes for long in the test's own process.
LONG = {
    "test_benchmark_train.py",
    "test_every_parameter.py",
    "test_export.py",
    "test_export_command.py",
    "test_export_golden.py",
    "test_fuzz.py",
    "test_golden.py",
    "test_nano.py",
    "test_soak.py",
    "test_world_files.py",
}


def pytest_collection_modifyitems(items):
    """Mark tests `slow`; `make test-fast` leaves them out."""
    for item in items:
        fixtures = [fixture.func for found in item._fixtureinfo.name2fixturedefs.values() for fixture in found]
        if item.path.name in LONG or any(starts(function, set()) for function in (item.function, *fixtures)):
            item.add_marker(pytest.mark.slow)


def starts(function, seen):
    """Whether a function of the tests names one of STARTERS, or another function of the tests that does."""
    function = inspect.unwrap(function)
    if not inspect.isfunction(function) or function in seen or TESTS not in Path(function.__code__.co_filename).parents:
        return False
    seen.add(function)
    if (function.__module__, function.__name__) in STARTERS:
        return True
    names = names_in(function.__code__)
    called = [value for name, value in function.__globals__.items() if name in names]
    modules = {value.__name__ for value in called if inspect.ismodule(value)}
    return any((module, name) in STARTERS for module in modules for name in names) or any(
        starts(value, seen) for value in called if callable(value)
    )


def names_in(code):
    """The names that a code object and those within it use."""
    inner = [part for part in code.co_consts if inspect.iscode(part)]
    return set(code.co_names).union(*map(names_in, inner))
