"""The classes of a lab: read from its flags, taught by its weights, kept in the weights file and told by every tool."""

import json

import gin
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers_data import annotation, write_annotations, write_sequence
from sklearn.utils.class_weight import compute_class_weight
from toy import moving_target, save_toy, toy_branch, toy_model

from hiptrack import config
from hiptrack.cli.check_annotations import main as main_of_check_annotations
from hiptrack.data.clips import ClipData
from hiptrack.data.folders import FolderDataset
from hiptrack.errors import CheckpointError, ConfigError, DataError
from hiptrack.evaluation.evaluate import EvaluationOptions, evaluate
from hiptrack.evaluation.score import evaluate_sequences, read_back
from hiptrack.evaluation.table import format_table
from hiptrack.extras.world.world import World
from hiptrack.models.challenge import ChallengeBranch, ChallengeOutput
from hiptrack.models.hiptrack import Prediction
from hiptrack.models.initial import TrackerWeights
from hiptrack.models.weights import load_model, model_text, read_metadata, save_weights
from hiptrack.taxonomy import CLASSES, TEN, Taxonomy
from hiptrack.tracking.tracker import Tracker
from hiptrack.training import train  # noqa: F401  registers what experiments name
from hiptrack.training.losses import ChallengeLoss

# Glare before spray; two flags mean "hidden"; the others of the ten are not read.
HARBOUR = Taxonomy(
    ["hidden", "glare", "spray", "small", "faint", "easy"],
    {"glare": "glare", "occlusion": "hidden", "partial_visibility": "hidden", "spray": "spray"},
    {"low_res": "small", "low_contrast": "faint"},
)
HARBOUR_GIN = [
    f"Taxonomy.classes = {list(HARBOUR.classes)}",
    f"Taxonomy.vlm = {HARBOUR.vlm}",
    f"Taxonomy.cv = {HARBOUR.cv}",
]
BOXES = [(20 + 2 * place, 30, 20, 16) for place in range(6)]
# Flags of the six frames -> their class.
FRAMES = [
    ([], "easy"), (["spray"], "spray"), (["spray", "glare"], "glare"), (["partial_visibility", "low_res"], "hidden"),
    (["low_contrast"], "faint"), (["low_res"], "small"),
]  # fmt: skip

pytestmark = pytest.mark.usefixtures("clean_gin")


def harbour_line(number, flags):
    line = annotation("ship", number)
    line["vlm_response"] = {flag: {"flag": int(flag in flags), "conf": 0.9} for flag in HARBOUR.vlm}
    line["cv_response"] = {flag: int(flag in flags) for flag in HARBOUR.cv}
    return line


@pytest.fixture
def root(tmp_path):
    """A data set of one sequence with the harbour's annotations."""
    write_sequence(tmp_path / "data" / "val" / "ship", BOXES)
    lines = [harbour_line(number, flags) for number, (flags, _) in enumerate(FRAMES, 1)]
    write_annotations(tmp_path / "labels", "ship", lines)
    return tmp_path


def harbour(root):
    dataset = FolderDataset(str(root / "data"), "val")
    dataset.label_by(HARBOUR, str(root / "labels"))
    return dataset


def save_harbour(path):
    """A weights file whose branch has the harbour's classes."""
    save_toy(path, challenge="ChallengeBranch", more=["ChallengeBranch.taxonomy = @Taxonomy()", *HARBOUR_GIN])
    return path


@pytest.mark.parametrize(
    "change, words",
    [
        ({"classes": ["easy"]}, "two names at least"),
        ({"classes": ["hidden", "hidden", "easy"]}, "each once"),
        ({"vlm": {**HARBOUR.vlm, "fog": "faimt"}}, "'fog' means 'faimt', which is no class.*Did you mean 'faint'"),
        ({"cv": {**HARBOUR.cv, "calm": "easy"}}, "'calm' means 'easy', which is the last class"),
        ({"cv": {"low_res": "small"}}, "no flag means 'faint'"),
        ({"vlm": {**HARBOUR.vlm, "haze": "glare"}}, "'glare' has flags of different priority"),
        ({"cv": {**HARBOUR.cv, "haze": "glare"}}, "'glare' has flags of different priority"),
    ],
)
def test_classes_that_no_flag_gives_or_that_there_are_not_are_errors(change, words):
    with pytest.raises(ConfigError, match=words):
        Taxonomy(**{"classes": HARBOUR.classes, "vlm": HARBOUR.vlm, "cv": HARBOUR.cv, **change})


def test_frames_get_the_class_of_the_first_flag_in_the_labs_order(root):
    (sequence,) = harbour(root).sequences
    rng = np.random.default_rng(0)
    assert [HARBOUR.classes[sequence.labels.draw(frame, rng)] for frame in range(6)] == [name for _, name in FRAMES]
    spray_and_glare = dict(zip(HARBOUR.classes, sequence.labels.multi_hot([2])[0].tolist(), strict=True))
    assert [name for name, held in spray_and_glare.items() if held] == ["glare", "spray"]


