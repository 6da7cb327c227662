"""tools/eval.py on benchmarks other than GOT-10k."""

import importlib.util
import json
import sys

import miniatures
import pytest
from accelerate.state import AcceleratorState
from helpers_data import write_image
from toy import save_toy

from hiptrack.config import REPO_ROOT
from hiptrack.errors import ConfigError, DataError


@pytest.fixture
def run_eval(tmp_path, monkeypatch, clean_gin):
    """run_eval(benchmark, *more): tools/eval.py in this process, on a miniature; returns its exit code."""
    save_toy(tmp_path / "toy.safetensors")
    spec = importlib.util.spec_from_file_location("tools_eval", REPO_ROOT / "tools" / "eval.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def run(benchmark, *more):
        getattr(miniatures, benchmark)(tmp_path / benchmark)
        for path in (tmp_path / benchmark).rglob("*.jpg"):
            write_image(path, 64, 48)
        arguments = ["--checkpoint", str(tmp_path / "toy.safetensors"), "--root", str(tmp_path / benchmark)]
        arguments += ["--dataset", benchmark, "--out", str(tmp_path / f"out-{benchmark}"), *more]
        monkeypatch.setattr(sys, "argv", ["eval.py", *arguments])
        return tool.main()

    yield run
    AcceleratorState._reset_state(reset_partial_state=True)


def table(capsys):
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_benchmark_s_own_numbers_are_printed_and_reported(run_eval, tmp_path, capsys):
    assert run_eval("lasot") == 0
    assert ["sequence", "frames", "AUC", "P_norm0.2", "P"] in [row[:5] for row in table(capsys)]
    report = json.loads((tmp_path / "out-lasot" / "report.json").read_text())
    assert set(report["sequences"]) == {"airplane-1", "airplane-13", "bear-2", "rubicCube-1"}
    assert {"AO", "SR0.5", "SR0.75", "AUC", "OP50", "OP75", "P", "P_norm", "P_norm0.2"} == set(report["overall"])
    assert report["metrics"] == ["AUC", "P_norm0.2", "P"]


def test_what_a_server_scores_is_tracked_alone(run_eval, tmp_path, capsys):
    assert run_eval("trackingnet") == 0
    assert [row[2:5] for row in table(capsys) if row[:1] == ["t_0"]] == [["-", "-", "-"]]
    assert json.loads((tmp_path / "out-trackingnet" / "report.json").read_text())["overall"] is None
    assert len((tmp_path / "out-trackingnet" / "t_0" / "t_0_001.txt").read_text().splitlines()) == 11


def test_a_split_where_there_is_none_is_refused(run_eval):
    with pytest.raises(ConfigError, match="--split val: lasot_ext has no splits"):
        run_eval("lasot_ext", "--split", "val")


def test_annotations_of_other_data_are_an_error(run_eval, tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(DataError, match="notes annotates no frame of lasot"):
        run_eval("lasot", "--annotations", str(tmp_path / "notes"))


def test_a_folder_is_no_weights_file(run_eval, tmp_path):
    with pytest.raises(ConfigError, match="is a folder: --checkpoint expects a weights file"):
        run_eval("lasot", "--checkpoint", str(tmp_path))
