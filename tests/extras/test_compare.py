"""Runs side by side: tables against numbers computed here, what is marked, and what is refused."""

import csv
import hashlib
import json
import statistics
import subprocess
import sys

import cv2
import pytest
import safetensors.torch
import torch
from latex_tables import bold_cells, plain_rows

from hiptrack import config
from hiptrack.cli import compare as command
from hiptrack.errors import ConfigError, DataError, HiptrackError, NotFoundError
from hiptrack.extras.sweep.compare import (
    as_csv,
    as_latex,
    as_markdown,
    as_picture,
    as_text,
    compare,
    read_runs,
    rows,
    write,
)
from hiptrack.extras.sweep.plan import check_runs, claim, make_plan
from hiptrack.models.weights import content_hash
from hiptrack.training import train  # noqa: F401  registers everything
from hiptrack.training.run_folder import record, record_warnings

FROM_SCRATCH = ["tests/support/toy.gin"]

pytestmark = pytest.mark.usefixtures("clean_gin")


def make_run(folder, *overrides, validation=None, seconds=(0.2, 0.3, 0.4), steps=30, end=30, evaluation=None):
    """A run's folder: steps so far, the last step that its weights have (None: no weights), results of either kind."""
    config.load(FROM_SCRATCH, overrides, root="train")
    folder.mkdir(parents=True)
    record(folder, config.config_text(), ["train.py"])
    entries = [
        {"step": steps - 2 + i, "Loss/total": 1.0, "Time/data": 0.1, "Time/compute": t - 0.1}
        for i, t in enumerate(seconds)
    ]
    if validation:
        named = {f"Validation/{name}": value for name, value in validation.items()}
        entries[1:1] = [{"step": steps - 1, **dict.fromkeys(named, 0.01)}]  # an earlier one
        entries.append({"step": steps, **named})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    if end is not None:
        metadata = {"format": "hiptrack", "model": "", "step": str(end)}
        safetensors.torch.save_file({"a": torch.zeros(1)}, folder / "model.safetensors", metadata)
    if evaluation:
        (folder / "evaluation").mkdir()
        evaluation["made_with"].setdefault("weights", content_hash(folder / "model.safetensors"))
        (folder / "evaluation" / "report.json").write_text(json.dumps(evaluation))
    return folder


def evaluation(ao, accuracy=None, fps=50.0, complete=True, data="0123456789", **tracking):
    return {
        "made_with": {"data": data, "tracking": {f"Tracker.{name}": value for name, value in tracking.items()}},
        "overall": {"AO": ao, "SR0.5": ao / 2, "SR0.75": ao / 4},
        "classification": accuracy and {"accuracy": accuracy, "balanced_accuracy": accuracy / 2},
        "speed": {"fps_model": fps},
        "complete": complete,
        "sequences": {"a": {"frames": 10}, "b": {"frames": 20}},
    }


def in_mvtd(auc, occlusion, frames=12, sequences=1):
    """An evaluation by AUC and P; occlusion: its AUC there. No frame is blurred."""
    table = {
        "occlusion": {"frames": frames, "sequences": sequences, "AO": 0.9, "AUC": occlusion, "P": 1.0},
        "motion_blur": {"frames": 0, "sequences": 0, "AO": None, "AUC": None, "P": None},
    }
    report = evaluation(0.9) | {"metrics": ["AUC", "P"], "by_challenge": table}
    report["overall"] |= {"AUC": auc, "P": 1.0, "P_norm": 0.8}
    return report


def comparison_of(*folders):
    return compare(*read_runs(folders))


