"""Several challenges per frame: their targets, loss, metrics, the branch's activation, and a run from start to end."""

import math
from types import SimpleNamespace

import gin
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from toy import moving_target, randomise, toy_gin
from training_runs import run_here, toy_stages

from hiptrack.config.portable import component_text
from hiptrack.data.clips import ClipData, ClipDataset, Geometry
from hiptrack.data.folders import FolderDataset
from hiptrack.data.labels import FrameLabels
from hiptrack.data.sampling import CausalSampler
from hiptrack.errors import ConfigError
from hiptrack.evaluation.metrics import summarise_multi_label
from hiptrack.evaluation.score import as_dict, evaluate_sequences
from hiptrack.evaluation.table import format_table
from hiptrack.models.challenge import ChallengeOutput
from hiptrack.models.heads import HeadMaps
from hiptrack.models.hiptrack import Prediction
from hiptrack.models.weights import load_model, read_metadata, save_weights
from hiptrack.taxonomy import CLASSES, TEN
from hiptrack.tracking.tracker import Tracker
from hiptrack.training.log import read_metrics
from hiptrack.training.losses import MultiLabelChallengeLoss
from hiptrack.training.step import TrainingStep

pytestmark = pytest.mark.usefixtures("clean_gin")

MULTI_LABEL = [
    "Stage.losses=[@GIoULoss(), @L1Loss(), @CenterFocalLoss(), @MultiLabelChallengeLoss()]",
    "ChallengeBranch.activation=sigmoid",
]


def test_targets_hold_every_flag_and_normal_where_there_is_none():
    flags = np.zeros((4, 9), bool)
    flags[0, [0, 7]] = flags[3, 2] = True
    labels = FrameLabels(flags, np.array([True, True, False, True]), TEN)
    occluded = [1, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert labels.multi_hot([1, 0, 2]).tolist() == [[0] * 9 + [1], occluded, [-1] * 10]
    assert labels.multi_hot([3, 3]).tolist() == [[0, 0, 1] + [0] * 7] * 2


def clip_of(annotations, synthetic, index):
    dataset = FolderDataset(str(synthetic), "train", annotations)
    data = ClipDataset(ClipData([dataset], sampler=CausalSampler(3, 5)), Geometry(32, 64, 2.0, 5.0), 0, 0)
    sample = data[(0, index)]
    name, frames = sample["source"].split(" frames ")
    sequence = next(s for s in dataset.sequences if s.name == name)
    return sample, sequence, [int(number) - 1 for number in frames.strip("[]").split(",")][1:]


def test_clips_carry_the_flags_of_the_frames_they_name(synthetic):
    for index in range(6):
        sample, sequence, search = clip_of(f"{synthetic}/annotations", synthetic, index)
        assert sample["flags"].shape == (3, 10) and sample["flags"].dtype == torch.float32
        for row, label, frame in zip(sample["flags"], sample["labels"].tolist(), search, strict=True):
            assert np.array_equal(row[:9].numpy(), sequence.labels.flags[frame])
            assert row[9] == (not sequence.labels.flags[frame].any()) and row[label] == 1
    sample, _, _ = clip_of(None, synthetic, 0)
    assert (sample["flags"] == -1).all() and (sample["labels"] == -1).all()


RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2.5, (7, 10))
FLAGS = (RNG.random((7, 10)) < 0.25).astype(float)
FLAGS[[2, 5]] = -1


def expected_loss(gamma_positive, gamma_negative, margin):
    """Ridnik et al., eq. 4 to 7, number by number."""
    total = 0.0
    for logits, flags in zip(LOGITS.tolist(), FLAGS.tolist(), strict=True):
        for logit, flag in zip(logits, flags, strict=True):
            p = 1 / (1 + math.exp(-logit))
            if flag == 1:
                total -= (1 - p) ** gamma_positive * math.log(p)
            elif flag == 0:
                shifted = max(p - margin, 0.0)
                total -= shifted**gamma_negative * math.log(1 - shifted)
    return total


def loss_of(loss, logits, flags=FLAGS):
    return loss(SimpleNamespace(challenge=SimpleNamespace(logits=logits)), torch.as_tensor(flags))


