"""Rows 65-69: notebooks that cannot be run as asked, and sweeps whose cells would collide or were torn."""

from pathlib import Path

import nbformat
import papermill
import pytest

from mhcnb.errors import ConfigError, NotebookError
from mhcnb.notebook.execute import execute
from mhcnb.run import Run
from mhcnb.sweep.plan import plan

CELL = """
params: str = "a=b"
steps: int = 1
rate: float = 1.0
flag: bool = False
overrides: dict[str, object] = {}
sizes: list = []
label: str | None = None
"""


@pytest.fixture
def book(tmp_path):
    """book(*sources, tags=, kernel=): a notebook whose first cells have these tags; its path."""

    def write(*sources, tags=("parameters",), kernel="python3", name="mine.ipynb"):
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        for cell, tag in zip(made.cells, tags, strict=False):
            cell.metadata["tags"] = [tag]
        if kernel:
            made.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
        nbformat.write(made, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def not_run(unchanged, monkeypatch, tmp_path):
    """not_run(path, parameters, says): execute() refuses in these words, before a kernel and with nothing written."""

    def run(path, parameters, says):
        monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
        with unchanged(), pytest.raises(NotebookError) as error:
            execute(path, tmp_path / "out.ipynb", parameters)
        assert str(path) in str(error.value)
        assert says in str(error.value)

    return run


def test_row65_an_unknown_parameter(not_run, book):
    says = "has no parameter 'stepps'; did you mean steps? known: flag, label, overrides, params, rate, sizes, steps"
    not_run(book(CELL), {"stepps": 2}, says)


WRONG = {  # name=value as papermill -p would hand it on -> type, and what the cell declares
    "row66 params": (3, "int", "str"),
    "row66 params None": (None, "NoneType", "str"),
    "row66 steps": ("2", "str", "int"),
    "row66 steps 2.0": (2.0, "float", "int"),
    "row66 steps True": (True, "bool", "int"),
    "row66 rate": ("1e-3", "str", "float"),
    "row66 rate True": (True, "bool", "float"),
    "row66 flag": ("false", "str", "bool"),  # which Python takes for true
    "row66 flag 0": (0, "int", "bool"),
    "row66 overrides": ([1], "list", "dict[str, object]"),
    "row66 sizes": ("[9, 9]", "str", "list"),
    "row66 label": (3, "int", "str | None"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_parameter_of_a_wrong_type(not_run, book, case):
    name, (value, got, expected) = case.split()[1], WRONG[case]
    not_run(book(CELL), {name: value}, f"parameter {name} = {value!r} ({got}); expected {expected}")


BOOKS = {  # cells, tags, kernel -> what is said
    "row67 no parameters": ([CELL], (), "python3", "has no cell tagged `parameters`; expected one"),
    "row67 two": ([CELL] * 2, ("parameters",) * 2, "python3", "has 2 cells tagged `parameters`; expected one"),
    "row67 no kernel": ([CELL], ("parameters",), "", "names no kernel (metadata.kernelspec.name); open and save it"),
    "row67 syntax": (["a = 1\nsteps: int ="], ("parameters",), "python3", "line 2 of the parameters cell: invalid"),
}


@pytest.mark.parametrize(("cells", "tags", "kernel", "says"), BOOKS.values(), ids=BOOKS)
def test_a_notebook_that_cannot_be_run(not_run, book, cells, tags, kernel, says):
    not_run(book(*cells, tags=tags, kernel=kernel), {}, says)


TORN = '{"nbformat": 4, "cells": [{"ce'
NO_BOOKS = {
    "row67 missing": (None, "no such notebook: "),
    "row67 text": ("params = 3", "is not a notebook: Notebook does not appear to be JSON: 'params = 3'"),
    "row67 torn": (TORN, f"is not a notebook: Notebook does not appear to be JSON: {TORN!r}"),
    "row67 no cells": ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "is missing an expected key: cells"),
    "row67 a list": ("[]", "is not a notebook: JSON of another kind"),
}


@pytest.mark.parametrize(("text", "says"), NO_BOOKS.values(), ids=NO_BOOKS)
def test_a_file_that_is_no_notebook(not_run, tmp_path, text, says):
    if text is not None:
        (tmp_path / "mine.ipynb").write_text(text)
    not_run(tmp_path / "mine.ipynb", {}, says)


# sweeps ---------------------------------------------------------------------------------------------------------------

TAKES = "params: str = ''\noverrides: dict = {}\nout: str = ''\nprocesses: int = 1"


@pytest.fixture
def sweep(params, book, tmp_path):
    """sweep("grid: {...}"): a sweep file over the small configuration, and its notebook."""
    path = params()
    book(TAKES, name="train.ipynb")

    def write(text="grid: {connection.name: [residual, hc]}"):
        (tmp_path / "sweep.yaml").write_text(f"base: {path.name}\nnotebook: train.ipynb\n{text}\n")
        return tmp_path / "sweep.yaml"

    return write


SAME = {
    "row68 a value twice": (
        "grid: {connection.name: [hc, hc]}",
        "hc-tiny-s1: (connection.name=hc, seed=1) and (connection.name=hc, seed=1)",
    ),
    "row68 a seed twice": ("seeds: [1, 1]", "mhc-tiny-s1: (seed=1) and (seed=1)"),
    "row68 values of one spelling": (
        "grid: {data.root: [a/b, 'a b']}",
        "mhc-tiny-s1-data.root=a_b: (data.root=a/b, seed=1) and (data.root=a b, seed=1)",
    ),
    "row68 files of one preset": (
        "grid: {params: [small.yaml, other.yaml]}",
        "mhc-tiny-s1: (params=small.yaml, seed=1) and (params=other.yaml, seed=1)",
    ),
}


@pytest.mark.parametrize(("text", "says"), SAME.values(), ids=SAME)
def test_two_cells_of_one_name(refused, sweep, tmp_path, text, says):
    path = sweep(text)
    (tmp_path / "other.yaml").write_text((tmp_path / "small.yaml").read_text())
    refused(ConfigError, "sweep", path, "--out", "out", says=[f"two cells are both called {says}"])


def test_row65_a_sweep_whose_notebook_takes_other_parameters(refused, sweep, book):
    path = sweep()
    book(TAKES.replace("processes", "ranks"), name="train.ipynb")
    says = ["train.ipynb has no parameter 'processes'; known: out, overrides, params, ranks"]
    refused(NotebookError, "sweep", path, "--out", "out", says=says)


def test_row69_a_torn_notebook_says_nothing_about_its_cell(mhcnb, unchanged, sweep, tmp_path):
    """The state of a cell is its run's status.json: what was cut off runs again, what is done does not."""
    path = sweep()
    for cell, state in zip(plan(path, out=tmp_path / "out").cells, ("done", "running"), strict=True):
        run = Run.create(cell.out, cell.config)
        run.set_status(state, 3)
        run.release()
        for name in ("notebook.ipynb", "notebook.part.ipynb"):
            (cell.out / name).write_text('{"cells": [{"cell_ty')
    with unchanged():
        done = mhcnb("sweep", path, "--out", "out", "--dry-run")
    states = dict(line.split()[:2] for line in done.stdout.splitlines()[:2])
    assert states == {"residual-tiny-s1": "done", "hc-tiny-s1": "planned"}


def test_row69_what_a_killed_notebook_left_is_replaced_whole(book, tmp_path, monkeypatch):
    torn = [tmp_path / name for name in ("out.ipynb", "out.part.ipynb")]
    for path in torn:
        path.write_text('{"cells": [{"cell_ty')

    def papermill_does(source, target, parameters, **_):
        Path(target).write_text(Path(source).read_text())

    monkeypatch.setattr(papermill, "execute_notebook", papermill_does)
    execute(book(CELL), torn[0], {})
    assert nbformat.read(torn[0], as_version=4).cells[0].source == CELL
    assert not torn[1].exists()