def test_a_line_without_a_flag_of_the_lab_is_named(root):
    write_annotations(root / "labels", "ship", [annotation("ship", 1)])
    with pytest.raises(DataError, match=r"ship.jsonl:1: 'vlm_response' .* missing required field `glare`"):
        _ = harbour(root).sequences


def test_frames_are_counted_as_they_are_drawn():
    columns = np.random.default_rng(1).random((400, 9)) < 0.15
    rng = np.random.default_rng(2)
    drawn = np.bincount([TEN.draw(row, rng) for row in columns for _ in range(50)], minlength=10) / 50
    counts = TEN.expected_counts(columns)
    assert counts.sum() == pytest.approx(400) and np.abs(counts - drawn).max() < 2


def predicted(logits):
    return Prediction(None, None, ChallengeOutput(logits, logits.softmax(-1), None, None))


def test_class_weights_give_the_weighted_mean_and_balanced_ones_are_inverse_to_the_counts():
    torch.manual_seed(0)
    logits, labels = torch.randn(60, 6), torch.randint(0, 5, (60,))  # of the last class there is none
    labels[:7] = -1
    known = labels[labels >= 0].numpy()
    loss = ChallengeLoss(class_weights="balanced")
    loss.weigh(HARBOUR, lambda: np.bincount(known, minlength=6) / len(labels))
    expected = torch.tensor([*compute_class_weight("balanced", classes=np.arange(5), y=known), 0.0]).float()
    assert torch.allclose(loss.weights, expected)
    value = loss(predicted(logits), labels) / loss.count(labels)
    assert value == pytest.approx(F.cross_entropy(logits, labels, expected, ignore_index=-1).item(), rel=1e-5)

    named = ChallengeLoss(class_weights={"glare": 3.0})
    named.weigh(HARBOUR, None)
    assert named.weights.tolist() == [1, 3, 1, 1, 1, 1]
    with pytest.raises(ConfigError, match="'glair' is no class of the branch.*Did you mean 'glare'"):
        ChallengeLoss(class_weights={"glair": 3.0}).weigh(HARBOUR, None)


def test_balanced_weights_are_of_what_is_drawn(tmp_path):
    """Sets by their ratios and sequences alike, whatever their lengths."""
    for name, length, flags in (("long", 30, ["occlusion"]), ("short", 3, ["low_res"])):
        write_sequence(tmp_path / name / "train" / name, [(20, 30, 20, 16)] * length)
        write_annotations(tmp_path / "labels", name, [annotation(name, frame + 1, flags) for frame in range(length)])
    datasets = [FolderDataset(str(tmp_path / name), "train") for name in ("long", "short")]
    data = ClipData(datasets, ratios=[1.0, 3.0])
    data.label_by(TEN, str(tmp_path / "labels"))
    shares = dict(zip(CLASSES, data.class_shares().tolist(), strict=True))
    assert shares["occlusion"] == pytest.approx(0.25) and shares["low_resolution"] == pytest.approx(0.75)


def test_the_world_shows_the_classes_of_a_lab_whose_flags_it_knows():
    world, merged = World(frames=8), Taxonomy(["hard", "easy"], TEN.vlm | dict.fromkeys(TEN.vlm, "hard"), {})
    held = world.sequences[0].labels.flags
    vlm = [TEN.classes.index(name) for name in TEN.vlm.values()]
    world.label_by(merged)
    assert np.array_equal(world.sequences[0].labels.flags[:, 0], held[:, vlm].any(1))
    with pytest.raises(ConfigError, match="the procedural world shows no 'glare'. Expected flags of occlusion"):
        world.label_by(HARBOUR)


def test_a_weights_file_keeps_its_classes_and_every_tool_tells_them(root):
    weights = save_harbour(root / "harbour.safetensors")
    assert load_model(weights).challenge.classes == HARBOUR.classes
    config.load(["gin/eval/tracker.gin", "gin/eval/branch_on.gin"], [], root="evaluate")
    dataset = FolderDataset(str(root / "data"), "val", str(root / "labels"))
    found = evaluate(EvaluationOptions(weights, dataset, root / "out"))
    assert found.report.confusion.sum(1).tolist() == [1, 1, 1, 1, 1, 0]  # of the first frame nothing is predicted
    assert "glare" in format_table(found.report) and "occlusion" not in format_table(found.report)
    stored = json.loads((root / "out" / "report.json").read_text())
    assert stored["classification"]["classes"] == list(HARBOUR.classes)
    (root / "out" / "report.json").unlink()  # as of an evaluation that was interrupted
    again = read_back(root / "out", FolderDataset(str(root / "data"), "val", str(root / "labels")))
    assert again.taxonomy == HARBOUR and np.array_equal(again.confusion, found.report.confusion)


def test_rules_and_results_of_a_tracker_are_of_the_files_classes(root):
    weights = save_harbour(root / "harbour.safetensors")
    rules = ["Tracker.adaptation=@Adaptation()", "Adaptation.rules=[@glare/Rule()]", "glare/Rule.size_rate=0.0"]
    config.load(
        ["gin/eval/tracker.gin", "gin/eval/branch_on.gin"], [*rules, "glare/Rule.challenge=glare"], root="evaluate"
    )
    tracker = gin.query_parameter("evaluate.tracker").scoped_configurable_fn(model=load_model(weights), device="cpu")
    frames, box = moving_target(2)
    tracker.init(frames[0], box)
    assert tracker.classes == HARBOUR.classes and len(tracker.update(frames[1]).challenge) == 6


