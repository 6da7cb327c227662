"""docs/mvtd.md: every command as it is written, on real clips in MVTD's form, and again with a lab's own six classes."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from latex_tables import plain_rows
from mvtd_form import RULES, drawn, make_mvtd_form

ROOT = Path(__file__).parents[1]
CLIPS = ROOT.parent / "shared" / "clips" / "val"
HARBOUR = {
    "vlm_response": {"glare": drawn("glare", 0.2), "spray": drawn("spray", 0.2), "occlusion": drawn("occlusion", 0.1)},
    "cv_response": {"haze": drawn("haze", 0.3), "low_res": RULES["cv_response"]["low_res"]},
}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not there")]


def commands(part):
    """The indented lines of a part of docs/mvtd.md: 0, the walk; 1, that with classes of one's own."""
    walk, own_classes = (ROOT / "docs" / "mvtd.md").read_text().split("## Classes of your own")
    text = (walk.split("## Variants")[0], own_classes)[part]
    return "".join(re.findall(r"^(?: {4}.*)?\n", text, re.MULTILINE))


def run(script, folder, rules):
    """Make the data and run a script with small values of the variables; returns its output."""
    make_mvtd_form(CLIPS, folder / "mvtd", rules)
    small = {
        "ROOT": folder / "mvtd", "ANNOTATIONS": folder / "mvtd" / "annotations", "MODEL": "gin/model/hiptrack_nano.gin",
        "WEIGHTS": "nano", "EPOCHS": 1, "FINETUNE_EPOCHS": 1, "CLIPS": 128, "SEQUENCE": "8-USV", "RUN": folder / "run",
        "RESULTS": folder / "results", "CLASSES": folder / "harbour.gin",
    }  # fmt: skip
    for name, value in small.items():
        script = re.sub(rf"^( *{name}=)\S+", rf"\g<1>{value}", script, flags=re.MULTILINE)
    environment = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-eu", "-c", textwrap.dedent(script)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout


def test_the_experiment_on_mvtd_from_the_folders_to_the_table(tmp_path):
    printed = run(commands(0), tmp_path, RULES)
    assert "P_norm0.2" in printed and "balanced accuracy" in printed
    stored = json.loads((tmp_path / "results" / "report.json").read_text())
    assert list(stored["sequences"]) == ["7-Sailboat", "8-USV"] and 0.3 < stored["overall"]["AUC"] < 0.9
    assert not (tmp_path / "results" / "submission.zip").exists()
    for table in (tmp_path / "results" / "report.tex", tmp_path / "results-report" / "by_challenge.tex"):
        assert len(plain_rows(table.read_text())) > 1  # columns, braces and escapes are checked on the way
    assert (tmp_path / "run" / "8-USV.mp4").stat().st_size > 1000


def test_the_same_with_six_classes_of_ones_own(tmp_path):
    variables = commands(0).lstrip("\n").split("\n\n")[0]
    printed = run(f"{variables}\n{commands(1)}", tmp_path, HARBOUR)
    stored = json.loads((tmp_path / "results" / "report.json").read_text())
    assert stored["classification"]["classes"] == ["hidden", "glare", "spray", "small", "faint", "easy"]
    assert "glare" in printed and "partial_visibility" not in printed
