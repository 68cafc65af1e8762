"""What holds for the project as a whole."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from mhcnb.config import load_config
from mhcnb.sweep.plan import plan

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "mhcnb").rglob("*.py"))
TREES = {path.relative_to(ROOT / "mhcnb").as_posix(): ast.parse(path.read_text()) for path in SOURCES}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_is_content(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_and_functions_stay_small():
    long_files = {str(path): n for path in SOURCES if (n := len(path.read_text().splitlines())) > 250}
    functions = [(name, f) for name, tree in TREES.items() for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
    long_functions = {f"{name}: {f.name}": n for name, f in functions if (n := f.end_lineno - f.lineno + 1) > 45}
    assert long_files == {}
    assert long_functions == {}


def test_what_is_public_has_a_docstring():
    kinds = (ast.FunctionDef, ast.ClassDef)
    public = [(n, d) for n, tree in TREES.items() for d in tree.body if isinstance(d, kinds) and d.name[0] != "_"]
    assert [f"{name}: {d.name}" for name, d in public if not ast.get_docstring(d)] == []
    assert [
        name for name, tree in TREES.items() if not name.endswith("__init__.py") and not ast.get_docstring(tree)
    ] == []


def test_cuda_is_named_in_two_places_only():
    named = {name for name, tree in TREES.items() for node in ast.walk(tree) if _is_attribute(node, "torch", "cuda")}
    assert named <= {"connections/kernels/choice.py", "training/launch.py"}


def test_nothing_unpickles_or_runs_what_it_reads():
    calls = [(n, c) for n, tree in TREES.items() for c in ast.walk(tree) if isinstance(c, ast.Call)]
    for name, call in calls:
        keywords = {k.arg: getattr(k.value, "value", None) for k in call.keywords}
        if _is_attribute(call.func, "torch", "load"):
            assert keywords.get("weights_only") is True, name
        assert not _is_attribute(call.func, "yaml", "load"), name
        assert not _is_attribute(call.func, "np", "load") or keywords.get("allow_pickle") is False, name
        assert getattr(call.func, "id", "") not in ("exec", "eval"), name
        assert keywords.get("shell") is not True, name


# folder -> those that it may import; what is not listed may import all
ARROWS = {
    "connections": {"connections"},
    "layers": {"connections", "layers"},
    "models": {"connections", "layers", "models"},
    "objectives": {"models", "objectives"},
    "data": {"models", "objectives", "data"},
    "training": {"connections", "layers", "models", "objectives", "data", "analysis", "training"},
    "analysis": {"connections", "layers", "models", "data", "analysis"},
    "plots": {"analysis", "plots"},
}


@pytest.mark.parametrize("folder", ARROWS)
def test_arrows_point_down(folder):
    folders = {path.name for path in (ROOT / "mhcnb").iterdir() if path.is_dir()}
    for name, tree in TREES.items():
        if name.startswith(f"{folder}/"):
            modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
            used = {m.split(".")[1] for m in modules if m.startswith("mhcnb.")} & folders
            assert used <= ARROWS[folder], name


def test_importing_the_package_imports_nothing_heavy():
    heavy = "torch papermill modelscope seaborn matplotlib pandas distributed huggingface_hub IPython ipywidgets"
    code = f"import sys, mhcnb; print([m for m in {heavy.split()} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    code = f"import sys, mhcnb; mhcnb.build_model; print([m for m in {heavy.split()[1:]} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_preset_and_sweep_is_sound(path, tmp_path):
    if path.parent.name == "sweeps":
        assert plan(path, {}, tmp_path).cells
    else:
        assert load_config(path).preset == path.stem
    assert path.read_text().startswith("#"), "a preset says its command and what to expect"


def test_dependencies_are_listed_once():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["dependencies"][-1] == {"pip": ["-e .[all]"]}
    assert set(PYPROJECT["project"]["optional-dependencies"]) == {"hub", "sweep", "kernels", "log", "dev", "all"}
    pins = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    listed = {re.split(r"[<>=]", line)[0].lower() for line in PYPROJECT["project"]["dependencies"]}
    assert listed <= {pin.lower() for pin in pins}
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text()


def test_the_readme_has_the_two_commands_and_names_only_what_exists():
    readme = (ROOT / "README.md").read_text()
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", readme, re.MULTILINE | re.DOTALL))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for mark in ("run", "test"):
        (command,) = re.findall(rf"^(.*?) +# {mark}$", blocks, re.MULTILINE)
        assert command.split()[0] == "make"
        assert command.split()[1] in targets
    from mhcnb.cli import main

    assert set(re.findall(r"(?:^|\bm )mhcnb ([a-z]+)", blocks, re.MULTILINE)) <= set(main.commands)
    files = re.findall(r"(?:params|notebooks)/[\w./-]+\.(?:yaml|ipynb)", readme)
    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []


def _is_attribute(node, module, attribute):
    return (
        isinstance(node, ast.Attribute)
        and node.attr == attribute
        and isinstance(node.value, ast.Name)
        and node.value.id == module
    )
