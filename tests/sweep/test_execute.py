"""Parameters are checked before a kernel starts; what a kernel does wrong is told with its place."""

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


@pytest.fixture
def never(monkeypatch):
    """Fails the test where a kernel would start."""
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))


def test_all_types_pass(tmp_path, book):
    path = book(tmp_path / "a.ipynb", CELL)
    check_parameters(path, dict(params="x", steps=2, rate=1, flag=True, overrides={"a": 1}, sizes=[1], label=None))
    check_parameters(path, dict(rate=0.5, label="x", free="whatever", other=object()))
    check_parameters(path, {})


def test_case_65_unknown_parameter(tmp_path, book, never):
    path = book(tmp_path / "a.ipynb", CELL)
    with pytest.raises(NotebookError, match=r"a.ipynb has no parameter 'stepps'; did you mean steps\? known: .*sizes"):
        execute(path, tmp_path / "out.ipynb", {"stepps": 2})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("params", 3),
        ("params", None),
        ("steps", "2"),
        ("steps", 2.0),
        ("steps", True),
        ("rate", "1e-3"),
        ("rate", True),
        ("flag", "false"),  # truthy: the trap of papermill -p flag false
        ("flag", 0),
        ("overrides", [1]),
        ("sizes", "[9, 9]"),
        ("label", 3),
    ],
)
def test_case_66_wrong_type(tmp_path, book, never, name, value):
    path = book(tmp_path / "a.ipynb", CELL)
    with pytest.raises(NotebookError, match=rf"parameter {name} = .*\({type(value).__name__}\); expected"):
        execute(path, tmp_path / "out.ipynb", {name: value})


def test_case_67_not_a_notebook_to_run(tmp_path, book, never):
    bad = {
        "no cell tagged": book(tmp_path / "none.ipynb", CELL, tags=()),
        "2 cells tagged": book(tmp_path / "two.ipynb", CELL, CELL, tags=("parameters", "parameters")),
        "names no kernel": book(tmp_path / "kernel.ipynb", CELL, kernel=""),
        "line 1 of the parameters cell": book(tmp_path / "syntax.ipynb", "steps: int ="),
        "no such notebook": tmp_path / "missing.ipynb",
        "is not a notebook": tmp_path / "text.ipynb",
        "is not a notebook: .*missing an expected key": tmp_path / "json.ipynb",
    }
    bad["is not a notebook"].write_text("params = 3")
    bad["is not a notebook: .*missing an expected key"].write_text(
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}'
    )
    for words, path in bad.items():
        with pytest.raises(NotebookError, match=words) as error:
            execute(path, tmp_path / "out.ipynb", {})
        assert str(path) in str(error.value)
    assert not (tmp_path / "out.ipynb").exists()


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
