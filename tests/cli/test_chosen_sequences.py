"""--include and --exclude of every command that reads a data set, and errors that name what the command understands."""

import importlib
import logging

import pytest
from helpers_data import write_sequence, write_split

from hiptrack.data.benchmarks import open_benchmark
from hiptrack.data.folders import FolderDataset
from hiptrack.errors import ConfigError, DataError
from hiptrack.extras.sweep.plan import EvaluationData

pytestmark = pytest.mark.usefixtures("clean_gin")
BOXES = [(1, 2, 10, 8), (2, 2, 10, 8)]


class Reached(Exception):
    """Ends a command with the names of the sequences that it read."""

    def __init__(self, sequences):
        self.names = [sequence.name for sequence in sequences]


# {command: (its module, its words before the choice, what is replaced, which of what that is called with are the sequences)}
COMMANDS = {
    "eval": (
        "eval",
        "--checkpoint nano --root {}",
        "hiptrack.evaluation.evaluate.evaluate",
        lambda o: o.dataset.sequences,
    ),
    "report": (
        "report",
        "results --root {}",
        "hiptrack.evaluation.score.read_back",
        lambda _, data, __: data.sequences,
    ),
    "rank-hard": (
        "rank_hard",
        "--checkpoint nano --root {}",
        "hiptrack.evaluation.rank.rank_frames",
        lambda _, sequences, *__: sequences,
    ),
    "compare-opencv": (
        "compare_opencv",
        "{}",
        "hiptrack.evaluation.score.evaluate_sequences",
        lambda _, sequences: sequences,
    ),
    "submit-check": (
        "submit_check",
        "none.zip --root {}/.. --split set",
        "hiptrack.cli.submit_check.expected_of",
        lambda sequences: sequences,
    ),
}


@pytest.fixture
def root(tmp_path):
    """A data set of three sequences, the second of which has no images."""
    write_split(tmp_path / "set", {"a": BOXES, "no images": BOXES, "z": BOXES}, listed=False)
    for image in (tmp_path / "set" / "no images").glob("*.jpg"):
        image.unlink()
    return tmp_path / "set"


@pytest.fixture
def read(root, monkeypatch):
    """read(command, *words): the names of the sequences that a command reads."""

    def run(command, *words):
        module, before, replaced, sequences = COMMANDS[command]

        def reached(*arguments):
            raise Reached(sequences(*arguments))

        main = importlib.import_module(f"hiptrack.cli.{module}").main
        monkeypatch.setattr("sys.argv", [f"hiptrack {command}", *before.format(root).split(), *words])
        monkeypatch.setattr(replaced, reached)
        monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
        with pytest.raises(Reached) as end:
            main()
        return end.value.names

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_a_sequence_with_a_defect_is_left_out_as_its_error_says(command, read):
    with pytest.raises(
        DataError, match="no images: no images.*To go on without this sequence: --exclude 'no images'.$"
    ):
        read(command)
    assert read(command, "--exclude", "no images") == ["a", "z"]
    assert read(command, "--exclude", "z", "no images") == read(command, "--include", "a") == ["a"]
    with pytest.raises(DataError, match="--exclude names 'zz', which is no sequence of the data set.*'z'"):
        read(command, "--exclude", "no images", "--exclude", "zz")


def test_a_sweep_hands_the_choice_on():
    data = EvaluationData("root", "val", include=["a", "b c"], exclude=["d"])
    assert data.arguments() == ["--root", "root", "--split", "val", "--include", "a", "b c", "--exclude", "d"]


@pytest.mark.parametrize(
    "module, words",
    [("sweep", ["--gin", "experiments/demo.gin", "--exclude", "a"]), ("submit_check", ["a.zip", "--include", "a"])],
)
def test_a_choice_without_data_is_an_error(module, words, monkeypatch):
    monkeypatch.setattr("sys.argv", [f"hiptrack {module}", *words])
    with pytest.raises(ConfigError, match="--include and --exclude .* missing"):
        importlib.import_module(f"hiptrack.cli.{module}").main()


def test_a_configuration_is_told_its_own_parameters(root):
    with pytest.raises(DataError, match=r"To go on without this sequence: FolderDataset.exclude = \['no images'\].$"):
        _ = FolderDataset(str(root)).sequences
    with pytest.raises(DataError, match="FolderDataset.exclude names 'y'"):
        _ = FolderDataset(str(root), exclude=["y"]).sequences


@pytest.mark.parametrize(
    "options, message",
    [
        ({"root": "none"}, "none: the data root does not exist.*set ROOT to where"),
        ({"split": "trian"}, "'set'.* Correct ROOT or --split."),
        ({"annotations": "none"}, "set --annotations to it"),
        ({"exclude": ["a"], "include": ["a"], "split": "set"}, "--include and --exclude leave none of the 3 sequences"),
    ],
)
def test_a_command_is_told_its_own_options(root, options, message):
    with pytest.raises(DataError, match=message):
        _ = open_benchmark("folder", **{"root": str(root.parent), **options}).sequences


def test_a_command_is_told_no_option_that_it_lacks(tmp_path):
    with pytest.raises(DataError, match="TRAIN_0: there is no such folder.* Correct ROOT.$"):
        _ = open_benchmark("trackingnet", str(tmp_path), "train").sequences


def test_who_chose_the_data_is_no_difference_between_data_sets(tmp_path):
    write_sequence(tmp_path / "a", BOXES)
    read, chosen = {}, open_benchmark("folder", str(tmp_path))
    FolderDataset(str(tmp_path)).share(read)
    chosen.share(read)
    assert len(read) == 1
