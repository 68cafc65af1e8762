"""What a kernel does wrong is told with its place; what is refused before one starts is in tests/bad_input."""

import nbformat
import papermill
import pytest

from mhcnb.errors import NotebookError
from mhcnb.notebook.execute import KernelDied, check_parameters, execute

CELL = """
# a comment = nothing
params: str = "a=b"  # papermill's own reader skips this line: it has two =
steps: int = 1
rate: float = 1.0
flag: bool = False
overrides: dict[str, object] = {}
sizes: list = []
label: str | None = None
free = 3
other: "Path" = None
"""


def test_all_types_pass(tmp_path, book):
    path = book(tmp_path / "a.ipynb", CELL)
    check_parameters(path, dict(params="x", steps=2, rate=1, flag=True, overrides={"a": 1}, sizes=[1], label=None))
    check_parameters(path, dict(rate=0.5, label="x", free="whatever", other=object()))
    check_parameters(path, {})


def test_a_kernel_that_is_not_installed(tmp_path, book):
    path = book(tmp_path / "a.ipynb", CELL, kernel="nosuchkernel")
    with pytest.raises(NotebookError, match="asks for the kernel 'nosuchkernel', which is not installed"):
        execute(path, tmp_path / "out.ipynb", {})


def test_parameters_arrive_and_a_failing_cell_is_named(tmp_path, book):
    path = book(tmp_path / "{a}.ipynb", CELL, "print(params, overrides)", "1 / 0", "print('never')")
    output = tmp_path / "{deep}" / "out.ipynb"
    with pytest.raises(NotebookError, match=r"In \[4\] failed: ZeroDivisionError: division by zero") as error:
        execute(path, output, {"params": "x", "overrides": {"train.lr": 1e-3, "deep": None}})
    assert str(output) in str(error.value)
    assert [file.name for file in output.parent.iterdir()] == ["out.ipynb"]  # no .part
    cells = nbformat.read(output, as_version=4).cells
    outputs = [out for cell in cells if cell.cell_type == "code" for out in cell.outputs]
    assert [out.output_type for out in outputs] == ["stream", "error"]
    assert outputs[0].text == "x {'train.lr': 0.001, 'deep': None}\n"


def test_a_killed_kernel_is_not_a_success_and_is_not_tried_again(tmp_path, book):
    count = tmp_path / "count"
    die = f"open({str(count)!r}, 'a').write('x')\nimport os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(KernelDied, match="died while it ran"):
        execute(book(tmp_path / "a.ipynb", CELL, die), tmp_path / "out.ipynb", {})
    assert count.read_text() == "x"
    assert (tmp_path / "out.ipynb").exists()


def test_a_kernel_that_dies_before_its_first_cell_is_started_once_more(tmp_path, book, monkeypatch):
    path, calls = book(tmp_path / "a.ipynb", CELL), []

    def fails(times: int):
        def run(source, target, parameters, **_):
            calls.append(1)
            shown = nbformat.read(path, as_version=4)
            shown.metadata["widgets"] = {"state": {}}
            nbformat.write(shown, target)
            if len(calls) <= times:
                raise RuntimeError("Kernel died before replying to kernel_info")

        return run

    monkeypatch.setattr(papermill, "execute_notebook", fails(1))
    execute(path, tmp_path / "out.ipynb", {})
    assert len(calls) == 2
    assert "widgets" not in nbformat.read(tmp_path / "out.ipynb", as_version=4).metadata
    calls.clear()
    monkeypatch.setattr(papermill, "execute_notebook", fails(2))
    with pytest.raises(KernelDied, match="before its first cell, twice"):
        execute(path, tmp_path / "out.ipynb", {})