def test_weights_of_one_taxonomy_do_not_go_under_another(root):
    weights = save_harbour(root / "harbour.safetensors")
    with pytest.raises(CheckpointError, match="its branch has the classes hidden, glare.*the model's occlusion"):
        TrackerWeights(str(weights))(toy_model(challenge=ChallengeBranch))
    options = EvaluationOptions(weights, FolderDataset(str(root / "data"), "val"), root / "out")
    config.load(["gin/eval/tracker.gin"], ["evaluate.taxonomy=@Taxonomy()"], root="evaluate")
    with pytest.raises(ConfigError, match="evaluate.taxonomy has the classes occlusion.*was trained with hidden"):
        evaluate(options)


def test_a_file_that_cannot_say_its_classes_is_refused(root):
    weights = save_harbour(root / "harbour.safetensors")
    described = json.loads(read_metadata(weights)["model"])
    described["parameters"]["unheard"] = 1
    save_weights(weights, load_model(weights), json.dumps(described))
    with pytest.raises(CheckpointError, match="unheard"):
        TrackerWeights(str(weights))(toy_model(challenge=toy_branch))


def test_a_set_is_read_anew_under_other_classes_and_scored_only_by_its_own(root):
    lines = [{**annotation("ship", 2, ["occlusion"])}, {**annotation("ship", 3, ["low_res"])}]
    write_annotations(root / "labels", "ship", lines)
    dataset = FolderDataset(str(root / "data"), "val", str(root / "labels"))
    columns = TEN.challenges.index("occlusion"), TEN.challenges.index("low_resolution")
    swapped = list(CLASSES)
    swapped[columns[0]], swapped[columns[1]] = swapped[columns[1]], swapped[columns[0]]
    assert dataset.sequences[0].labels.flags[1].nonzero()[0].tolist() == [columns[0]]
    dataset.label_by(Taxonomy(swapped))
    assert dataset.sequences[0].labels.flags[1].nonzero()[0].tolist() == [columns[1]]
    with pytest.raises(DataError, match="ship is labelled by the classes low_resolution.*but scored by occlusion"):
        evaluate_sequences(Tracker(toy_model(), device="cpu"), dataset.sequences)


def test_a_set_may_have_no_annotations_whatever_the_run_has(root):
    dataset = FolderDataset(str(root / "data"), "val", annotations="")
    dataset.label_by(HARBOUR, str(root / "labels"))
    assert dataset.labelled_frames == 0


def test_check_annotations_takes_the_classes_of_a_lab(root, capsys, monkeypatch):
    (root / "harbour.gin").write_text("\n".join(HARBOUR_GIN) + "\n")
    command = [
        "check-annotations",
        str(root / "labels"),
        "--data",
        str(root / "data"),
        "--gin",
        str(root / "harbour.gin"),
    ]
    monkeypatch.setattr("sys.argv", command)
    assert main_of_check_annotations() == 0
    assert "glare" in capsys.readouterr().out
    write_annotations(root / "labels", "ship", [annotation("ship", 1)])
    assert main_of_check_annotations() == 1 and "missing required field `glare`" in capsys.readouterr().out


def test_data_are_labelled_by_the_wanted_classes_where_the_weights_name_none(root):
    save_toy(root / "plain.safetensors")
    (root / "harbour.gin").write_text("\n".join(["evaluate.taxonomy = @Taxonomy()", *HARBOUR_GIN]) + "\n")
    config.load(["gin/eval/tracker.gin", str(root / "harbour.gin")], [], root="evaluate")
    dataset = FolderDataset(str(root / "data"), "val", str(root / "labels"))
    found = evaluate(EvaluationOptions(root / "plain.safetensors", dataset, root / "out"))
    assert found.report.taxonomy == HARBOUR and dataset.labelled_frames == 6


@pytest.mark.parametrize("classes, taxonomy", [(10, CLASSES), (7, None)])
def test_a_weights_file_of_before_has_the_ten_classes(tmp_path, classes, taxonomy):
    path = tmp_path / "old.safetensors"
    save_toy(path, challenge="ChallengeBranch")
    described = json.loads(read_metadata(path)["model"])
    branch = described["parameters"]["challenge"]["parameters"]
    del branch["taxonomy"]
    branch["classes"] = classes
    save_weights(path, load_model(path), json.dumps(described))
    if taxonomy:
        assert list(load_model(path).challenge.classes) == taxonomy
    else:
        with pytest.raises(CheckpointError, match="7 classes that nothing names"):
            load_model(path)


def test_a_tracker_without_the_branch_names_no_classes():
    assert Tracker(toy_model(), device="cpu").classes is None


def test_an_experiment_takes_the_classes_of_a_lab_in_three_lines():
    config.load(["experiments/two_stage.gin"], [line.replace(" = ", "=") for line in HARBOUR_GIN], root="train")
    assert '"glare"' in model_text()