def test_seeds_are_one_row_with_mean_and_sample_spread(tmp_path):
    overlaps = {0.5: [0.50, 0.53, 0.59], 2.0: [0.61, 0.60, 0.56]}
    for weight, values in overlaps.items():
        for seed, ao in enumerate(values):
            more = [f"ChallengeLoss.weight={weight}", f"train.seed={seed}", f"train.workers={seed}"]
            results = {"AO": ao, "SR0.5": ao + 0.1, "accuracy": 0.4 + seed / 10}
            make_run(tmp_path / f"{weight}-{seed}", *more, validation=results)
    comparison = comparison_of(*tmp_path.iterdir())
    assert rows(comparison)[0] == ["weight", "n", "AO", "SR0.5", "accuracy", "s/step", "results of"]
    best, other = comparison.variants
    assert best.values == {"ChallengeLoss.weight": "2.0"} and other.values == {"ChallengeLoss.weight": "0.5"}
    for variant, weight in ((best, 2.0), (other, 0.5)):
        assert variant.mean("AO") == pytest.approx(sum(overlaps[weight]) / 3)
        assert variant.spread("AO") == pytest.approx(statistics.stdev(overlaps[weight]))
        assert variant.spread("accuracy") == pytest.approx(0.1)
        assert variant.mean("s/step") == pytest.approx(0.3)
    expected = ["0.5", "3", "0.540 ± 0.046", "0.640 ± 0.046", "0.500 ± 0.100", "0.300 ± 0.000", "validation"]
    assert rows(comparison)[2] == expected
    (first, _) = csv.DictReader(as_csv(comparison).splitlines())
    assert first["ChallengeLoss.weight"] == "2.0" and first["n"] == "3"
    assert float(first["AO std"]) == pytest.approx(statistics.stdev(overlaps[2.0]))
    assert not comparison.notes


def test_the_evaluation_counts_before_the_validation(tmp_path):
    a = make_run(tmp_path / "a", validation={"AO": 0.9, "accuracy": 0.9}, evaluation=evaluation(0.4, 0.3, fps=77.0))
    b = make_run(tmp_path / "b", "train.stages=[@tracker/Stage()]", validation={"AO": 0.9}, evaluation=evaluation(0.6))
    comparison = comparison_of(a, b)
    assert [variant.runs[0].folder.name for variant in comparison.variants] == ["b", "a"]
    expected = {"AO": 0.4, "SR0.5": 0.2, "SR0.75": 0.1, "accuracy": 0.3, "balanced accuracy": 0.15}
    expected |= {"frames/s": 77.0, "s/step": 0.3}
    assert comparison.variants[1].runs[0].numbers == pytest.approx(expected)
    assert {variant.source for variant in comparison.variants} == {"evaluation (2 sequences, 30 frames, data 01234567)"}
    head, best, other = rows(comparison)
    place = head.index("balanced accuracy")
    assert (best[place], other[place]) == ("-", "0.150")


def test_a_benchmark_is_compared_by_its_own_numbers_and_by_challenge(tmp_path):
    for name, weight, seed, auc, occlusion in (
        ("a", 1.0, 0, 0.50, 0.3),
        ("b", 1.0, 1, 0.54, 0.5),
        ("c", 2.0, 0, 0.40, 0.6),
    ):
        more = [f"ChallengeLoss.weight={weight}", f"train.seed={seed}"]
        make_run(tmp_path / name, *more, evaluation=in_mvtd(auc, occlusion))
    comparison = comparison_of(*sorted(tmp_path.iterdir()))
    assert comparison.numbers == ["AUC", "P", "frames/s", "s/step"] and not comparison.notes
    assert [variant.mean("AUC") for variant in comparison.variants] == pytest.approx([0.52, 0.4])
    names = set(write(comparison, tmp_path / "out"))
    assert names == {path.name for path in (tmp_path / "out").iterdir()}
    latex = (tmp_path / "out" / "compare_by_challenge.tex").read_text()
    # the mean of 0.3 and 0.5, and their sample standard deviation, 0.2 / sqrt(2)
    assert plain_rows(latex) == [
        ["challenge", "tracker", "frames", "sequences", "AUC", "P"],
        ["occlusion", "weight=1.0 (n=2)", "12", "1", "0.400 ± 0.141", "1.000 ± 0.000"],
        ["", "weight=2.0 (n=1)", "12", "1", "0.600", "1.000"],
        ["motion blur", "weight=1.0 (n=2)", "0", "0", "-", "-"],
        ["", "weight=2.0 (n=1)", "0", "0", "-", "-"],
    ]
    assert bold_cells(latex) == {(1, 4): "0.600"}
    assert "occlusion    weight=1.0 (n=2)      12          1  0.400 ± 0.141" in as_text(comparison)
    assert "| occlusion | weight=1.0 (n=2) | 12 | 1 | 0.400 ± 0.141 | 1.000 ± 0.000 |" in as_markdown(comparison)
    first, *_, last = csv.DictReader((tmp_path / "out" / "compare_by_challenge.csv").open())
    assert float(first["AUC std"]) == pytest.approx(statistics.stdev([0.3, 0.5])) and first["challenge"] == "occlusion"
    assert last["variant"] == "weight=2.0 (n=1)" and last["frames"] == "0" and last["AUC"] == ""


