"""Paths in a notebook's parameters mean the same from JupyterLab, whose notebooks run in notebooks/, and from
papermill, run at the project's root."""

from pathlib import Path


def project_root() -> Path:
    """The nearest folder, upwards from the working directory, that holds both params/ and notebooks/; else itself."""
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "params").is_dir() and (p / "notebooks").is_dir()), here)


def find(path: str | Path) -> Path:
    """What a relative path names in the working directory, if it is there, else at the project's root."""
    path = Path(path).expanduser()
    return path.absolute() if path.exists() else project_root() / path


def outputs(path: str | Path) -> Path:
    """A folder to write to: relative ones lie at the project's root, wherever the notebook runs."""
    return project_root() / Path(path).expanduser()
