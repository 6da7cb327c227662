"""tools/eval.py on benchmarks other than GOT-10k."""

import importlib.util
import json
import sys
import zipfile

import miniatures
import pytest
from accelerate.state import AcceleratorState
from helpers_data import annotation, write_annotations, write_image
from toy import save_toy

from hiptrack.config import REPO_ROOT
from hiptrack.errors import ConfigError, DataError
from hiptrack.evaluation import submission
from hiptrack.taxonomy import CLASSES


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


def test_what_a_server_scores_is_tracked_alone_and_zipped_in_its_form(run_eval, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(submission, "TRACKINGNET_SEQUENCES", 1)
    assert run_eval("trackingnet") == 0
    assert [row[2:5] for row in table(capsys) if row[:1] == ["t_0"]] == [["-", "-", "-"]]
    assert json.loads((tmp_path / "out-trackingnet" / "report.json").read_text())["overall"] is None
    boxes = (tmp_path / "out-trackingnet" / "t_0" / "t_0_001.txt").read_text()
    assert len(boxes.splitlines()) == 11
    with zipfile.ZipFile(tmp_path / "out-trackingnet" / "submission.zip") as archive:
        assert archive.namelist() == ["t_0.txt"] and archive.read("t_0.txt").decode() == boxes


def test_a_part_of_a_server_s_test_split_is_tracked_and_not_zipped(run_eval, tmp_path):
    with pytest.raises(DataError, match="1 sequences; the test split has 511"):
        run_eval("trackingnet")
    assert (tmp_path / "out-trackingnet" / "t_0" / "t_0_001.txt").exists()
    assert not (tmp_path / "out-trackingnet" / "submission.zip").exists()


@pytest.mark.parametrize("benchmark", ["mvtd", "folder"])
def test_a_test_split_without_a_server_leaves_no_zip(run_eval, tmp_path, capsys, benchmark, monkeypatch):
    monkeypatch.setattr(miniatures, "folder", miniatures.mvtd, raising=False)
    assert run_eval(benchmark, "--split", "test") == 0
    assert "to hand in" not in capsys.readouterr().out
    assert (tmp_path / f"out-{benchmark}" / "report.html").exists()
    assert not (tmp_path / f"out-{benchmark}" / "submission.zip").exists()


def test_the_numbers_by_challenge_are_printed_and_reported(run_eval, tmp_path, capsys):
    names = ("airplane-1", "airplane-13", "bear-2", "rubicCube-1")
    for name in names:
        lines = [annotation(name, frame, ["occlusion"] + ["low_res"] * (frame == 2)) for frame in (1, 2, 3)]
        write_annotations(tmp_path / "notes", name, lines)
    more = ["--annotations", str(tmp_path / "notes"), "--attribute-sequences"]
    assert run_eval("lasot", *more, "any") == 0
    report = json.loads((tmp_path / "out-lasot" / "report.json").read_text())
    assert report["attribute_sequences"] == "any" and list(report["by_challenge"]) == list(CLASSES)
    row = report["by_challenge"]["low_resolution"]
    assert row["sequences"] == 4 and row["AUC"] == pytest.approx(report["overall"]["AUC"])
    printed = table(capsys)
    assert ["low", "resolution", "3", "4", f"{row['AUC']:.3f}"] in [
        line[:5] for line in printed
    ]  # one is occluded in frame 2
    assert ["motion", "blur", "0", "0", "-", "-", "-"] in printed
    tex = (tmp_path / "out-lasot" / "by_challenge.tex").read_text()
    assert f"low resolution & 3 & 4 & {row['AUC']:.3f} &" in tex and "\\textbf" not in tex
    assert "nano" not in tex and "toy & 4 & 14 & " in (tmp_path / "out-lasot" / "report.tex").read_text()
    assert run_eval("lasot", *more, "majority") == 0  # the boxes are read back, the numbers are made anew
    report = json.loads((tmp_path / "out-lasot" / "report.json").read_text())
    assert report["by_challenge"]["low_resolution"]["sequences"] == 0
    assert report["by_challenge"]["occlusion"]["sequences"] == 4


def test_a_choice_of_sequences_that_changes_nothing_is_refused(run_eval, tmp_path):
    with pytest.raises(ConfigError, match="no results by challenge without --annotations"):
        run_eval("lasot", "--attribute-sequences", "any")
    with pytest.raises(ConfigError, match="got10k counts frames, not sequences"):
        run_eval("got10k", "--annotations", "notes", "--attribute-sequences", "any")


def test_a_split_where_there_is_none_is_refused(run_eval):
    with pytest.raises(ConfigError, match="--split val: lasot_ext has no splits"):
        run_eval("lasot_ext", "--split", "val")


def test_annotations_of_other_data_are_an_error(run_eval, tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(DataError, match="notes annotates no frame of lasot"):
        run_eval("lasot", "--annotations", str(tmp_path / "notes"))


def test_a_folder_is_no_weights_file(run_eval, tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(
        ConfigError, match=r"is a folder: --checkpoint expects .* Of this run it is .*/model.safetensors"
    ):
        run_eval("lasot", "--checkpoint", str(tmp_path))
