"""Taking the branch out of a checkpoint: what is left tracks bit for bit as before."""

import errno
import os
import subprocess
import sys

import gin
import numpy as np
import pytest
import safetensors.torch
import torch
from toy import moving_target, save_toy, toy_gin, toy_model

from hiptrack.config import REPO_ROOT
from hiptrack.config.portable import component_text
from hiptrack.errors import CheckpointError, HiptrackError, NotFoundError, run_main
from hiptrack.models.published import to_published
from hiptrack.models.strip import halve, strip_branch
from hiptrack.models.weights import load_model, read_metadata, read_tensors, save_weights
from hiptrack.tracking.memory import MemoryPolicy
from hiptrack.tracking.tracker import Tracker

TOOL = REPO_ROOT / "tools" / "strip_cls.py"
BRANCH = {"challenge": "ChallengeBranch", "seed": 4}
FORMS = {
    "residual": BRANCH,
    "direct": {**BRANCH, "neck_width": 16, "fusion": "DirectFusion"},
    "mean and max": {**BRANCH, "feature": "mean_max"},
}


@pytest.fixture(autouse=True)
def cleared():
    gin.clear_config()
    yield
    gin.clear_config()


def track(path, branch="off"):
    memory = MemoryPolicy(template_frames=2, early=(1, 2), interval=2, capacity=3)
    tracker = Tracker.from_checkpoint(path, "cpu", branch=branch, memory=memory)
    pictures, box = moving_target(8, seed=1)
    tracker.init(pictures[0], box)
    results = [tracker.update(picture) for picture in pictures[1:]]
    return np.array([[*result.box, result.score] for result in results])


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_stripped_file_tracks_bitwise_as_the_full_one(tmp_path, form, fold):
    full, stripped = tmp_path / "full.safetensors", tmp_path / "stripped.safetensors"
    save_toy(full, **form)
    before = full.read_bytes()
    strip_branch(full, stripped, fold=fold)
    tensors = safetensors.torch.load_file(stripped)
    assert not [name for name in tensors if "challenge" in name]
    assert set(tensors) == {name for name in safetensors.torch.load_file(full) if not name.startswith("challenge.")}
    text = read_metadata(stripped)["model"]
    assert "ChallengeBranch" not in text and "Fusion" not in text and '"challenge": null' in text
    assert np.array_equal(track(stripped), track(full, "folded" if fold else "off"))
    assert not np.array_equal(track(stripped), track(full, "off" if fold else "folded"))
    assert full.read_bytes() == before
    assert load_model(stripped).challenge is None


