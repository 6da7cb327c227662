"""docs/house.md: which package may import which, and what a command loads."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_videos import write_folder
from toy import moving_target

import hiptrack

ROOT = Path(hiptrack.__file__).parent
# {package: what it may import}. A row names only rows above it: so there is no circle. What lies in hiptrack/ itself is the
# ground, which everything stands on, and which imports no package.
MAY_IMPORT = {
    "nano": "",
    "config": "",
    "models": "nano config",
    "data": "",
    "tracking": "nano config models data",
    "evaluation": "nano config models data tracking",
    "training": "config models data tracking evaluation",
    "extras.world": "data",
    "extras.report": "data evaluation",
    "extras.export": "config models data tracking",
    "extras.video": "models data tracking extras.export",
    "extras.sweep": "config models data evaluation training",
    "extras.benchmark": "nano config models data tracking evaluation training extras.world",
    "extras": "",
}
MAY_IMPORT["cli"] = " ".join(MAY_IMPORT)
DOORS = {  # of the ground to the floors above it
    ("__init__.py", "hiptrack.tracking.tracker"),  # hiptrack.Tracker, which is imported when it is asked for
    ("__main__.py", "hiptrack.cli"),  # python -m hiptrack
}


def package_of(module):
    """The row of a module of hiptrack, by its dotted name; "ground" for those in hiptrack/ itself."""
    if module == "hiptrack.Tracker":
        return "tracking"
    parts = module.split(".")[1:]
    depth = 2 if parts[:1] == ["extras"] else 1
    while depth and not ROOT.joinpath(*parts[:depth]).is_dir():
        depth -= 1
    return ".".join(parts[:depth]) or "ground"


def imports_of(path):
    """(line, dotted name of a module of hiptrack) of each import of a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: write the whole name, from hiptrack..."
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, module) for module in modules if module.split(".")[0] == "hiptrack")


def test_the_rows_name_only_rows_above_them():
    above = []
    for package, allowed in MAY_IMPORT.items():
        assert set(allowed.split()) <= set(above), package
        above.append(package)


def test_every_package_has_a_row():
    folders = [path.parent.relative_to(ROOT) for path in ROOT.rglob("__init__.py") if path.parent != ROOT]
    assert {".".join(folder.parts) for folder in folders} == set(MAY_IMPORT)


def test_a_file_imports_only_what_its_package_may():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        shown = path.relative_to(ROOT).as_posix()
        package = package_of(".".join(("hiptrack", *path.relative_to(ROOT).with_suffix("").parts)))
        allowed = {package, "ground", *MAY_IMPORT.get(package, "").split()}
        for line, module in imports_of(path):
            if package_of(module) not in allowed and (shown, module.rpartition(".")[0]) not in DOORS:
                wrong.append(f"hiptrack/{shown}:{line} ({package}) imports {module}")
    assert wrong == []


def extras_of(tmp_path, command, *arguments):
    """The packages of hiptrack.extras that a command has loaded when it ends well."""
    code = (
        "import importlib, json, sys\n"
        "command = importlib.import_module(f'hiptrack.cli.{sys.argv.pop(1)}')\n"
        "assert not command.main()\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('hiptrack.extras.')]))\n"
    )
    words = [sys.executable, "-c", code, command, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return {name.split(".")[2] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("experiment, extras", [("two_stage", set()), ("nano", {"world"})])
def test_training_loads_no_extra_but_the_data_that_it_names(experiment, extras, synthetic, tmp_path):
    data = [f"DATA_ROOT={synthetic}", f"ANNOTATIONS={synthetic / 'annotations'}", "train.initial_weights=[]"]
    assert extras_of(tmp_path, "train", "--gin", f"experiments/{experiment}.gin", *data, "--dry-run") == extras


def test_tracking_loads_no_report(tmp_path):
    pictures, box = moving_target(3, seed=1)
    film = write_folder(tmp_path / "film", pictures)
    words = [film, f"--box={','.join(map(str, box))}", "--jsonl", "found.jsonl"]
    assert extras_of(tmp_path, "track", *words) == {"video", "export"}
