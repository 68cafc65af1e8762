"""What every committed notebook keeps to."""

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
NOT_KEPT = "metadata.papermill cell.metadata.papermill metadata.widgets"


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def book(request):
    return nbformat.read(request.param, as_version=4)


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_without_outputs(path):
    command = [sys.executable, "-m", "nbstripout", "--verify", "--keep-id", "--extra-keys", NOT_KEPT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_a_valid_notebook_of_a_kernel_that_everyone_has(book):
    nbformat.validate(book)
    assert dict(book.metadata) == {"kernelspec": KERNEL}
    assert all(cell.cell_type != "raw" for cell in book.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_begins_with_a_title_and_how_to_run_it_without_a_browser(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith(f"# {path.stem[:2]} · ")
    assert f"papermill notebooks/{path.name}" in first.source


def test_its_parameters_are_literals_with_a_type_and_help(book):
    tagged = [cell for cell in code(book) if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == code(book)[:1]
    for line, node in zip(tagged[0].source.splitlines(), ast.parse(tagged[0].source).body, strict=True):
        assert isinstance(node, ast.AnnAssign), line
        ast.literal_eval(node.value)
        assert "  # " in line


def test_it_is_thin(book):
    assert len(code(book)) <= 12
    for cell in code(book):
        assert len(cell.source.splitlines()) <= 15
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell.source)))
