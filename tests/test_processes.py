"""The processes of a launch, and how they end."""

import sys

import pytest
from training_runs import launch


@pytest.mark.skipif(sys.platform != "linux", reason="/proc names the threads")
def test_no_thread_of_the_process_group_outlives_it():
    """A joinable one at the interpreter's end may abort the process, after all was done well."""
    done = launch([], 2, "tests/support/ending.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left: []") == 2