def test_challenges_that_count_other_frames_are_not_compared(tmp_path):
    """As with other annotations, or another choice of sequences."""
    a = make_run(tmp_path / "a", "ChallengeLoss.weight=1.0", evaluation=in_mvtd(0.5, 0.3))
    for name, counts in (("b", {"frames": 13}), ("c", {"sequences": 2})):
        other = make_run(tmp_path / name, "ChallengeLoss.weight=2.0", evaluation=in_mvtd(0.5, 0.3, **counts))
        comparison = comparison_of(a, other)
        assert comparison.by_challenge is None and comparison.notes[0].startswith("no table by challenge: ")
        assert "compare_by_challenge.tex" not in write(comparison, tmp_path / "out")


def test_runs_without_challenges_are_named_and_unfinished_ones_left_out(tmp_path):
    for weight, report in ((1.0, in_mvtd(0.5, 0.3)), (2.0, in_mvtd(0.4, 0.4) | {"by_challenge": None})):
        make_run(tmp_path / f"{weight}", f"ChallengeLoss.weight={weight}", evaluation=report)
    make_run(tmp_path / "3.0", "ChallengeLoss.weight=3.0", evaluation=in_mvtd(0.3, 0.9) | {"complete": False})
    comparison = comparison_of(*sorted(tmp_path.iterdir()))
    assert list(comparison.by_challenge.rows) == ["weight=1.0 (n=1)"]
    assert comparison.notes == ["without numbers by challenge: weight=2.0 (n=1)"]


def test_the_latex_table_is_the_table_with_the_best_in_bold(tmp_path):
    for weight, ao in ((1.0, 0.5), (2.0, 0.6)):
        make_run(tmp_path / f"{weight}", f"ChallengeLoss.weight={weight}", evaluation=evaluation(ao))
    comparison = comparison_of(*sorted(tmp_path.iterdir()))
    assert plain_rows(as_latex(comparison)) == rows(comparison)
    assert bold_cells(as_latex(comparison)) == {(0, 2): "0.600", (0, 3): "0.300", (0, 4): "0.150"}  # best on top
    make_run(tmp_path / "3.0", "ChallengeLoss.weight=3.0", evaluation=evaluation(0.9, data="other"))
    assert not bold_cells(as_latex(comparison_of(*sorted(tmp_path.iterdir()))))  # not of the same frames


def test_results_of_different_frames_are_neither_averaged_nor_silent(tmp_path):
    make_run(tmp_path / "a", "train.seed=0", validation={"AO": 0.5})
    make_run(tmp_path / "b", "train.seed=1", validation={"AO": 0.5}, evaluation=evaluation(0.3))
    comparison = comparison_of(tmp_path / "a", tmp_path / "b")
    assert [len(variant.runs) for variant in comparison.variants] == [1, 1]
    assert comparison.notes == [
        "the results are not of the same frames: evaluation (2 sequences, 30 frames, data 01234567); validation"
    ]


def test_evaluations_of_different_data_are_not_averaged(tmp_path):
    """As many frames of as many sequences, but others."""
    make_run(tmp_path / "a", "train.seed=0", evaluation=evaluation(0.5, data="a" * 64))
    make_run(tmp_path / "b", "train.seed=1", evaluation=evaluation(0.3, data="b" * 64))
    comparison = comparison_of(tmp_path / "a", tmp_path / "b")
    assert [variant.mean("AO") for variant in comparison.variants] == [0.5, 0.3]
    (note,) = comparison.notes
    assert note.startswith("the results are not of the same frames: ") and "data aaaaaaaa" in note and "data bb" in note


