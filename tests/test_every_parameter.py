"""Each parameter of each configurable does something: another value of it makes another model, clip, step or track."""

import itertools
import zlib
from pathlib import Path

import gin
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from test_reader_parameters import READER_PARAMETERS
from torch.autograd.graph import saved_tensors_hooks
from training_runs import TOY_BRANCH, TOY_MODEL

from hiptrack import config
from hiptrack.component import component_text
from hiptrack.config_parse import read_override
from hiptrack.config_walk import matching, parameters, registered
from hiptrack.data.clips import ClipDataset, Geometry
from hiptrack.data.loader import collate, divide_batch
from hiptrack.data.sequences import FolderDataset, read_image_rgb
from hiptrack.models.backbone import create_vit
from hiptrack.models.pretrained import TimmWeights
from hiptrack.models.weights import save_weights
from hiptrack.tracking.evaluate_checkpoint import EvaluationOptions, evaluate
from hiptrack.training.loop import TrainingStep
from hiptrack.training.run import Run
from hiptrack.training.train import RunOptions, train

PLAIN = [*TOY_MODEL, "CausalSampler.search_frames=2"]
TOY = [*PLAIN, *TOY_BRANCH, "TrackerWeights.path=None"]
PARTS = [*(line for line in TOY_MODEL if line.startswith("Backbone.") and "depth" not in line), *TOY_BRANCH]
TRACKING = "Stage.losses=[@GIoULoss(), @L1Loss(), @CenterFocalLoss()]"
TIMM = ["train.initial_weights=[@TimmWeights()]", "TimmWeights.name=vit_tiny_patch16_224"]
RULES = ("Adaptation.rules=[@occlusion/Rule(), @low_score/Rule(), @scale/Rule()]", "Adaptation.size_rate=0.7")
RULES += ("low_score/Rule.write_memory=False", "low_score/Rule.search_scale=1.3", "low_score/Rule.size_rate=None")

