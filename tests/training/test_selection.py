"""Validation on test data: how it is told, that nothing is chosen by it, and that a run's record says so."""

import json
import os
import shutil

import numpy as np
import pytest
from helpers_data import write_sequence, write_split
from miniatures import mvtd, nfs, otb, tnl2k, uav123
from training_runs import run_here, toy_stages

from hiptrack.data.benchmarks import NfSDataset, OTBDataset, TNL2KDataset, UAV123Dataset
from hiptrack.data.folders import FolderDataset, MVTDDataset, read_sequence
from hiptrack.data.listing import subfolders
from hiptrack.data.sequence import GOT10K, SequenceDataset
from hiptrack.errors import DataError
from hiptrack.training.checkpoint import best_checkpoint, finished_checkpoints
from hiptrack.training.selection import selection_warning
from hiptrack.training.validation import Validation

FROM_SCRATCH = ["tests/support/toy.gin"]
BOXES = np.array([[1.0, 2, 10, 8], [2, 2, 10, 8], [3, 2, 10, 8]])

pytestmark = pytest.mark.usefixtures("clean_gin")


def warning(data, *training, **settings):
    return selection_warning(Validation(data, **settings), training)


NAMES = """test TEST Test TNL2K_test_subset testing OwnTest LaSOTTest MVTDTest UAVTest OTBtest GOT10KTest lasot-tests
testset test2017 uavtest TESTs"""


@pytest.mark.parametrize("split", NAMES.split())
def test_a_split_that_is_called_test_is_test_data(tmp_path, split):
    write_split(tmp_path / split, {"first": BOXES, "second": BOXES})
    told = warning(FolderDataset(str(tmp_path), split, name="harbour"))
    assert told.startswith(
        f"the validation is on test data (harbour, from the sequence first on): its split is called '{split}'"
    )
    assert "Validation.allow_test_selection = True" in told
    inside = warning(FolderDataset(str(tmp_path / split), name="harbour"))
    assert f"its folder is called '{split}'" in inside


@pytest.mark.parametrize("split", ["val", "latest", "MVTDLatest", "contest_1", "testbed", "train"])
def test_another_split_is_none(tmp_path, split):
    write_split(tmp_path / split, {"first": BOXES})
    assert warning(FolderDataset(str(tmp_path), split)) is None


@pytest.mark.parametrize(
    "write, reader, words",
    [
        (uav123, UAV123Dataset, "bird1_1 on): UAV123Dataset has no split for training"),
        (otb, OTBDataset, "OTBDataset has no split for training"),
        (nfs, NfSDataset, "NfSDataset has no split for training"),
        (mvtd, MVTDDataset, "its split is called 'test'"),
        (tnl2k, lambda root: TNL2KDataset(root, "TNL2K_test_subset"), "its split is called 'TNL2K_test_subset'"),
    ],
)
def test_benchmarks_for_testing_are_test_data(tmp_path, write, reader, words):
    write(tmp_path)
    data = reader(str(tmp_path))
    assert words in warning(data)
    shutil.rmtree(tmp_path)
    absent = selection_warning(Validation(reader(str(tmp_path))), (), may_be_missing=True)
    assert words.rpartition("): ")[2] in absent  # a dry run tells it before the data are there