def test_a_validation_on_test_data_is_marked(tmp_path):
    tested = make_run(tmp_path / "a", validation={"AO": 0.9})
    record_warnings(tested, {"selection": "the validation is on test data", "jitter, branch": "it loses the target"})
    sound = make_run(tmp_path / "b", "train.seed=1", validation={"AO": 0.5})
    record_warnings(sound, {"jitter, branch": "it loses the target"})
    evaluated = make_run(tmp_path / "c", "train.seed=2", validation={"AO": 0.9}, evaluation=evaluation(0.4))
    record_warnings(evaluated, {"selection": "the validation is on test data"})
    comparison = comparison_of(tested, sound, evaluated)
    assert [variant.source.partition(" (")[0] for variant in comparison.variants] == [
        "validation on test data",
        "validation",
        "evaluation",
    ]
    assert f"their validation is on test data, by which nothing should be chosen: {tested}" in comparison.notes
    assert f"chosen: {tested}" in as_text(comparison)
    (tested / "warnings.json").write_text("[")
    with pytest.raises(DataError, match="a/warnings.json cannot be read"):
        comparison_of(tested)


def test_evaluations_with_another_tracking_are_not_averaged(tmp_path):
    make_run(tmp_path / "a", "train.seed=0", evaluation=evaluation(0.5, branch="'on'", margin="10"))
    make_run(tmp_path / "b", "train.seed=1", evaluation=evaluation(0.3, branch="'off'", margin="10"))
    make_run(tmp_path / "c", "train.seed=2", validation={"AO": 0.1})  # no evaluation: nothing to tell
    comparison = comparison_of(*sorted(tmp_path.iterdir()))
    assert [variant.values for variant in comparison.variants] == [
        {"evaluation: Tracker.branch": value} for value in ("'on'", "'off'", "-")
    ]
    assert rows(comparison)[0][0] == "branch"
    lines = csv.DictReader(as_csv(comparison).splitlines())
    assert [line["evaluation: Tracker.branch"] for line in lines] == ["'on'", "'off'", ""]
    assert comparison.notes[0] == "the evaluations do not track alike: Tracker.branch"


def test_what_the_runs_themselves_bind_is_one_column(tmp_path):
    for branch in ("'on'", "'off'"):
        make_run(tmp_path / branch, f"Tracker.branch={branch}", evaluation=evaluation(0.5, branch=branch))
    comparison = comparison_of(*tmp_path.iterdir())
    assert comparison.bindings == ["Tracker.branch"] and not comparison.notes


def test_an_evaluation_of_other_weights_is_marked(tmp_path):
    """A run that was trained on after its evaluation, and an evaluation by an older hiptrack, which does not say."""
    make_run(tmp_path / "a", evaluation=evaluation(0.5))
    safetensors.torch.save_file(
        {"a": torch.ones(1)}, tmp_path / "a" / "model.safetensors", {"format": "hiptrack", "model": "", "step": "30"}
    )
    make_run(tmp_path / "b", "train.seed=1", evaluation=evaluation(0.4))
    path = tmp_path / "b" / "evaluation" / "report.json"
    path.write_text(json.dumps({name: v for name, v in json.loads(path.read_text()).items() if name != "made_with"}))
    make_run(tmp_path / "c", "train.seed=2", evaluation=evaluation(0.3))
    states = [variant.state for variant in comparison_of(*sorted(tmp_path.iterdir())).variants]
    assert states == ["evaluation of other weights", "evaluation of unknown weights", ""]


def test_an_evaluation_of_an_older_version_names_the_bytes_of_its_weights(tmp_path):
    folder = make_run(tmp_path / "a", evaluation=evaluation(0.5))
    report = json.loads((folder / "evaluation" / "report.json").read_text())
    report["made_with"]["weights"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "evaluation" / "report.json").write_text(json.dumps(report))
    assert comparison_of(folder).variants[0].state == ""