# {(file below experiments/, overrides): lines}, or "evaluate" for tools/eval.py. A line is NAME=VALUE, and after "&" what that
# value needs. Where one class alone fits, a scope stands for another one: @wide/CenterHead (what scopes would hide of TOY is
# not in PARTS). With HIPTrack.search_factor = 2 a toy target is larger than a cell, so that its heat map has a slope.
TABLE = {
    ("two_stage", *TOY): """
        train.stages=[@branch/Stage()]
        train.seed=1
        train.deterministic=False
        train.mixed_precision=bf16
        train.workers=1
        train.loader_timeout=60.0
        train.max_unreadable=0.5
        train.log_every=1
        train.save_steps=5
        train.save_minutes=1.0
        train.keep_checkpoints=1
        train.pictures=0
        TrackerWeights.path=toy.safetensors
        Validation.data=@FolderDataset()
        Validation.every=2
        Validation.tracker=@wide/Tracker & wide/Tracker.margin=110
        Validation.sequences=1
        Validation.batch=2
        Tracker.branch=on
        Tracker.memory=@MemoryPolicy() & MemoryPolicy.interval=2
        Tracker.margin=110
        Tracker.precision=bf16
        Tracker.compile=True
        Tracker.adaptation=@Adaptation() & Adaptation.rules=[] & Adaptation.size_rate=0.5
        Stage.data=@grey/ClipData & grey/Augmentation.grey=1.0
        Stage.losses=[@GIoULoss(), @L1Loss(), @CenterFocalLoss()]
        branch/Stage.epochs=20
        branch/Stage.lr=1e-2
        Stage.batch=16
        Stage.clips=320
        branch/Stage.trainable=['challenge', 'box_head']
        Stage.lr_multipliers={'challenge': 0.1}
        finetune/Stage.layer_decay=0.5
        Stage.optimizer=@SGD
        Stage.schedule=@CosineSchedule()
        Stage.keep_ratio=@KeepRatioSchedule()
        Stage.grad_clip=1e-3
        Stage.largest_pass=8
        finetune/Stage.activation_checkpointing=True
        AdamW.weight_decay=0.5
        AdamW.betas=(0.5, 0.9)
        ClipData.datasets=[@eval/FolderDataset()]
        ClipData.priority=@HardExamples()
        ClipData.augmentation=@grey/Augmentation() & grey/Augmentation.grey=1.0
        ClipData.reduced_decoding=False
        CausalSampler.search_frames=3
        CausalSampler.max_gap=1
        Augmentation.grey=1.0
        Augmentation.flip=0.0
        Augmentation.brightness=0.5
        Augmentation.scale_jitter=0.1
        Augmentation.centre_jitter=1.0
        FolderDataset.root=data/swapped
        branch/FolderDataset.split=val
        FolderDataset.annotations=data/few
        branch/FolderDataset.include=['synth_train_0001', 'synth_train_0002']
        branch/FolderDataset.exclude=['synth_train_0001', 'synth_train_0002']
        FolderDataset.name=sea
        GIoULoss.weight=1.0
        L1Loss.weight=1.0
        CenterFocalLoss.weight=2.0
        CenterFocalLoss.alpha=3.0
        ChallengeLoss.weight=0.5
        ChallengeLoss.kind=focal
        HIPTrack.neck_width=16
        HIPTrack.template_factor=3.0
        HIPTrack.search_factor=4.0
        Backbone.name=vit_base_patch16_clip_224
        Backbone.template_size=48
        Backbone.search_size=96
        Backbone.width=48
        Backbone.depth=3
        Backbone.heads=4
        Backbone.patch=16
        Backbone.patch_embed=@ConvStem
        Backbone.class_token=True
        Backbone.elimination_blocks=(0,)
        Backbone.keep_ratio=0.4
        Backbone.elimination_template=all
        Backbone.drop_path=0.3
        HistoricalPrompt.key_width=16
        HistoricalPrompt.trunk_width=16
        CenterHead.widths=(8, 4)
        ChallengeBranch.hidden_width=24
        ChallengeBranch.fusion_width=16
        ChallengeBranch.dropout=0.5
        ChallengeBranch.fusion=@GatedFusion
        ChallengeBranch.momentum=0.9
    """,
    ("two_stage", *TOY, "train.validation=None"): "train.validation=@Validation()",
    ("two_stage", *TOY, TRACKING, "HIPTrack.search_factor=2.0", "Tracker.branch=on"): """
        CenterFocalLoss.beta=2.0
        ChallengeBranch.classes=7
        ChallengeBranch.activation=sigmoid
    """,
    ("demo", *PARTS): """
        train.initial_weights=[@TimmWeights()] & TimmWeights.name=vit_base_patch16_224.mae
        HIPTrack.backbone=@wide/Backbone & wide/Backbone.depth=3
        HIPTrack.history=@wide/HistoricalPrompt & wide/HistoricalPrompt.key_width=16
        HIPTrack.head=@wide/CenterHead & wide/CenterHead.widths=(16,)
    """,
    ("two_stage", *TOY, "ChallengeLoss.kind=label_smoothing"): "ChallengeLoss.smoothing=0.3",
    ("two_stage", *TOY, "ClipData.datasets=[@FolderDataset(), @eval/FolderDataset()]"): "ClipData.ratios=[0.0, 1.0]",
    ("two_stage", *TOY_MODEL, *TOY_BRANCH, *TIMM): "TimmWeights.name=vit_base_patch16_224.mae",
    ("two_stage", *PLAIN, *TOY_BRANCH, "TrackerWeights.path=toy.safetensors"): "TrackerWeights.branch=False",
    ("smoothed", *TOY, "Tracker.memory=@MemoryPolicy()"): """
        Tracker.smoothing=0.5
        MemoryPolicy.template_frames=12
        MemoryPolicy.early=(3, 7)
        MemoryPolicy.interval=2
        MemoryPolicy.capacity=1
    """,
    ("adaptive", *TOY, *RULES): """
        Adaptation.rules=[@low_score/Rule(), @more/Rule()] & more/Rule.score_below=1.0 & more/Rule.size_rate=0.1
        Adaptation.size_rate=0.2
        occlusion/Rule.challenge=normal
        occlusion/Rule.above=0.0
        low_score/Rule.score_below=0.01
        low_score/Rule.write_memory=True
        low_score/Rule.search_scale=2.0
        low_score/Rule.size_rate=0.4
    """,
    ("ablate/multi_label_bce", *TOY): "MultiLabelChallengeLoss.kind=asymmetric",
    ("multi_label", *TOY): """
        MultiLabelChallengeLoss.weight=0.5
        MultiLabelChallengeLoss.gamma_positive=1.0
        MultiLabelChallengeLoss.gamma_negative=2.0
        MultiLabelChallengeLoss.margin=0.2
    """,
    ("consistent", *TOY, "ChallengeLoss.kind=focal"): """
        ChallengeLoss.alpha=0.5
        ChallengeLoss.gamma=1.0
        ConsistencyLoss.weight=1.0
        ConsistencyLoss.max_gap=1
    """,
    ("hard_examples", *TOY): """
        HardExamples.exponent=2.0
        HardExamples.uniform=0.5
        HardExamples.inertia=0.9
    """,
    ("ablate/attention_fusion", *TOY, "Backbone.class_token=True"): """
        ChallengeBranch.feature=class_token
        AttentionFusion.tokens=2
        AttentionFusion.heads=2
    """,
    ("ablate/random_interval", *TOY_MODEL, *TOY_BRANCH, "TrackerWeights.path=None"): """
        ClipData.sampler=@CausalSampler()
        RandomIntervalSampler.search_frames=3
        RandomIntervalSampler.max_gap=6
    """,
    ("ablate/sgd", *TOY, "Stage.schedule=@CosineSchedule()"): """
        SGD.momentum=0.5
        SGD.weight_decay=0.5
        CosineSchedule.warmup_epochs=3
        CosineSchedule.final=0.2
    """,
    ("ablate/lamb", *TOY, "Stage.schedule=@PolynomialSchedule()"): """
        TimmOptimizer.name=lion
        TimmOptimizer.weight_decay=0.5
        TimmOptimizer.betas=(0.5, 0.9)
        PolynomialSchedule.power=2.0
        PolynomialSchedule.warmup_epochs=2
        PolynomialSchedule.final=0.1
    """,
    ("ablate/restarts", *TOY): """
        TimmSchedule.name=tanh
        TimmSchedule.cycles=2
        TimmSchedule.cycle_decay=0.8
        TimmSchedule.warmup_epochs=2
        TimmSchedule.final=0.1
    """,
    ("hiptrack_got10k", *PLAIN, "BackboneWeights.path=None"): """
        HIPTrack.challenge=@ChallengeBranch & ChallengeBranch.hidden_width=16
        BackboneWeights.path=vit.pth
        tracker/StepSchedule.milestones=(3,)
        StepSchedule.factor=0.5
        tracker/KeepRatioSchedule.start=40
        tracker/KeepRatioSchedule.length=40
    """,
    ("nano", *PARTS, "train.stages=[@hard/Stage()]"): """
        World.seed=1
        World.scenes=5
        World.frames=20
        World.canvas=32
        World.textures=['marble']
        World.shapes=['glyph']
        World.sizes=(60.0, 90.0)
        World.speed=2.0
        World.camera=1.0
        World.deformation=1.0
        World.lookalikes=3.0
        World.clutter=1.0
        World.camouflage=1.0
        World.occlusion=1.0
        World.cut=1.0
        World.light=1.0
        World.weather=1.0
        World.blur=1.0
        World.noise=1.0
        World.compression=1.0
        World.name=earth
    """,
    ("evaluate",): """
        evaluate.tracker=@wide/Tracker & wide/Tracker.margin=110
        evaluate.batch=2
    """,
}
GIVEN = {("train", "model"), *READER_PARAMETERS}  # HIPTrack alone fits, in no scope; the readers have their own table
LINES = [(base, line.strip()) for base, lines in TABLE.items() for line in lines.strip().split("\n")]
BUILT = {}  # what the bases make, as far as they were needed


