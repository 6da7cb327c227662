"""The tracker as files: what they compute, what a program sees of them, and what cannot be exported."""

import json
import re
import shutil
import sys
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from toy import moving_target, randomise, save_toy, toy_branch, toy_model

from hiptrack.cli.__main__ import console
from hiptrack.config import REPO_ROOT
from hiptrack.errors import CheckpointError, ConfigError, HiptrackError, NotFoundError
from hiptrack.export.check import example_tensors, inputs_of
from hiptrack.export.formats import FORMATS
from hiptrack.export.parts import Part, build_parts
from hiptrack.export.write import export
from hiptrack.models.fusion import AttentionFusion
from hiptrack.tracking.exported import ExportedModel, exported_tracker
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


def branch_model(**changes):
    """A toy whose branch is no longer idle."""
    model = toy_model(challenge=lambda **widths: toy_branch(**widths, **changes), seed=3, class_token=bool(changes))
    randomise(model.challenge, seed=5)
    return model


def special_model():
    """A toy with all that adds inputs to the graphs: voters under the box, the class token, a fusion that differs by place."""
    model = toy_model(
        challenge=lambda **widths: toy_branch(
            **widths, feature="class_token", fusion=AttentionFusion, activation="sigmoid"
        ),
        class_token=True,
        elimination_template="box",
        neck_width=24,
        patch=16,
    )
    randomise(model.challenge, seed=5)
    return model


CASES = {  # format, branch, model, sizes of memory
    "onnx": ("onnx", "off", branch_model, (2, 3)),
    "onnx on": ("onnx", "on", branch_model, (3,)),
    "onnx special": ("onnx", "on", special_model, (3,)),
    "torch folded": ("torch", "folded", branch_model, (2, 3)),
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
    boxes, challenges = track(exported_tracker(folder))
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
    tracker = exported_tracker(folder)
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
        _, _, remember, step = parts = build_parts(model if branch == "on" else without_branch(model), [3])
        known = example_tensors(parts)
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
        parts = build_parts(without_branch(model), [3])
        known = example_tensors(parts)
        generator = torch.Generator().manual_seed(0)
        shape = known["key"].shape
        keys = 0.1 * torch.randn(1, 3 * shape[1], shape[2], generator=generator)
        values = torch.randn(1, 3 * shape[1], known["value"].shape[2], generator=generator)
        scores = [run(known["search_grid"], keys, values, torch.tensor([frames]))[0] for frames in (1, 2, 3)]
    assert (scores[0] - scores[1]).abs().max() > 1e-4 and (scores[1] - scores[2]).abs().max() > 1e-4


def test_no_weight_is_in_two_graphs_but_the_two_small_ones():
    model = special_model()
    parts = build_parts(model, [3])
    weights = Counter(name.removeprefix("model.") for part in parts for name, _ in part.named_parameters())
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


class Ranked(Part):
    """Indices by descending value, as the elimination orders them."""

    def __init__(self):
        super().__init__("ranked", ["scores"], ["order"])

    def forward(self, scores):
        return (scores.argsort(dim=1, descending=True, stable=True),)


def test_equal_scores_are_ranked_as_by_pytorch(tmp_path):
    scores = torch.tensor([[1.0, 2.0, 2.0, 0.5, 1.0, 2.0, 1.0, 0.5] * 20])
    FORMATS["onnx"].write(Ranked().eval(), (scores,), tmp_path / "ranked.onnx")
    assert torch.equal(FORMATS["onnx"].load(tmp_path / "ranked.onnx")(scores)[0], Ranked()(scores)[0])


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
    ],
)
def test_settings_that_no_export_has_are_named(exported, tmp_path, change, said):
    folder = damaged(exported, tmp_path)
    settings = json.loads((folder / "tracker.json").read_text())
    (folder / "tracker.json").write_text(json.dumps({**settings, **change}))
    with pytest.raises(CheckpointError, match=re.escape(said)) as raised:
        ExportedModel(folder)
    assert str(raised.value).startswith(f"{folder / 'tracker.json'}: ")


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