def test_a_name_that_is_bound_to_its_default_makes_no_difference(tmp_path):
    make_run(tmp_path / "a", "train.seed=0", validation={"AO": 0.5})
    make_run(tmp_path / "b", "train.seed=1", "ClipData.ratios=None", validation={"AO": 0.6})
    make_run(tmp_path / "c", "train.seed=2", "branch/CosineSchedule.warmup_epochs=0.0", validation={"AO": 0.7})
    make_run(tmp_path / "d", "train.seed=3", "branch/CosineSchedule.final=0.05", validation={"AO": 0.8})  # as around it
    comparison = comparison_of(*tmp_path.iterdir())
    assert [len(variant.runs) for variant in comparison.variants] == [4] and comparison.bindings == []
    make_run(tmp_path / "e", "Stage.schedule=None", validation={"AO": 0.4})
    make_run(tmp_path / "f", "branch/CosineSchedule.warmup_epochs=1.0", validation={"AO": 0.3})
    warm_up = "branch/CosineSchedule.warmup_epochs"
    values = [variant.values[warm_up] for variant in comparison_of(*tmp_path.iterdir()).variants]
    assert values == ["0.0", "-", "1.0"]  # a run without the schedule has no default of it either


def test_a_run_without_a_result_comes_last(tmp_path):
    make_run(tmp_path / "a", "ChallengeLoss.weight=0.5")
    make_run(tmp_path / "b", "ChallengeLoss.weight=2.0", validation={"AO": 0.1})
    make_run(tmp_path / "c", "ChallengeLoss.weight=3.0", validation={"SR0.5": 0.9})
    comparison = comparison_of(*sorted(tmp_path.iterdir()))
    head, *body = rows(comparison)
    assert [line[head.index("AO")] for line in body] == ["0.100", "-", "-"]
    assert [line[head.index("SR0.5")] for line in body] == ["-", "-", "0.900"]
    assert as_picture(comparison)


@pytest.mark.parametrize("end", [None, 20])
def test_unfinished_runs_are_marked_and_stand_alone(tmp_path, end):
    """A run without its last weights, and one that has been trained on since they were written."""
    for seed in range(2):
        make_run(tmp_path / f"{seed}", f"train.seed={seed}", validation={"AO": 0.5 + seed / 10})
    make_run(tmp_path / "2", "train.seed=2", validation={"AO": 0.1}, end=end)
    make_run(tmp_path / "3", "train.seed=3", steps=7, end=end)
    comparison = comparison_of(*tmp_path.iterdir())
    states = [(len(variant.runs), variant.state, variant.mean("AO")) for variant in comparison.variants]
    assert states == [
        (2, "", pytest.approx(0.55)),
        (1, "unfinished, step 30", pytest.approx(0.1)),
        (1, "unfinished, step 7", None),
    ]
    table = rows(comparison)
    assert table[0][-1] == "state" and table[3][:3] == ["3", "1", "-"]  # nothing differs: runs go by their names


def test_an_incomplete_evaluation_is_marked(tmp_path):
    make_run(tmp_path / "a", evaluation=evaluation(0.5))
    make_run(tmp_path / "b", "train.seed=1", evaluation=evaluation(0.9, complete=False))
    states = [variant.state for variant in comparison_of(tmp_path / "a", tmp_path / "b").variants]
    assert states == ["evaluation incomplete", ""]


def test_a_sweep_is_its_runs_and_those_that_have_not_begun_are_told(tmp_path):
    plan = make_plan(FROM_SCRATCH, [], ["ChallengeLoss.weight=[0.5, 1.0]"], 2)
    claim(plan, tmp_path, check_runs(plan))
    for name in list(plan.runs)[:3]:
        make_run(tmp_path / name, *plan.runs[name], validation={"AO": 0.5})
    (tmp_path / "weight=1.0,seed=1").mkdir()
    runs, idle, left_out = read_runs([tmp_path, tmp_path / "weight=0.5,seed=0"])
    assert len(runs) == 3 and left_out == [] and idle == ["weight=1.0,seed=1"]
    assert compare(runs, idle).notes == ["nothing logged yet: weight=1.0,seed=1"]


def test_what_else_differs_is_told(tmp_path):
    for name in "ab":
        make_run(tmp_path / name, validation={"AO": 0.5})
    path = tmp_path / "a" / "versions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"torch": "1.0"}))
    same, torch_version = comparison_of(tmp_path / "a", tmp_path / "b").notes
    assert same == f"the same configuration and seed 0: {tmp_path / 'a'}; {tmp_path / 'b'}"
    assert torch_version.startswith("torch differs: ") and "1.0 (1 runs)" in torch_version


