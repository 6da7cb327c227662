"""Each parameter of each configurable does something: another value of it makes another model, clip, step or track."""

import itertools
import zlib
from pathlib import Path

import gin
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from parameter_table import TABLE, TOY
from reader_table import READER_PARAMETERS
from torch.autograd.graph import saved_tensors_hooks

from hiptrack import config
from hiptrack.config.meaning import matching, parameters, registered
from hiptrack.config.portable import component_text
from hiptrack.config.syntax import read_override
from hiptrack.data.clips import ClipDataset, Geometry
from hiptrack.data.folders import FolderDataset
from hiptrack.data.loader import collate, divide_batch
from hiptrack.data.reading import read_image_rgb
from hiptrack.evaluation.evaluate import EvaluationOptions, evaluate
from hiptrack.extras.world import world  # noqa: F401  registers its name
from hiptrack.models.backbone import create_vit
from hiptrack.models.challenge import taxonomy_of
from hiptrack.models.initial import TimmWeights
from hiptrack.models.prepare import lay_out
from hiptrack.models.weights import save_weights
from hiptrack.training.checkpoint import Position
from hiptrack.training.run_folder import TrainRequest
from hiptrack.training.selection import SELECTION, may_choose
from hiptrack.training.step import TrainingStep
from hiptrack.training.train import Training

# HIPTrack alone fits, in no scope; the classes of data have their own tests (test_taxonomy.py), the readers their own table.
GIVEN = {("train", "model"), ("check_annotations", "taxonomy"), ("evaluate", "taxonomy"), *READER_PARAMETERS}
LINES = [(base, line.strip()) for base, lines in TABLE.items() for line in lines.strip().split("\n")]
BUILT = {}  # what the bases make, as far as they were needed


class Reached(Exception):
    """Brings `what`, a tracker, its sequences and the size of its batch, in the place of the tracking itself."""


@pytest.fixture(scope="module")
def folder(synthetic, tmp_path_factory):
    """A working directory with data where the experiments look for them, and a weights file."""
    folder = tmp_path_factory.mktemp("every")
    links = {"got10k": "", "seas": "", "world": "", "annotations": "annotations"}
    links |= {"swapped/train": "val", "swapped/val": "train"}
    links |= {f"few/world_{name}_0001": f"annotations/world_{name}_0001" for name in ("train", "val")}
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
        tracker,
        sequences,
        *,
        taxonomy,
        process_index,
        num_processes,
        gather,
        batch,
        results_dir=None,
        key="",
        protocol=None,
        attribute_sequences="majority",
    ):
        error = Reached()
        error.what = tracker, sequences, batch, taxonomy  # gin hands an error on without its arguments
        raise error

    monkeypatch.chdir(folder)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part, **settings: None)  # a minute, and the same results
    monkeypatch.setattr(Training, "start", lambda run, request: setattr(run, "at", Position()))
    monkeypatch.setattr(Training, "train", lambda run: None)
    monkeypatch.setattr("hiptrack.training.validation.evaluate_sequences", reached)
    monkeypatch.setattr("hiptrack.evaluation.evaluate.evaluate_sequences", reached)
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
    run = Training()
    run.run(TrainRequest(Path("run")))
    yield arguments(run)
    torch.manual_seed(run.seed)
    model = lay_out(run.model(), run.accelerator.device, run.accelerator.mixed_precision)
    for weights in run.initial_weights:
        if isinstance(weights, TimmWeights):
            yield weights.describe()  # more would be a download
        else:
            weights(model)
    for number, stage in enumerate(run.stages):
        yield course(stage)
        data = stage.open_data(model, run.annotations)
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
        run.validation.data.label_by(taxonomy_of(model), run.annotations)
        yield [run.validation.is_due(epoch, 20) for epoch in range(1, 21)]
        yield may_choose(run.validation, {SELECTION: "the validation is on test data"})
        if model.challenge is not None:
            model.challenge.classifier.bias.data[-1] += 5  # sure of one class, so that it is plain which rules apply
        yield tracked(lambda: run.validation(model, run.accelerator))


def arguments(run):
    """What `train` hands on, and does by itself."""
    literals = [value for value in vars(run).values() if isinstance(value, (int, float, type(None)))]
    flags = torch.are_deterministic_algorithms_enabled(), torch.backends.cuda.matmul.allow_tf32
    return literals, run.accelerator.mixed_precision, flags


def course(stage):
    """How long a stage is, in which passes, and how its rate and keep ratio go."""
    epochs = np.linspace(0, stage.epochs, 41)
    rates = [stage.schedule(epoch, stage.epochs) for epoch in epochs]
    ratios = stage.keep_ratio and [stage.keep_ratio(epoch, 0.7) for epoch in epochs]
    passes = divide_batch(stage.batch, 1, stage.largest_pass)
    return stage.name, stage.epochs, stage.steps_per_epoch, passes, rates, ratios


def practised(run, stage, model, dataset):
    """The model after two steps of each phase of a stage, as `Training` takes them, and how much the backward passes had kept."""
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
    tracker, sequences, batch, taxonomy = reached.value.what
    first, *frames = map(read_image_rgb, sequences[0].frames)
    tracker.init(first, sequences[0].boxes_xywh[0])
    results = [plain(list(vars(tracker.update(frame)).values())) for frame in frames]
    return [s.name for s in sequences], batch, repr(taxonomy), tracker.compile, results


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