@pytest.mark.parametrize(
    "kind, gamma_positive, gamma_negative, margin",
    [
        ("bce", 0, 0, 0),
        ("asymmetric", 0, 4, 0.05),
        ("asymmetric", 1, 4, 0.2),
        ("asymmetric", 0.5, 2, 0),
        ("asymmetric", 0, 0, 0),
    ],
)
def test_loss_is_the_papers(kind, gamma_positive, gamma_negative, margin):
    loss = MultiLabelChallengeLoss(1.0, kind, gamma_positive, gamma_negative, margin)
    assert loss.weight == 1.0 and int(loss.count(torch.as_tensor(FLAGS))) == 5
    value = loss_of(loss, torch.as_tensor(LOGITS)).item()
    assert value == pytest.approx(expected_loss(gamma_positive, gamma_negative, margin), rel=1e-5)


@pytest.mark.parametrize("kind", ["bce", "asymmetric"])
def test_unlabelled_frames_do_not_teach(kind):
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss_of(MultiLabelChallengeLoss(kind=kind), logits).backward()
    assert (logits.grad.abs().sum(1) > 0).tolist() == [True, True, False, True, True, False, True]
    nobody = np.full((7, 10), -1.0)
    loss = MultiLabelChallengeLoss(kind=kind)
    assert loss_of(loss, logits, nobody).item() == 0 and int(loss.count(torch.as_tensor(nobody))) == 0


@pytest.mark.parametrize("margin", [0.0, 0.05])
@pytest.mark.parametrize("logit", [-100.0, 100.0])
def test_saturated_half_precision_stays_finite(logit, margin):
    for kind in ("bce", "asymmetric"):
        logits = torch.full((1, 10), logit, dtype=torch.bfloat16, requires_grad=True)
        value = loss_of(MultiLabelChallengeLoss(kind=kind, margin=margin), logits, np.array([[1.0] * 5 + [0.0] * 5]))
        value.backward()
        assert value.dtype == torch.float32 and value.isfinite() and logits.grad.isfinite().all()


def test_average_precision_and_f1_of_the_classes_that_occur():
    truth = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    probabilities = np.array([[0.9, 0.9, 0.5, 0.9], [0.1, 0.1, 0.5, 0.1], [0.8, 0.2, 0.5, 0.1], [0.7, 0.3, 0.5, 0.1]])
    numbers = summarise_multi_label(truth, probabilities)
    assert numbers["average_precisions"] == pytest.approx([1, 0.25, 0.25, None])  # equal scores share a threshold
    assert numbers["f1"] == pytest.approx([0.8, 0, 0, None])  # found is what lies above 0.5
    assert numbers["mean_average_precision"] == pytest.approx(0.5) and numbers["macro_f1"] == pytest.approx(0.8 / 3)
    assert numbers["counts"] == [2, 1, 1, 0] and numbers["frames"] == 4