def test_a_run_without_its_validation_s_data_does_not_begin(synthetic, tmp_path):
    overrides = [line for line in toy_stages(synthetic, tracker=1) if not line.startswith("train.validation")]
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        run_here(FROM_SCRATCH, [*overrides, "eval/FolderDataset.split=nowhere"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


class LabDataset(SequenceDataset):
    """A reader that says nothing of splits."""

    PROTOCOL = GOT10K

    def _names(self):
        return subfolders(self.root)

    def _read_sequence(self, name):
        return read_sequence(os.path.join(self.root, name), name, False)


def test_a_reader_that_says_nothing_of_splits_is_judged_by_its_folder(tmp_path):
    for folder in ("harbour", "test"):
        write_split(tmp_path / folder, {"a": BOXES}, listed=False)
    assert warning(LabDataset(str(tmp_path / "harbour"))) is None
    assert "its folder is called 'test'" in warning(LabDataset(str(tmp_path / "test")))


@pytest.fixture
def parts(tmp_path):
    """train with a, b and c; val with b, another sequence of the same name, and d."""
    write_split(tmp_path / "train", {"a": BOXES, "b": BOXES + 1, "c": BOXES + 2})
    write_split(tmp_path / "val", {"b": BOXES + 7, "d": BOXES + 3}, listed=False)
    return tmp_path


def sets(root):
    return FolderDataset(str(root), "val"), FolderDataset(str(root), "train", name="harbour")


def test_a_sequence_of_the_same_name_is_not_the_same_sequence(parts):
    assert warning(*sets(parts)) is None


def test_what_is_trained_on_too_is_found_by_its_files(parts):
    (parts / "val" / "e").symlink_to(parts / "train" / "c")
    told = warning(*sets(parts))
    assert "its sequence e is in the training data harbour, too" in told
    assert warning(*sets(parts), sequences=2) is None  # only what is tracked counts


def test_what_is_trained_on_too_is_found_where_it_was_copied(parts):
    shutil.copytree(parts / "train" / "a", parts / "val" / "a")
    (parts / "val" / "e").symlink_to(parts / "train" / "c")
    assert "its sequence a is in the training data harbour, too" in warning(*sets(parts))


@pytest.mark.parametrize("kept", [slice(0, 5), slice(3, None), slice(2, 6)], ids=["start", "end", "middle"])
@pytest.mark.parametrize("copied", [False, True], ids=["linked", "copied"])
@pytest.mark.parametrize("cut", ["val", "train"])
def test_a_part_of_a_sequence_that_is_trained_on_is_found(tmp_path, kept, copied, cut):
    """Its frames anew numbered and linked one by one, or copied under the sequence's name; whichever of the two is cut."""
    boxes = np.arange(32.0).reshape(8, 4) + 1
    whole, part = tmp_path / ("train" if cut == "val" else "val"), tmp_path / cut
    write_split(whole, {"a": boxes, "b": boxes + 50}, listed=False)
    write_sequence(part / ("a" if copied else "z"), boxes[kept])
    if not copied:
        images = sorted((whole / "a").glob("*.jpg"))[kept]
        for frame, image in zip(sorted((part / "z").glob("*.jpg")), images, strict=True):
            frame.unlink()
            frame.symlink_to(image)
    assert "is in the training data harbour, too" in warning(*sets(tmp_path))


def test_parts_of_a_folder_that_share_no_frame_are_different_sequences(tmp_path):
    """As UAV123's bird1_1 and bird1_2."""
    boxes = np.arange(32.0).reshape(8, 4) + 1
    write_sequence(tmp_path / "all" / "a", boxes)
    images = sorted((tmp_path / "all" / "a").glob("*.jpg"))
    for split, half in (("train", slice(0, 4)), ("val", slice(4, 8))):
        write_sequence(tmp_path / split / "a", boxes[half])
        for frame, image in zip(sorted((tmp_path / split / "a").glob("*.jpg")), images[half], strict=True):
            frame.unlink()
            frame.symlink_to(image)
    assert warning(*sets(tmp_path)) is None


def test_held_out_sequences_of_the_training_part_are_no_test_data(tmp_path):
    mvtd(tmp_path)
    held_out, rest, whole = (MVTDDataset(str(tmp_path), split) for split in ("val", "train", "train_full"))
    assert warning(held_out, rest) is None
    first = held_out.sequences[0].name
    assert f"its sequence {first} is in the training data" in warning(held_out, whole)


@pytest.mark.parametrize("allowed", [False, True])
def test_weights_are_chosen_on_test_data_only_if_the_user_says_so(synthetic, tmp_path, monkeypatch, capsys, allowed):
    overrides = [line for line in toy_stages(synthetic, tracker=3) if not line.startswith("train.validation")]
    overrides += ["eval/FolderDataset.split=train", "Validation.every=1", "train.keep_checkpoints=1"]
    overrides += ["Validation.allow_test_selection=True"] if allowed else []
    scores = iter((0.7, 0.3, 0.2))
    monkeypatch.setattr(Validation, "__call__", lambda *_: {"AO": next(scores)})
    run = tmp_path / "run"
    assert run_here(FROM_SCRATCH, overrides, run) == 0
    printed = capsys.readouterr()
    told = f"{printed.out}{printed.err}"
    assert "warning: the validation is on test data (" in told and "its sequence world_train_0001 is in the" in told
    assert ("all the same" in told) == allowed and ("the newest are kept" in told) != allowed
    kept = [path.name for path in finished_checkpoints(run / "checkpoints")]
    assert kept == (["step-00000003-end", "step-00000009-end"] if allowed else ["step-00000009-end"])
    assert (best_checkpoint(run / "checkpoints") is not None) == (run / "best.safetensors").exists() == allowed
    assert "world_train_0001" in json.loads((run / "warnings.json").read_text())["selection"]
    assert ("Validation.allow_test_selection = True" in (run / "config.gin").read_text()) == allowed


def test_what_an_earlier_start_chose_on_test_data_is_set_aside(synthetic, tmp_path, monkeypatch, capsys):
    overrides = [line for line in toy_stages(synthetic, tracker=2) if not line.startswith("train.validation")]
    overrides += ["eval/FolderDataset.split=train", "Validation.every=1", "train.keep_checkpoints=1"]
    scores = iter((0.7, 0.3, 0.2, 0.1))
    monkeypatch.setattr(Validation, "__call__", lambda *_: {"AO": next(scores)})
    run = tmp_path / "run"
    assert run_here(FROM_SCRATCH, [*overrides, "Validation.allow_test_selection=True"], run) == 0
    chosen = (run / "best.safetensors").read_bytes()
    capsys.readouterr()
    best = finished_checkpoints(run / "checkpoints")[0]
    longer = [*overrides, "tracker/Stage.epochs=3"]
    assert run_here(FROM_SCRATCH, longer, run, resume=str(best), allow_change=True) == 0
    printed = capsys.readouterr()
    assert (
        "best.safetensors is now called abandoned-best.safetensors: an earlier start" in f"{printed.out}{printed.err}"
    )
    assert (run / "abandoned-best.safetensors").read_bytes() == chosen and not (run / "best.safetensors").exists()
    assert [path.name for path in finished_checkpoints(run / "checkpoints")] == ["step-00000009-end"]