def test_the_newest_configuration_of_a_run_counts(tmp_path):
    folder = make_run(tmp_path / "a", validation={"AO": 0.5})
    for number in range(2, 12):
        config.load(FROM_SCRATCH, [f"Stage.grad_clip={number}.0"], root="train")
        record(folder, config.config_text(), ["train.py"])
    make_run(tmp_path / "b", validation={"AO": 0.6})
    assert [variant.values for variant in comparison_of(folder, tmp_path / "b").variants] == [
        {"Stage.grad_clip": "1.0"},
        {"Stage.grad_clip": "11.0"},
    ]


@pytest.mark.slow
def test_files_are_written_and_the_picture_shows_every_variant(tmp_path):
    for number in range(62):
        overrides = ["ChallengeLoss.kind='focal'", f"Stage.clips={2048 + number}", "branch/Stage.epochs=3"]
        make_run(tmp_path / str(number), *overrides, validation={"AO": 0.3 + number / 1000})
    comparison = comparison_of(*tmp_path.iterdir())
    write(comparison, tmp_path / "out")
    assert len((tmp_path / "out" / "compare.md").read_text().splitlines()) >= 64
    picture = cv2.imread(str(tmp_path / "out" / "compare.png"))
    assert picture.shape[0] > 60 * 30 and picture.std() > 1
    assert as_picture(compare(*read_runs([tmp_path / "0"])))
    with pytest.raises(HiptrackError, match="cannot be written.*--out DIR"):
        write(comparison, tmp_path / "0" / "config.gin")


def test_what_cannot_be_compared(tmp_path):
    make_run(tmp_path / "whole", validation={"AO": 0.5})
    blind = make_run(tmp_path / "blind")
    with pytest.raises(NotFoundError, match='not found: .*/whoel .*the nearest folder there is "whole"'):
        read_runs([tmp_path / "whoel"])
    with pytest.raises(DataError, match=f"{tmp_path} is no folder of a run that has logged something"):
        read_runs([tmp_path])
    with pytest.raises(DataError, match="none of the runs has a result, of AO, .*Train with"):
        comparison_of(blind)
    (blind / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="blind is no folder of a run that has logged something"):
        read_runs([blind])
    plan = make_plan(FROM_SCRATCH, [], [], 2)
    claim(plan, tmp_path / "sweep", check_runs(plan))
    with pytest.raises(DataError, match="there are no runs yet"):
        comparison_of(tmp_path / "sweep")


