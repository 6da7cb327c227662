"""The tracker as files: what they compute, what a program sees of them, and what cannot be exported."""

import functools
import json
import os
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from export_models import branch_model, special_model
from toy import moving_target, toy_model

from hiptrack.config import REPO_ROOT
from hiptrack.errors import CheckpointError, ConfigError, HiptrackError, NotFoundError
from hiptrack.extras.export.formats import FORMATS
from hiptrack.extras.export.graphs import Graph, build_graphs
from hiptrack.extras.export.tracker import ExportedModel, exported_tracker
from hiptrack.extras.export.write import example_tensors, export, inputs_of
from hiptrack.tracking.memory import MemoryPolicy
from hiptrack.tracking.tracker import Tracker

POLICY = {
    "template_frames": 2,
    "early": (1, 2),
    "interval": 2,
    "capacity": 3,
}  # few frames fill the bank and run it over
FRAMES = 14
PIXELS = 1e-2


CASES = {  # format, branch, model, sizes of memory
    "onnx": ("onnx", "off", branch_model, (2, 3)),
    "onnx on": ("onnx", "on", branch_model, (3,)),
    "onnx special": ("onnx", "on", special_model, (3,)),
    "onnx mean and max": ("onnx", "on", functools.partial(branch_model, feature="mean_max"), (3,)),
    "torch folded": ("torch", "folded", branch_model, (2, 3)),
    "torch max": ("torch", "on", functools.partial(branch_model, feature="max"), (3,)),
    "torch special": ("torch", "on", special_model, (3,)),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports a case, once: (folder, the model it was made of, the lines that were said)."""
    made = {}

    def get(case):
        if case not in made:
            form, branch, build, capacities = CASES[case]
            folder, model, said = tmp_path_factory.mktemp("exports") / "tracker", build(), []
            export(model, folder, form, capacities, branch, said.append)
            settings = json.loads((folder / "tracker.json").read_text())
            (folder / "tracker.json").write_text(json.dumps({**settings, "memory": POLICY}))
            made[case] = folder, model, said
        return made[case]

    return get


def track(tracker, seed=1):
    """[FRAMES - 1, 5]: boxes and scores; and the class probabilities, or None."""
    pictures, box = moving_target(FRAMES, seed=seed)
    tracker.init(pictures[0], box)
    results = [tracker.update(picture) for picture in pictures[1:]]
    return np.array([[*result.box, result.score] for result in results]), [result.challenge for result in results]


@pytest.mark.parametrize("case", CASES)
def test_a_sequence_is_tracked_as_by_pytorch(exported, case):
    folder, model, said = exported(case)
    branch = CASES[case][1]
    boxes, challenges = track(exported_tracker(folder, trusted=True))
    expected, named = track(Tracker(model, branch, MemoryPolicy(**POLICY), device="cpu"))
    assert np.abs(boxes - expected).max() < PIXELS
    if branch == "on":
        assert np.abs(np.array(challenges) - np.array(named)).max() < 1e-4
        assert np.ptp(np.array(named), 0).max() > 1e-3  # they differ from frame to frame
    assert len(said) == 3 + 2 * len(CASES[case][3])  # three graphs; of each memory 1 and all slots used
    assert all(float(re.search(r"at most (\S+) ", line)[1]) < 1e-4 for line in said)


@pytest.mark.parametrize("case", ["onnx", "onnx special"])
def test_the_loop_in_the_documentation_is_the_tracker(exported, case):
    folder, model, _ = exported(case)
    (code,) = re.findall(r"```python\n(.*?)```", (REPO_ROOT / "docs" / "export.md").read_text(), re.DOTALL)
    assert "hiptrack" not in code
    names = {}
    exec(code, names)  # noqa: S102  our own text
    tracker = Tracker(model, CASES[case][1], MemoryPolicy(**POLICY), device="cpu")
    loop = names["ExportedTracker"](folder)
    for seed in (1, 2):  # near the borders and away from them
        pictures, box = moving_target(FRAMES, seed=seed)
        tracker.init(pictures[0], box)
        loop.init(pictures[0], box)
        for picture in pictures[1:]:
            expected, (found, score) = tracker.update(picture), loop.update(picture)
            assert np.abs(found - expected.box).max() < PIXELS and abs(score - expected.score) < 1e-4


def test_targets_of_a_batch_are_tracked_as_alone(exported):
    folder, _, _ = exported("onnx on")
    films = [moving_target(FRAMES, seed=seed) for seed in (1, 2)]
    tracker = exported_tracker(folder, trusted=True)
    alone = [track(tracker, seed)[0] for seed in (1, 2)]
    targets = [tracker.start(pictures[0], box) for pictures, box in films]
    for number in range(1, FRAMES):
        for place, result in enumerate(tracker.step(targets, [pictures[number] for pictures, _ in films])):
            assert np.abs(result.box - alone[place][number - 1, :4]).max() < 1e-9


@pytest.mark.parametrize("case", ["onnx", "onnx special", "torch special"])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_step_reads_the_used_slots_alone(exported, case, frames):
    folder, model, _ = exported(case)
    run = FORMATS[CASES[case][0]].load(folder / f"step-3{FORMATS[CASES[case][0]].suffix}")
    branch = CASES[case][1]
    with torch.no_grad():
        _, _, remember, step = graphs = build_graphs(model if branch == "on" else without_branch(model), [3])
        known = example_tensors(graphs)
        one = known["key"].shape[1]
        memory = [
            remembered(remember, known, box)
            for box in ([0.5, 0.5, 0.4, 0.3], [0.3, 0.6, 0.5, 0.5], [0.7, 0.2, 0.2, 0.3])
        ]
        keys, values = (torch.cat([frame[place] for frame in memory], 1) for place in (0, 1))
        exact = step.read(
            known["search_grid"], keys[:, : frames * one], values[:, : frames * one], *pooled(step, known)
        )
        answers = []
        for garbage in (0.0, 1e4, -1e4, torch.inf, torch.nan):
            keys[:, frames * one :], values[:, frames * one :] = garbage, garbage
            filled = {**known, "keys": keys, "values": values, "frames": torch.tensor([frames])}
            answers.append(run(*inputs_of(step, filled)))
    assert len(exact) == 4 + (branch == "on")
    for expected, *found in zip(exact, *answers, strict=True):
        assert all(torch.equal(answer, found[0]) for answer in found)
        assert (found[0] - expected).abs().max() < 1e-4


def without_branch(model):
    plain = toy_model(seed=3)
    plain.load_state_dict({n: t for n, t in model.state_dict().items() if not n.startswith("challenge.")})
    return plain


def pooled(step, known):
    return [known[name] for name in step.inputs[4:]]


def remembered(remember, known, box_cxcywh):
    key, value = remember(known["image"], known["grid"] + box_cxcywh[0], torch.tensor([box_cxcywh]), known["kept"])
    return key, value


def test_each_used_slot_counts(exported):
    folder, model, _ = exported("onnx")
    run = FORMATS["onnx"].load(folder / "step-3.onnx")
    with torch.no_grad():
        graphs = build_graphs(without_branch(model), [3])
        known = example_tensors(graphs)
        generator = torch.Generator().manual_seed(0)
        shape = known["key"].shape
        keys = 0.1 * torch.randn(1, 3 * shape[1], shape[2], generator=generator)
        values = torch.randn(1, 3 * shape[1], known["value"].shape[2], generator=generator)
        scores = [run(known["search_grid"], keys, values, torch.tensor([frames]))[0] for frames in (1, 2, 3)]
    assert (scores[0] - scores[1]).abs().max() > 1e-4 and (scores[1] - scores[2]).abs().max() > 1e-4


def test_no_weight_is_in_two_graphs_but_the_two_small_ones():
    model = special_model()
    graphs = build_graphs(model, [3])
    weights = Counter(name.removeprefix("model.") for graph in graphs for name, _ in graph.named_parameters())
    assert set(weights) == {name for name, _ in model.named_parameters()}
    twice = {name for name, count in weights.items() if count > 1}
    assert all(name.startswith(("backbone.patch_embed.", "backbone.class_", "history.key_proj.")) for name in twice)


@pytest.mark.parametrize("case", ["onnx", "torch folded"])
def test_a_larger_memory_makes_no_larger_file(exported, case):
    smaller, larger = (path.stat().st_size for path in sorted(exported(case)[0].glob("step-*")))
    assert larger < smaller * 1.01


@pytest.mark.parametrize("case", ["onnx special", "onnx"])
def test_the_settings_describe_the_graphs(exported, case):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, model, _ = exported(case)
    settings = json.loads((folder / "tracker.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["tracker.json", *(graph["file"] for graph in settings["graphs"].values())]
    )
    kinds = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int64)": "int64", "tensor(bool)": "bool"}
    for graph in settings["graphs"].values():
        session = onnxruntime.InferenceSession(folder / graph["file"], providers=["CPUExecutionProvider"])
        for described, real in ((graph["inputs"], session.get_inputs()), (graph["outputs"], session.get_outputs())):
            found = [{"name": tensor.name, "type": kinds[tensor.type], "shape": tensor.shape} for tensor in real]
            assert described == found
    assert settings["margin"] == Tracker(model, device="cpu").margin
    assert (settings["search_size"], settings["search_factor"], settings["grid_side"]) == (64, 4.0, model.grid_side)
    assert settings["challenges"] is None if case == "onnx" else settings["challenges"][0] == "occlusion"


def test_the_callers_model_is_left_alone(tmp_path):
    model = branch_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export(model, tmp_path / "out", "torch", [1], "folded", lambda line: None)
    assert model.challenge is not None and all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


class Ranked(Graph):
    """Indices by descending value, as the elimination orders them."""

    def __init__(self):
        super().__init__("ranked", ["scores"], ["order"])

    def forward(self, scores):
        return (scores.argsort(dim=1, descending=True, stable=True),)


def test_equal_scores_are_ranked_as_by_pytorch(tmp_path):
    scores = torch.tensor([[1.0, 2.0, 2.0, 0.5, 1.0, 2.0, 1.0, 0.5] * 20])
    FORMATS["onnx"].write(Ranked().eval(), (scores,), tmp_path / "ranked.onnx")
    assert torch.equal(FORMATS["onnx"].load(tmp_path / "ranked.onnx")(scores)[0], Ranked()(scores)[0])


def damaged(exported, tmp_path):
    """A copy of an export, to be damaged."""
    shutil.copytree(exported("onnx")[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_a_damaged_folder_is_named(exported, tmp_path):
    folder = damaged(exported, tmp_path)
    (folder / "features.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match=r"features\.onnx cannot be loaded"):
        ExportedModel(folder)
    (folder / "features.onnx").unlink()
    with pytest.raises(NotFoundError, match=r"features\.onnx"):
        ExportedModel(folder)
    for text in ("{", "[]", "{}", '{"format": "onnx", "graphs": {"step-x": {}}}', "\x00", "[" * 99999):
        (folder / "tracker.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"tracker\.json"):
            ExportedModel(folder)
    (folder / "tracker.json").unlink()
    with pytest.raises(NotFoundError, match=r"tracker\.json"):
        ExportedModel(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"template_size": "x"}, "template_size = 'x': a whole number above 0"),
        ({"search_size": -1}, "search_size = -1: a whole number above 0"),
        ({"grid_side": 8.0}, "grid_side = 8.0: a whole number above 0"),
        ({"margin": 10**9}, "margin = 1000000000: a whole number above 0, up to 16384"),
        ({"search_factor": float("nan")}, "search_factor = nan: a number above 0"),
        ({"branch": "fold"}, 'branch = \'fold\': "off", "on" or "folded"'),
        ({"memory": None}, "{name: value} was expected, not None"),
        ({"memory": {"intervall": 3}}, 'no setting "intervall"; the nearest valid name is "interval"'),
        ({"memory": {"interval": "x"}}, "interval expects int, not 'x'"),
        (
            {"grid_side": 16384},
            "template_grid of features is float32 [1, 64, 32]; float32 [1, 268435456, 32] was expected",
        ),
        (
            {"search_size": 16384},
            "template_image of template is float32 [1, 3, 64, 64]; float32 [1, 3, 16384, 16384] was",
        ),
        ({"template_size": 64}, "template of template is uint8 [1, 3, 32, 32]; uint8 [1, 3, 64, 64] was expected"),
        (
            {"branch": "on", "challenges": ["a"], "activation": "softmax"},
            'branch = "on" does not fit the outputs of step-2',
        ),
        ({"graphs": {}}, "the graphs ; template, features, remember and step-N were expected"),
    ],
)
def test_settings_that_no_export_has_are_named(exported, tmp_path, change, said):
    folder = damaged(exported, tmp_path)
    settings = json.loads((folder / "tracker.json").read_text())
    (folder / "tracker.json").write_text(json.dumps({**settings, **change}))
    with pytest.raises(CheckpointError, match=re.escape(said)) as raised:
        ExportedModel(folder)
    assert str(raised.value).startswith(f"{folder / 'tracker.json'}: ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda graphs: graphs["step-2"]["inputs"].pop(), "the inputs of step-2 are search_grid, keys, values;"),
        (
            lambda graphs: graphs["step-2"]["outputs"].reverse(),
            "the outputs of step-2 are box_cxcywh, size, offset, score;",
        ),
        (
            lambda graphs: graphs["remember"]["inputs"][0].update(name="search"),
            "the inputs of remember are search, grid,",
        ),
        (
            lambda graphs: graphs["features"]["outputs"][2].update(type="float32"),
            "kept of features is float32 [1, 64]; bool",
        ),
        (
            lambda graphs: graphs["step-3"]["inputs"][1].update(shape=[1, 9, 9]),
            "keys of step-3 is float32 [1, 9, 9]; float32",
        ),
        (
            lambda graphs: graphs["template"]["outputs"][0].update(shape=[1, "N", -3]),
            "template_tokens of template is float32",
        ),
    ],
)
def test_graphs_that_do_not_fit_each_other_are_named(exported, tmp_path, change, said):
    folder = damaged(exported, tmp_path)
    settings = json.loads((folder / "tracker.json").read_text())
    change(settings["graphs"])
    (folder / "tracker.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=re.escape(said)):
        ExportedModel(folder)


@pytest.mark.parametrize("case", ["onnx", "torch folded"])
def test_a_file_that_is_not_what_the_settings_say_is_named(exported, tmp_path, case):
    shutil.copytree(exported(case)[0], tmp_path / "copy")
    suffix = FORMATS[CASES[case][0]].suffix
    shutil.copy(tmp_path / "copy" / f"step-2{suffix}", tmp_path / "copy" / f"step-3{suffix}")
    with pytest.raises(CheckpointError, match=rf"step-3{suffix}: its inputs are .*but tracker.json says"):
        ExportedModel(tmp_path / "copy", trusted=True)


class Pickled:
    """What runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_file_that_runs_code_is_not_read_unless_it_is_trusted(exported, tmp_path, caplog, suffix):
    """Whatever the file is called: the settings say how it is read."""
    folder = tmp_path / "copy"
    shutil.copytree(exported("torch folded")[0], folder)
    if suffix == ".onnx":
        for path in folder.glob("*.pt2"):
            path.rename(path.with_suffix(".onnx"))
    else:
        torch.save(Pickled(tmp_path / "ran"), folder / "template.pt2")
    with pytest.raises(ConfigError, match=r"copy holds \.pt2 files, which can run code .*--trust-export"):
        exported_tracker(folder)
    assert not (tmp_path / "ran").exists() and not caplog.text
    with pytest.raises(HiptrackError):  # its template is none
        exported_tracker(folder, trusted=True)
    assert "its .pt2 files are read, which can run code" in caplog.text


def test_what_the_files_do_not_hold_is_an_error(exported, tmp_path):
    folder, _, _ = exported("onnx")
    with pytest.raises(ConfigError, match=re.escape('Tracker.branch = "on" was expected')):
        track(Tracker(ExportedModel(exported("onnx on")[0]), device="cpu"))
    with pytest.raises(ConfigError, match="device='cpu' was expected"):
        ExportedModel(folder).to("cuda")
    copy = damaged(exported, tmp_path)
    settings = json.loads((copy / "tracker.json").read_text())
    (copy / "tracker.json").write_text(json.dumps({**settings, "memory": {**POLICY, "capacity": 4}}))
    with pytest.raises(ConfigError, match="a memory of 4 frames; the largest step graph holds 3"):
        ExportedModel(copy)
    longer = MemoryPolicy(**{**POLICY, "capacity": 9})
    with pytest.raises(ConfigError, match="A memory of 4 frames, but the largest step of the export holds 3"):
        track(Tracker(ExportedModel(folder), memory=longer, device="cpu"))


def test_an_exported_model_has_its_precision(exported):
    folder = exported("onnx")[0]
    for settings in ({"precision": "bf16"}, {"compile": True}):
        with pytest.raises(ConfigError, match="no effect on an exported model"):
            Tracker(ExportedModel(folder), **settings)