class Reached(Exception):
    """Brings `what`, a tracker, its sequences and the size of its batch, in the place of the tracking itself."""


class UntrainedRun(Run):
    """A Run that trains nothing: it keeps what it is given."""

    def whole(self, build_model, initial_weights, options):
        self.build_model, self.initial_weights = build_model, initial_weights
        return self


@pytest.fixture(scope="module")
def folder(synthetic, tmp_path_factory):
    """A working directory with data where the experiments look for them, and a weights file."""
    folder = tmp_path_factory.mktemp("every")
    links = {"got10k": "", "synthetic": "", "world": "", "annotations": "annotations"}
    links |= {"swapped/train": "val", "swapped/val": "train"}
    links |= {f"few/synth_{name}_0001": f"annotations/synth_{name}_0001" for name in ("train", "val")}
    for link, target in links.items():
        (folder / "data" / link).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / link).symlink_to(synthetic / target)
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8}
    torch.save(create_vit("vit_tiny_patch16_224", 0.0, sizes).state_dict(), folder / "vit.pth")
    torch.manual_seed(7)  # none of the runs'
    config.load(["experiments/two_stage.gin"], TOY, root="train")
    save_weights(folder / "toy.safetensors", gin.get_configurable("HIPTrack")(), component_text("HIPTrack"))
    return folder


