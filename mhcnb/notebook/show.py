"""A figure in three forms: files, a picture in the notebook, and its result in words."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from mhcnb.errors import NotebookError
from mhcnb.plots.style import style

DPI = 200
# no dates and versions: the same figure gives the same bytes
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": "mhcnb", "Producer": "matplotlib"}}


def save(figure: Figure, folder: str | Path, name: str) -> list[Path]:
    """Writes name.png (200 dpi) and name.pdf; the folder is made. Raises NotebookError where the disk refuses."""
    folder = Path(folder)
    paths = [folder / f"{name}.{kind}" for kind in METADATA]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, (kind, metadata) in zip(paths, METADATA.items(), strict=True):
            path.write_bytes(_drawn(figure, kind, metadata))
    except OSError as error:
        raise NotebookError(f"cannot save {folder / name}: {error.strerror} (errno {error.errno})") from error
    return paths


def show(figure: Figure, words: str | Iterable[str], folder: str | Path | None = None, name: str = "figure") -> None:
    """Displays a figure with its result in words under it, and saves it where a folder is given."""
    from IPython.display import display

    text = words if isinstance(words, str) else "\n".join(words)
    png = save(figure, folder, name)[0].read_bytes() if folder else None  # drawn once, kept and shown
    data, metadata = bundle(figure, text, png=png)
    display(data, raw=True, metadata=metadata)
    print(text)


def bundle(
    figure: Figure, text: str, dpi: int = DPI, png: bytes | None = None
) -> tuple[dict[str, str], dict[str, dict]]:
    """(data, metadata) of a figure for a notebook's output: the picture as bytes, so that it is the same in
    JupyterLab, papermill and exports, whichever backend matplotlib has. `png`: those bytes, if drawn already."""
    width, height = (round(100 * inches) for inches in figure.get_size_inches())
    picture = base64.b64encode(png or _drawn(figure, "png", METADATA["png"], dpi)).decode()
    return {"image/png": picture, "text/plain": text}, {"image/png": {"width": width, "height": height}}


def _drawn(figure: Figure, kind: str, metadata: dict, dpi: int = DPI) -> bytes:
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()
