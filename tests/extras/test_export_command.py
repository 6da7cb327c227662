"""The command that exports, and what it refuses."""

import json
import re
import sys

import cv2
import numpy as np
import pytest
import torch
from export_models import special_model
from toy import moving_target, save_toy, toy_model

from hiptrack.cli import console
from hiptrack.config import REPO_ROOT
from hiptrack.errors import ConfigError, HiptrackError
from hiptrack.extras.export.formats import FORMATS
from hiptrack.extras.export.graphs import build_graphs
from hiptrack.extras.export.write import example_tensors, export, inputs_of

PIXELS = 1e-2


@pytest.fixture
def hiptrack(monkeypatch, capfd, clean_gin):
    """Runs a command in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hiptrack", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            console()
        return ended.value.code or 0, *capfd.readouterr()

    return run


def test_the_command_exports_and_the_video_tracker_takes_the_folder(tmp_path, hiptrack):
    save_toy(tmp_path / "model.safetensors", challenge="ChallengeBranch")
    weights, folder = tmp_path / "model.safetensors", tmp_path / "exports" / "toy"
    code, out, err = hiptrack("export", "--checkpoint", weights, "--out", folder, "--memory", 2, "--branch", "on")
    assert code == 0 and "Warning" not in err
    assert "step-2, 2 of 2 slots used: differs from PyTorch by at most" in out and f"wrote {folder}" in out
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]
    pictures, box = moving_target(6)
    (tmp_path / "film").mkdir()
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / "film" / f"{number}.png"), picture[..., ::-1])
    boxes = []
    for checkpoint in (weights, folder):
        lines = tmp_path / f"{checkpoint.name}.jsonl"
        given = ["track", tmp_path / "film", "--checkpoint", checkpoint, "--jsonl", lines]
        given += ["--box", ",".join(map(str, box))]
        bindings = ["Tracker.branch=on"] if checkpoint == weights else []  # the folder has its own
        assert hiptrack(*given, *bindings)[0] == 0
        boxes.append([json.loads(line)["box"] for line in lines.read_text().splitlines()])
    assert np.abs(np.array(boxes[0]) - np.array(boxes[1])).max() < PIXELS
    assert "challenge" in json.loads(lines.read_text().splitlines()[1])
    code, _, err = hiptrack(*given, "Tracker.branch=on")
    assert code == 1 and f"{folder} tracks as it was exported: Tracker.branch=on can change nothing" in err
    kept = (folder / "tracker.json").read_bytes()
    code, _, err = hiptrack(*given, "--jsonl", folder / "tracker.json")
    assert code == 1 and "tracker.json is a file of the export. Expected another path" in err
    assert (folder / "tracker.json").read_bytes() == kept
    code, _, err = hiptrack("export", "--checkpoint", weights, "--out", folder)
    assert code == 1 and f"{folder} is there and not empty" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--checkpoint", "nothing.safetensors"], 1, "not found: nothing.safetensors"),
        (["--checkpoint", REPO_ROOT / "README.md"], 1, "README.md"),
        (["--checkpoint", "x.safetensors", "--format", "onxx"], 2, "invalid choice: 'onxx'"),
        (["--checkpoint", "x.safetensors", "--memory", "many"], 2, "invalid int value: 'many'"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, hiptrack, arguments, code, said):
    exit_code, _, err = hiptrack("export", "--out", tmp_path / "out", *arguments)
    assert exit_code == code and said in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"form": "onxx"}, 'Did you mean "onnx"'),
        ({"branch": "fold"}, 'Did you mean "folded"'),
        ({"capacities": [0]}, "--memory 0: 1 to 1000"),
        ({"capacities": [20, -3]}, "--memory -3: 1 to 1000"),
        ({"capacities": [10**9]}, "1 to 1000 frames"),
        ({"capacities": []}, "1 to 1000 frames"),
        ({"branch": "on"}, "without a challenge branch"),
        ({"branch": "folded"}, "without a challenge branch"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        export(toy_model(), tmp_path / "out", **changes)
    assert not list(tmp_path.iterdir())


def test_a_fusion_that_is_no_constant_cannot_be_folded(tmp_path):
    with pytest.raises(ConfigError, match="AttentionFusion"):
        export(special_model(), tmp_path / "out", branch="folded")


def test_files_that_are_there_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ConfigError, match="is there and not empty"):
            export(toy_model(), out, "torch", [1])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_taken_by_whatever_name(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    export(toy_model(), tmp_path / "link", "torch", [1], say=lambda line: None)
    assert (tmp_path / "empty" / "tracker.json").is_file() and (tmp_path / "link").is_symlink()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export(toy_model(), ".", "torch", [1], say=lambda line: None)
    assert (tmp_path / "here" / "tracker.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "here", "link"]


def test_a_full_disk_is_an_error_not_the_end_of_the_process():
    graphs = build_graphs(toy_model(), [2])
    with torch.no_grad(), pytest.raises(OSError, match="No space left on device"):
        FORMATS["torch"].write(graphs[0], inputs_of(graphs[0], example_tensors(graphs)), "/dev/full")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HiptrackError, match=f"{tmp_path}/file/out cannot be written"):
        export(toy_model(), tmp_path / "file" / "out", "torch", [1])


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        HiptrackError, match=re.escape("onnxscript") + ".*" + re.escape("pip install 'hiptrack[export]'")
    ):
        export(toy_model(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", [2e-3, torch.nan])
def test_a_graph_that_says_something_else_is_an_error(tmp_path, monkeypatch, fault):
    class Faulty(type(FORMATS["torch"])):
        def load(self, path):
            run = super().load(path)
            return lambda *given: tuple(t + fault if "step" in path.name and t.ndim == 2 else t for t in run(*given))

    monkeypatch.setitem(FORMATS, "torch", Faulty())
    with pytest.raises(HiptrackError, match=r"step-1.pt2 differs from PyTorch by \S+ in box_cxcywh"):
        export(toy_model(), tmp_path / "out", "torch", [1])
    assert not list(tmp_path.iterdir())