@pytest.fixture(autouse=True)
def still(folder, monkeypatch, clean_gin):
    """The working directory, one thread of the CPU, and nothing that trains for long or tracks."""

    def reached(
        tracker, sequences, *, process_index, num_processes, gather, batch, results_dir=None, key="", protocol=None
    ):
        error = Reached()
        error.what = tracker, sequences, batch  # gin hands an error on without its arguments
        raise error

    monkeypatch.chdir(folder)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part, **settings: None)  # a minute, and the same results
    monkeypatch.setattr("hiptrack.training.train.Run", UntrainedRun)
    monkeypatch.setattr("hiptrack.training.validation.evaluate_sequences", reached)
    monkeypatch.setattr("hiptrack.tracking.evaluate_checkpoint.evaluate_sequences", reached)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    AcceleratorState._reset_state(reset_partial_state=True)


def built(base, line=""):
    """What a base of TABLE makes with one of its lines, part after part, so that who compares can stop early."""
    experiment, *overrides = base
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.use_deterministic_algorithms(False)
    overrides += filter(None, line.split(" & "))
    if experiment == "evaluate":
        config.load(["gin/eval/tracker.gin"], overrides, root="evaluate")
        options = EvaluationOptions(Path("toy.safetensors"), FolderDataset("data/got10k", "val"))
        yield tracked(lambda: evaluate(options))
        return
    config.load([f"experiments/{experiment}.gin"], overrides, root="train")
    run = train(RunOptions(Path("run")))
    yield arguments(run)
    torch.manual_seed(run.seed)
    model = run.build_model()
    for weights in run.initial_weights:
        if isinstance(weights, TimmWeights):
            yield weights.describe()  # more would be a download
        else:
            weights(model)
    for number, stage in enumerate(run.stages):
        yield course(stage)
        with gin.config_scope(stage.scope or None):
            data = stage.data()
        stage.check(model, processes=1)
        stage.check_targets(model, data)
        yield [dataset.describe() for dataset in data.datasets]
        if data.priority is not None:
            difficulties = [data.priority.follow(0.5, now) for now in (0.1, 0.3, 0.9)]
            yield plain(data.priority.probabilities(np.array(difficulties)))
        dataset = ClipDataset(data, Geometry.of(model), run.seed, number)
        yield plain([dataset[0, index] for index in range(4)])
        yield practised(run, stage, model, dataset)
    if run.validation is not None:
        yield [run.validation.is_due(epoch, 20) for epoch in range(1, 21)]
        if model.challenge is not None:
            model.challenge.classifier.bias.data[-1] += 5  # sure of one class, so that it is plain which rules apply
        yield tracked(lambda: run.validation(model, run.accelerator))