@pytest.mark.parametrize(
    "name, content, error",
    [
        ("metrics.jsonl", "[1]\n", DataError),
        ("metrics.jsonl", '{"Loss/total": 1}\n', DataError),
        ("metrics.jsonl", '{"step": 1\n', DataError),
        ("metrics.jsonl", '{"step": true}\n', DataError),
        ("metrics.jsonl", '{"step": -1}\n', DataError),
        ("metrics.jsonl", '{"step": NaN}\n', DataError),
        ("metrics.jsonl", '{"step": "1"}\n', DataError),
        ("metrics.jsonl", '{"step": 1, "IoU": "0.5"}\n', DataError),
        ("metrics.jsonl", '{"step": 1, "IoU": 1' + "0" * 400 + "}\n", DataError),
        ("metrics.jsonl", '{"step": 1, "IoU": ' + "[" * 99999 + "\n", DataError),
        ("metrics.jsonl", '{"step": 1, "' + "x" * 2**20 + '": 1}\n{"step": 2, "IoU": 1}\n', DataError),
        ("config.gin", "Stage.epoch = 3\n", ConfigError),
        ("versions.json", "[1]", DataError),
        ("evaluation/report.json", "{}", DataError),
        ("evaluation/report.json", json.dumps(evaluation(0.5) | {"made_with": 3}), DataError),
        ("evaluation/report.json", json.dumps(evaluation(0.5) | {"made_with": {"data": 3}}), DataError),
        ("evaluation/report.json", "[" * 9999, DataError),
        ("evaluation/report.json", json.dumps(in_mvtd(0.5, "high")), DataError),
        ("evaluation/report.json", json.dumps(in_mvtd(0.5, float("nan"))), DataError),
        ("evaluation/report.json", json.dumps(in_mvtd(0.5, 0.5, frames=float("inf"))), DataError),
        ("evaluation/report.json", json.dumps(evaluation(0.5) | {"overall": {"AO": "0.5"}}), DataError),
        ("evaluation/report.json", json.dumps(evaluation(0.5) | {"overall": {"AO": [0.5]}}), DataError),
        ("evaluation/report.json", json.dumps(evaluation(float("nan"))), DataError),
        ("evaluation/report.json", json.dumps(evaluation(0.5, fps="fast")), DataError),
        ("evaluation/report.json", json.dumps(evaluation(0.5) | {"by_challenge": {"occlusion": 3}}), DataError),
        ("evaluation/report.json", '{"overall": [], "classification": 3, "speed": {}, "sequences": []}', DataError),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, error):
    make_run(tmp_path / "a", evaluation=evaluation(0.5))
    (tmp_path / "a" / name).write_text(content)
    with pytest.raises(error, match=str(tmp_path / "a" / name)):
        read_runs([tmp_path / "a"])


def test_a_damaged_run_is_left_out_with_a_word(tmp_path, monkeypatch, capsys):
    for name, ao in (("a", 0.5), ("b", 0.6), ("c", 0.7), ("d", 0.8)):
        make_run(tmp_path / name, f"branch/Stage.lr={ao}", validation={"AO": ao})
    (tmp_path / "b" / "metrics.jsonl").write_text('{"step": "x"}\n')
    (tmp_path / "d" / "config.gin").write_bytes(b"\xff\xfe")
    comparison = comparison_of(*(tmp_path / name for name in "abcd"))
    assert [variant.mean("AO") for variant in comparison.variants] == [0.7, 0.5]
    assert [note.partition(":")[0] for note in comparison.notes] == ["left out"] * 2
    assert f"left out: {tmp_path / 'b' / 'metrics.jsonl'}:1: no JSON object" in as_text(comparison)
    assert "d/config.gin" in as_markdown(comparison)
    monkeypatch.setattr(sys, "argv", ["hiptrack compare", *(str(tmp_path / name) for name in "abcd")])
    assert command.main() == 1 and as_text(comparison) in capsys.readouterr().out


def test_a_validation_that_was_not_finite_is_no_result(tmp_path):
    make_run(tmp_path / "a", "branch/Stage.lr=0.5", validation={"AO": 0.5})
    make_run(tmp_path / "b", "branch/Stage.lr=0.6", validation={"AO": float("nan"), "SR0.5": float("inf")})
    lines = (tmp_path / "b" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "b" / "metrics.jsonl").write_text("".join(line for line in lines if "0.01" not in line))
    first, last = comparison_of(tmp_path / "a", tmp_path / "b").variants
    assert (first.mean("AO"), last.mean("AO"), last.mean("SR0.5")) == (0.5, None, None)


def test_damaged_weights_leave_a_run_unfinished(tmp_path):
    make_run(tmp_path / "a", validation={"AO": 0.5})
    (tmp_path / "a" / "model.safetensors").write_bytes(b"half")
    assert comparison_of(tmp_path / "a").variants[0].state == "unfinished, step 30"


def test_the_tool_prints_the_table_and_writes_beside_the_first_run(tmp_path):
    for name, ao in (("a", 0.5), ("b", 0.6)):
        make_run(tmp_path / "runs" / name, f"branch/Stage.lr={ao}", validation={"AO": ao})

    def tool(*runs):
        command = [sys.executable, "-m", "hiptrack", "compare", *runs]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    done = tool("runs/a", "runs/b")
    assert done.returncode == 0, done.stderr
    comparison = comparison_of(tmp_path / "runs/a", tmp_path / "runs/b")
    assert as_text(comparison) in done.stdout and done.stdout.startswith("lr   n     AO")
    assert {path.name for path in (tmp_path / "runs").glob("compare*")} == {
        "compare.csv",
        "compare.md",
        "compare.png",
        "compare.tex",
    }
    failed = tool("runs/a", "runs/c")
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert failed.stderr.startswith("error: not found: runs/c")