class Answers(torch.nn.Module):
    """A model that gives two frames of three clips these logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits, dtype=torch.float32).reshape(3, 2, 10))

    def forward(self, *_):
        maps, box = HeadMaps(*torch.zeros(3, 3, 2, 4, 4)), torch.full((3, 2, 4), 0.5)
        return Prediction(maps, box, ChallengeOutput(self.logits, self.logits.sigmoid(), self.logits, None))


def test_accuracy_in_training_counts_frames_whose_most_probable_class_is_among_their_flags():
    AcceleratorState._reset_state(reset_partial_state=True)
    logits, flags = LOGITS[:6], FLAGS[:6].copy()  # the frames 2 and 5 are unlabelled
    flags[[0, 3], logits[[0, 3]].argmax(1)], flags[1, logits[1].argmax()] = 1, 0
    flags[0, :2] = 1
    right = [flags[row, logits[row].argmax()] == 1 for row in (0, 1, 3, 4)]
    assert sum(right) in (2, 3) and flags[0].sum() > 1
    labels = torch.tensor(np.where(flags[:, 0] < 0, -1, flags.argmin(1))).reshape(3, 2)  # not what is counted here
    batch = {"template": None, "template_box": None, "search": torch.zeros(3, 2, 1), "labels": labels}
    batch |= {"flags": torch.tensor(flags).float().reshape(3, 2, 10), "boxes_xywh": torch.full((3, 2, 4), 0.25)}
    scalars, _ = TrainingStep(Accelerator(cpu=True), Answers(logits), [MultiLabelChallengeLoss()]).backward([batch])
    assert scalars["Accuracy"] == sum(right) / 4


class Oracle:
    """Gives each frame its flags, one of them in doubt, and the first box for ever."""

    def __init__(self, sequences, multi_label):
        self.multi_label = multi_label
        self.flags = {tuple(s.boxes_xywh[0]): s.labels.multi_hot(range(len(s))) for s in sequences}

    def init(self, _, box_xywh):
        self.box, self.frame = box_xywh, 0

    def update(self, _):
        self.frame += 1
        challenge = np.where(self.flags[tuple(self.box)][self.frame] > 0, 0.9, 0.1)
        challenge[CLASSES.index("motion_blur")] = 0.4
        return SimpleNamespace(box=self.box, score=1.0, challenge=challenge)


def test_evaluation_reports_all_classes_where_the_tracker_says_so(synthetic):
    sequences = FolderDataset(str(synthetic), "val", f"{synthetic}/annotations").sequences
    report = evaluate_sequences(Oracle(sequences, True), sequences)
    numbers = as_dict(report)["multi_label"]
    flags = np.concatenate([s.labels.multi_hot(range(1, len(s))) for s in sequences])
    assert numbers["frames"] == len(flags) == report.classification["frames"]
    assert numbers["counts"] == flags.sum(0).tolist()
    for name, count, f1 in zip(CLASSES, numbers["counts"], numbers["f1"], strict=True):
        assert f1 == (None if count == 0 else 0 if name == "motion_blur" else 1)
    assert "mean average precision" in format_table(report)
    single = evaluate_sequences(Oracle(sequences, False), sequences)
    assert single.multi_label is None and as_dict(single)["multi_label"] is None
    assert single.classification == report.classification and "average precision" not in format_table(single)


def test_a_weights_file_says_itself_that_its_classes_are_independent(tmp_path):
    paths = {activation: tmp_path / f"{activation}.safetensors" for activation in ("softmax", "sigmoid")}
    results = {}
    pictures, box = moving_target(2)
    for activation, path in paths.items():
        gin.clear_config()
        gin.parse_config([toy_gin(challenge="ChallengeBranch"), f"ChallengeBranch.activation = '{activation}'"])
        save_weights(path, randomise(gin.get_configurable("HIPTrack")()), component_text("HIPTrack"))
        tracker = Tracker.from_checkpoint(path, "cpu", branch="on")
        tracker.init(pictures[0], box)
        results[activation] = tracker.update(pictures[1]).challenge
        assert tracker.multi_label == (activation == "sigmoid")
        assert not Tracker.from_checkpoint(path, "cpu").multi_label
        assert f'"activation": "{activation}"' in read_metadata(path)["model"]
    logits = np.log(results["sigmoid"] / (1 - results["sigmoid"]))
    exponentials = np.exp(logits - logits.max())
    assert results["softmax"] == pytest.approx(exponentials / exponentials.sum(), abs=1e-5)
    assert results["sigmoid"].sum() != pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (MULTI_LABEL[:1], "MultiLabelChallengeLoss needs ChallengeBranch.activation = 'sigmoid', not 'softmax'"),
        (MULTI_LABEL[1:], "ChallengeLoss needs ChallengeBranch.activation = 'softmax', not 'sigmoid'"),
    ],
)
def test_a_loss_that_does_not_fit_the_activation_stops_the_run_at_its_start(synthetic, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        run_here(["tests/support/toy.gin"], [*toy_stages(synthetic), *overrides], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_learns_logs_and_validates_all_classes(synthetic, tmp_path):
    overrides = [o for o in toy_stages(synthetic, branch=12) if not o.startswith("train.validation")]
    files = ["tests/support/toy.gin", "gin/eval/branch_on.gin"]
    run_here(files, [*overrides, *MULTI_LABEL, "branch/Stage.lr=1e-2", "Validation.every=12"], tmp_path / "run")
    curves = read_metrics(tmp_path / "run")
    losses = [value for _, value in curves["Loss/classification"]]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:3])
    assert {
        "Accuracy",
        "Validation/accuracy",
        "Validation/mean_average_precision",
        "Validation/macro_f1",
    } <= curves.keys()
    assert any(name.startswith("Validation/f1/") for name in curves)
    assert load_model(tmp_path / "run" / "model.safetensors").challenge.activation == "sigmoid"