def arguments(run):
    """What `train` hands on, and does by itself."""
    literals = [value for value in vars(run).values() if isinstance(value, (int, float, type(None)))]
    return literals, run.accelerator.mixed_precision, torch.are_deterministic_algorithms_enabled()


def course(stage):
    """How long a stage is, in which passes, and how its rate and keep ratio go."""
    epochs = np.linspace(0, stage.epochs, 41)
    rates = [stage.schedule(epoch, stage.epochs) for epoch in epochs]
    ratios = stage.keep_ratio and [stage.keep_ratio(epoch, 0.7) for epoch in epochs]
    passes = divide_batch(stage.batch, 1, stage.largest_pass)
    return stage.name, stage.epochs, stage.steps_per_epoch, passes, rates, ratios


def practised(run, stage, model, dataset):
    """The model after two steps of each phase of a stage, as `StageRun` takes them, and how much the backward passes had kept."""
    torch.manual_seed(run.seed)
    kept = []
    batch = collate([dataset[0, index] for index in range(4)])
    for phase in stage.phases:
        stage.prepare(model, phase)
        model.train()
        with gin.config_scope(stage.scope or None):
            optimizer = stage.optimizer(stage.parameter_groups(model))
        keep_ratio = stage.keep_ratio(phase.first, model.backbone.keep_ratio) if stage.keep_ratio else None
        for _ in range(2):
            with saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
                TrainingStep(run.accelerator, model, stage.losses_in(model)).backward([batch], keep_ratio)
            if stage.grad_clip is not None:
                torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], stage.grad_clip)
            optimizer.step()
            optimizer.zero_grad()
    return plain(dict(model.state_dict())), sum(kept)


def tracked(track):
    """The sequences that `track` would track, how many at a time, whether compiled, and its tracker's results on the first."""
    with pytest.raises(Reached) as reached:
        track()
    tracker, sequences, batch = reached.value.what
    first, *frames = map(read_image_rgb, sequences[0].frames)
    tracker.init(first, sequences[0].boxes_xywh[0])
    results = [plain(list(vars(tracker.update(frame)).values())) for frame in frames]
    return [s.name for s in sequences], batch, tracker.compile, results


def plain(made):
    """Something nested with arrays and tensors replaced by their shapes and checksums."""
    if isinstance(made, dict):
        return {name: plain(value) for name, value in made.items()}
    if isinstance(made, list):
        return [plain(value) for value in made]
    if isinstance(made, (np.ndarray, torch.Tensor)):
        return tuple(made.shape), zlib.crc32(np.ascontiguousarray(made).tobytes())
    return made


def test_every_parameter_has_its_line():
    known = {
        (entry.selector, name)
        for entry in registered()
        if entry.wrapped.__module__.startswith("hiptrack.")
        for name in parameters(entry)
        if name not in (entry.denylist or ()) and (entry.name, name) not in GIVEN
    }
    keys = [read_override(line.split(" & ")[0]).key[1:] for _, line in LINES]
    assert sorted(known - set(keys)) == [], "parameters without a line in TABLE"
    assert sorted(set(keys) - known) == [], "lines of TABLE without a parameter"
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("base", TABLE, ids=[f"{base[0]} {base[-1]}" for base in TABLE])
def test_building_twice_makes_the_same(base):
    BUILT[base] = list(built(base))
    assert list(built(base)) == BUILT[base]


@pytest.mark.parametrize(("base", "line"), LINES, ids=[line.split("=")[0] for _, line in LINES])
def test_another_value_makes_something_else(base, line):
    if base not in BUILT:
        BUILT[base] = list(built(base))
    override = read_override(line.split(" & ")[0])
    _, selector, name = override.key
    assert override.value != parameters(matching(selector)[0])[name].default
    parts = itertools.zip_longest(BUILT[base], built(base, line))
    assert any(before != now for before, now in parts), f"{line} changes nothing"
