"""The first call of a notebook refuses what papermill may have injected, before anything slow."""

from pathlib import Path

import nbformat
import pytest

from mhcnb.errors import NotebookError

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def first_cells(name):
    """The parameters cell and the one after it, as text."""
    cells = [c for c in nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells if c.cell_type == "code"]
    assert cells[0].metadata["tags"] == ["parameters"]
    return cells[0].source, cells[1].source


def defaults(name):
    space = {}
    exec(first_cells(name)[0], {}, space)  # noqa: S102
    return {key: value for key, value in space.items() if key != "__annotations__"}


NAMES = (
    "00-board",
    "01-data",
    "02-train",
    "03-stability",
    "04-compare",
    "05-sinkhorn-lab",
    "06-rlm",
    "07-hrm",
    "08-speed",
)
CASES = [(name, key) for name in NAMES for key in defaults(name)]


@pytest.mark.parametrize(("name", "key"), CASES)
def test_a_parameter_of_a_wrong_type_is_refused_by_name(name, key):
    values = defaults(name)
    wrong = 7 if isinstance(values[key], str) else "7"
    with pytest.raises(NotebookError, match=f"parameter {key} = "):
        exec(first_cells(name)[1], values | {key: wrong})  # noqa: S102
