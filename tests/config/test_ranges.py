"""Each number that can be configured has a range: the nearest values outside of it are refused before anything is built."""

import typing

import pytest

import hiptrack.evaluation.evaluate
import hiptrack.extras.world.world
import hiptrack.training.train  # noqa: F401  they register their names
from hiptrack import config
from hiptrack.config.checks import fits
from hiptrack.config.meaning import matching, parameters, registered
from hiptrack.errors import ConfigError
from hiptrack.tracking.adaptation import Adaptation, Rule
from hiptrack.tracking.memory import MemoryPolicy

# (values that are taken, values that are refused, the parameters)
TABLE = [
    (
        [1, 10**6],
        [0, -1],
        """train.log_every train.save_steps train.keep_checkpoints Validation.every Validation.sequences Validation.batch
        evaluate.batch Stage.epochs Stage.batch Stage.clips Stage.largest_pass TimmSchedule.cycles ConsistencyLoss.max_gap
        CausalSampler.search_frames CausalSampler.max_gap RandomIntervalSampler.search_frames
        RandomIntervalSampler.max_gap HIPTrack.neck_width Backbone.template_size Backbone.search_size Backbone.width
        Backbone.depth Backbone.heads Backbone.patch HistoricalPrompt.key_width HistoricalPrompt.trunk_width
        ChallengeBranch.hidden_width ChallengeBranch.fusion_width AttentionFusion.heads
        Tracker.margin MemoryPolicy.template_frames MemoryPolicy.interval MemoryPolicy.capacity World.scenes""",
    ),
    (
        [1e-9, 1e9],
        [0, -0.1],
        """Stage.lr Stage.grad_clip PolynomialSchedule.power KeepRatioSchedule.length
        HIPTrack.template_factor HIPTrack.search_factor""",
    ),
    (
        [0, 0.5, 1e9],
        [-0.1],
        """train.save_minutes AdamW.weight_decay SGD.weight_decay TimmOptimizer.weight_decay CosineSchedule.warmup_epochs
        PolynomialSchedule.warmup_epochs TimmSchedule.warmup_epochs KeepRatioSchedule.start GIoULoss.weight L1Loss.weight
        CenterFocalLoss.weight CenterFocalLoss.alpha CenterFocalLoss.beta ChallengeLoss.weight ChallengeLoss.alpha
        ChallengeLoss.gamma MultiLabelChallengeLoss.weight MultiLabelChallengeLoss.gamma_positive
        MultiLabelChallengeLoss.gamma_negative ConsistencyLoss.weight Augmentation.scale_jitter
        Augmentation.centre_jitter HardExamples.exponent COCODataset.smallest""",
    ),
    (
        [0, 0.5, 1],
        [-0.1, 1.1],
        """train.max_unreadable CosineSchedule.final PolynomialSchedule.final TimmSchedule.final ChallengeLoss.smoothing
        Augmentation.grey Augmentation.flip Augmentation.brightness HardExamples.uniform ChallengeBranch.momentum
        Rule.above Rule.size_rate Adaptation.size_rate World.camera World.deformation World.camouflage World.occlusion
        World.cut World.light World.weather World.blur World.noise World.compression World.sea""",
    ),
    (
        [0, 0.9],
        [-0.1, 1],
        """SGD.momentum MultiLabelChallengeLoss.margin HardExamples.inertia Backbone.drop_path ChallengeBranch.dropout
        Tracker.smoothing""",
    ),
    (
        [0.1, 1],
        [0, -0.1, 1.1],
        "Stage.layer_decay StepSchedule.factor TimmSchedule.cycle_decay Backbone.keep_ratio Rule.score_below",
    ),
    ([0, 10**6], [-1], "train.workers train.pictures World.seed"),
    ([0, 2**31 - 1], [-1, 2**31], "train.seed"),
    ([0.1, 10**6], [0, -1, 10**7], "train.loader_timeout"),
    ([2, 8], [1, 0], "AttentionFusion.tokens World.frames"),
    ([16, 512], [15], "World.canvas"),
    ([0, 100], [-0.1, 101], "World.speed"),
    ([0, 1000], [-0.1, 1001], "World.lookalikes World.clutter"),
    ([(4, 4)], [(3.9, 10)], "World.sizes"),
    ([0.1, 4], [0, 4.1], "Rule.search_scale"),
    ([(0, 0.9)], [(0, 1), (-0.1, 0.9)], "AdamW.betas TimmOptimizer.betas"),
    ([(), (0, 9)], [(3, -1)], "StepSchedule.milestones Backbone.elimination_blocks"),
    ([(1, 9)], [(3, 0)], "CenterHead.widths MemoryPolicy.early"),
    ([[0, 2.0]], [[1, -0.1]], "ClipData.ratios"),
    ([[0], [11, 3]], [[], [-1], [3, 12]], "TrackingNetDataset.chunks"),
    ([{0: ["all"]}, {0: ["neck"], 3: ["all"]}], [{}, {-1: ["all"], 0: ["neck"]}], "Stage.trainable"),
    ([{"neck": 0}, {"neck": 2.0}], [{"neck": 1.0, "backbone": -0.1}], "Stage.lr_multipliers"),
    ([{"fog": 0}, {"fog": 2.0}, "balanced"], [{"fog": 1.0, "normal": -0.1}], "ChallengeLoss.class_weights"),
]
RANGES = {name: (taken, refused) for taken, refused, names in TABLE for name in names.split()}


def numbers(hint):
    """Whether a hint is of numbers, or of what holds some."""
    return hint in (int, float) or any(map(numbers, typing.get_args(hint)))


def test_every_number_has_its_line():
    found = {
        f"{entry.name}.{name}"
        for entry in registered()
        if entry.wrapped.__module__.startswith("hiptrack.")
        for name, parameter in parameters(entry).items()
        if name not in (entry.denylist or ()) and numbers(parameter.annotation)
    }
    assert found == set(RANGES)


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: MemoryPolicy(interval=0), "MemoryPolicy.interval = 0: at least 1"),
        (lambda: MemoryPolicy(early=(0, 5)), r"MemoryPolicy.early = \(0, 5\): each at least 1"),
        (lambda: Rule(score_below=0.3, size_rate=-1), "Rule.size_rate = -1: a number from 0 to 1"),
        (lambda: Adaptation([], size_rate=5), "Adaptation.size_rate = 5: a number from 0 to 1"),
    ],
)
def test_a_program_that_tracks_is_held_to_them_too(build, words):
    with pytest.raises(ConfigError, match=words):
        build()


@pytest.mark.parametrize("name", RANGES)
def test_what_lies_outside_is_refused(name, clean_gin):
    taken, refused = RANGES[name]
    selector, _, parameter = name.partition(".")
    assert all(fits(value, parameters(matching(selector)[0])[parameter].annotation) for value in taken)
    for value in refused:
        with pytest.raises(ConfigError, match="at least|at most|above|below|a number from") as error:
            config.load([], [f"{name}={value!r}"], "train")
        assert str(error.value).startswith(f'command line: "{name}={value!r}": {name} = {value!r}: ')