def test_the_command(tmp_path):
    """From another directory, as a user types it; a refused fold writes nothing."""
    full, stripped, folder = (
        tmp_path / "full.safetensors",
        tmp_path / "out" / "stripped.safetensors",
        tmp_path / "elsewhere",
    )
    folder.mkdir()
    save_toy(full, **BRANCH)
    script = f"""
import runpy, sys
for argv in (['--input', '../full.safetensors', '--output', '../out/stripped.safetensors', '--fold'],
             ['--input', '../out/stripped.safetensors', '--output', '../out/again.safetensors', '--fold'],
             ['--input', '../gone.safetensors', '--output', '../out/gone.safetensors']):
    sys.argv = ['strip_cls.py', *argv]
    try:
        runpy.run_path({str(TOOL)!r}, run_name='__main__')
    except SystemExit as stop:
        print('exit', int(stop.code or 0))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines() == ["wrote ../out/stripped.safetensors", "exit 0", "exit 1", "exit 1"]
    refused, gone = done.stderr.splitlines()
    assert (
        refused.startswith("error: ") and "stripped.safetensors" in refused and "no challenge branch to fold" in refused
    )
    assert gone.startswith("error: ") and "gone.safetensors" in gone
    assert [entry.name for entry in stripped.parent.iterdir()] == ["stripped.safetensors"]
    assert np.array_equal(track(stripped), track(full, "folded"))


def test_folding_a_file_without_branch_writes_nothing(tmp_path):
    plain, output = tmp_path / "plain.safetensors", tmp_path / "out.safetensors"
    save_toy(plain)
    with pytest.raises(CheckpointError, match="plain.safetensors.*no challenge branch to fold"):
        strip_branch(plain, output, fold=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["plain.safetensors"]


@pytest.mark.parametrize("form", ["GatedFusion", "AttentionFusion"])
def test_a_fusion_without_constant_vector_is_stripped_but_not_folded(tmp_path, form):
    full, output = tmp_path / "full.safetensors", tmp_path / "out.safetensors"
    save_toy(full, **BRANCH, fusion=form)
    with pytest.raises(CheckpointError, match=f"full.safetensors: {form} adds .* no constant vector to fold"):
        strip_branch(full, output, fold=True)
    assert not output.exists()
    strip_branch(full, output)
    assert "Fusion" not in read_metadata(output)["model"]
    assert np.array_equal(track(output), track(full))
    assert not np.array_equal(track(output), track(full, "on"))


def test_stripping_a_file_without_branch_changes_nothing(tmp_path):
    plain, output = tmp_path / "plain.safetensors", tmp_path / "out.safetensors"
    save_toy(plain)
    strip_branch(plain, output)
    ours, theirs = (safetensors.torch.load_file(path) for path in (plain, output))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert read_metadata(output)["model"] == read_metadata(plain)["model"]


@pytest.mark.parametrize("fold", [False, True])
def test_published_form(tmp_path, fold):
    full, output = tmp_path / "full.safetensors", tmp_path / "tracker.pth.tar"
    gin.parse_config(toy_gin(challenge="ChallengeBranch", patch=16) + "\nCenterHead.widths = (16, 16, 8, 8)")
    model = gin.get_configurable("HIPTrack")()
    model.challenge.mean_added.fill_(0.5)
    save_weights(full, model, component_text("HIPTrack"))
    gin.clear_config()
    (tmp_path / "tmp-tracker.pth.tar").write_text("theirs")
    strip_branch(full, output, fold=fold, form="published")
    assert (tmp_path / "tmp-tracker.pth.tar").read_text() == "theirs" and len(list(tmp_path.iterdir())) == 3
    assert set(torch.load(output, weights_only=True)) == {"net"}
    written = read_tensors(output)
    plain = toy_model(patch=16, head_widths=(16, 16, 8, 8))
    expected = to_published(plain)
    assert {name: t.shape for name, t in written.items()} == {name: t.shape for name, t in expected.items()}
    bias = model.state_dict()["history.fuse.conv2.bias"]
    assert torch.equal(written["searchRegionFusion.conv2.bias"], bias + 0.5 if fold else bias)
    assert torch.equal(written["key_comp.weight"], model.state_dict()["history.key_comp.weight"])


@pytest.mark.parametrize("write", [strip_branch, halve])
def test_a_full_disk_leaves_nothing_and_is_told(tmp_path, write, monkeypatch, capsys):
    full, output = tmp_path / "full.safetensors", tmp_path / "out" / "tracker.safetensors"
    save_toy(full, **BRANCH)

    def no_space(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: write(full, output))
    told = f"error: {output}: No space left on device. Make room there, then start the same command again.\n"
    assert (ended.value.code, capsys.readouterr().err) == (1, told)
    assert not list(output.parent.iterdir())


def test_a_model_without_published_form_writes_nothing(tmp_path):
    full, output = tmp_path / "full.safetensors", tmp_path / "tracker.pth.tar"
    save_toy(full, **FORMS["direct"])
    with pytest.raises(CheckpointError, match="no name for neck"):
        strip_branch(full, output, form="published")
    assert [entry.name for entry in tmp_path.iterdir()] == ["full.safetensors"]


def test_the_input_is_never_the_output(tmp_path):
    path, link = tmp_path / "model.safetensors", tmp_path / "link.safetensors"
    save_toy(path, **BRANCH)
    link.symlink_to(path)
    before = path.read_bytes()
    for output in (path, link):
        with pytest.raises(CheckpointError, match="its branch would be lost"):
            strip_branch(path, output)
    assert path.read_bytes() == before


def test_what_is_written_can_be_read(tmp_path):
    """A name that belies the form is refused, or read back all the same."""
    full = tmp_path / "full.safetensors"
    save_toy(full, **BRANCH)
    output = tmp_path / "tracker.pth"
    try:
        strip_branch(full, output)
    except HiptrackError:
        assert not output.exists()
    else:
        assert np.array_equal(track(output), track(full))


@pytest.mark.parametrize("content", [None, b"", b"no weights"], ids=["absent", "empty", "text"])
def test_bad_input_writes_nothing(tmp_path, content):
    path, output = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((CheckpointError, NotFoundError), match="model.safetensors"):
        strip_branch(path, output)
    assert not output.exists()
