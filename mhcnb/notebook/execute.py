"""One notebook run by papermill, as `papermill -f` would, but strict: a parameter that the notebook does not take is
refused before a kernel starts (papermill only logs it), and a failure is an error that says where."""

import ast
from pathlib import Path
from typing import Any, NamedTuple

from mhcnb.errors import NotebookError, nearest

# annotation -> what may be injected for it; a name that is not here is not checked
TYPES = {"str": {str}, "int": {int}, "float": {float, int}, "bool": {bool}, "dict": {dict}, "list": {list}}
TYPES["None"] = {type(None)}
QUIET = ["--IPKernelApp.log_level=40"]  # a kernel's start and normal end are worth no warnings


class KernelDied(NotebookError):
    """The process under a notebook is gone, killed or crashed: no cell failed."""


class Parameter(NamedTuple):
    """A name of the parameters cell; `annotation` as written there, and its plain names: `str | None` has two."""

    annotation: str
    types: tuple[str, ...]


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> None:
    """Raises NotebookError where the notebook is not runnable, or does not take a name or the type of a value."""
    known = read_parameters(notebook)
    for name, value in parameters.items():
        if name not in known:
            raise NotebookError(f"{notebook} has no parameter {name!r}{nearest(name, known)}")
        annotation, types = known[name]
        checked = types and all(kind in TYPES for kind in types)
        if checked and not any(type(value) in TYPES[kind] for kind in types):
            raise NotebookError(
                f"{notebook}: parameter {name} = {value!r} ({type(value).__name__}); expected {annotation}"
            )


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters that a notebook takes, read with ast: papermill's own reader skips lines with two `=`.

    Raises NotebookError for a file that is no notebook, has no kernelspec, or not exactly one cell tagged `parameters`.
    """
    book = _read(notebook)
    if not book.metadata.get("kernelspec", {}).get("name"):
        raise NotebookError(f"{notebook} names no kernel (metadata.kernelspec.name); open and save it in JupyterLab")
    cells = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        count = f"{len(cells)} cells" if cells else "no cell"
        raise NotebookError(f"{notebook} has {count} tagged `parameters`; expected one, with the defaults")
    try:
        lines = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise NotebookError(f"{notebook}: line {error.lineno} of the parameters cell: {error.msg}") from error
    found: dict[str, Parameter] = {}
    for line in lines:
        if isinstance(line, ast.AnnAssign):
            found[ast.unparse(line.target)] = Parameter(ast.unparse(line.annotation), _names(line.annotation))
        elif isinstance(line, ast.Assign):
            found |= {ast.unparse(target): Parameter("", ()) for target in line.targets}
    return found


def execute(notebook: Path, output: Path, parameters: dict[str, Any]) -> None:
    """Runs a notebook in a kernel of its own. `output` appears when it is done or has failed, never half-written.

    A kernel that dies before its first cell (a port taken by another one) is started once more.
    Raises NotebookError, and of that KernelDied.
    """
    from jupyter_client.kernelspec import NoSuchKernel
    from papermill.exceptions import PapermillExecutionError

    check_parameters(notebook, parameters)
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f"{output.stem}.part.ipynb")
    part.unlink(missing_ok=True)
    try:
        try:
            _papermill(notebook, part, parameters)
        except RuntimeError:
            if _began(part):
                raise
            _papermill(notebook, part, parameters)
    except PapermillExecutionError as error:
        what = f"cell In [{error.exec_count}] failed: {error.ename}: {error.evalue}"
        raise NotebookError(f"{notebook}: {what}; it is shown in {output}") from error
    except NoSuchKernel as error:
        raise NotebookError(f"{notebook} asks for the kernel {error.name!r}, which is not installed here") from error
    except RuntimeError as error:  # nbclient's and jupyter_client's, for a kernel that is gone or never answers
        where = "while it ran, often for lack of memory" if _began(part) else "before its first cell, twice"
        raise KernelDied(f"{notebook}: the kernel died {where} ({error}); what there is: {output}") from error
    finally:
        _keep(part, output)


def _papermill(notebook: Path, part: Path, parameters: dict[str, Any]) -> None:
    import papermill

    source, target = (str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, part))  # not templates
    papermill.execute_notebook(source, target, parameters, progress_bar=False, extra_arguments=QUIET)


def _began(part: Path) -> bool:
    """Whether a cell was started."""
    return part.is_file() and any(c.metadata.get("papermill", {}).get("start_time") for c in _read(part).cells)


def _keep(part: Path, output: Path) -> None:
    """part becomes output, without widget state, which other viewers refuse or draw empty."""
    import nbformat

    if not part.is_file():
        return
    book = _read(part)
    if book.metadata.pop("widgets", None) is not None:
        nbformat.write(book, part)
    part.replace(output)


def _read(notebook: Path) -> Any:
    """The notebook, as nbformat 4."""
    import nbformat
    from nbformat.reader import NotJSONError

    try:
        return nbformat.read(notebook, as_version=4)
    except FileNotFoundError as error:
        raise NotebookError(f"no such notebook: {notebook}") from error
    except (NotJSONError, nbformat.ValidationError, AttributeError, KeyError, UnicodeDecodeError) as error:
        why = "JSON of another kind" if isinstance(error, AttributeError | KeyError) else str(error)[:200]
        raise NotebookError(f"{notebook} is not a notebook: {why}") from error


def _names(annotation: ast.expr) -> tuple[str, ...]:
    """("dict", "None") of `dict[str, Any] | None`."""
    if isinstance(annotation, ast.BinOp):
        return (*_names(annotation.left), *_names(annotation.right))
    return (ast.unparse(annotation.value if isinstance(annotation, ast.Subscript) else annotation),)
