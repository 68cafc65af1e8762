"""Matrices as small multiples: one colour scale, numbers in the cells, row and column sums in the margins."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from mhcnb.plots.style import canvas, empty, number, style

READABLE = 8  # streams up to which numbers fit into cells
PANEL = 1.9  # inches


def plot_matrix(
    matrix: np.ndarray,
    ax: Axes | None = None,
    title: str = "",
    scale: dict[str, Any] | None = None,
    sums: bool = True,
) -> Figure:
    """One matrix [n_out, n_in]: destination i downwards, source j to the right, sums outside. `scale`: cmap, norm."""
    with style():
        figure, ax = canvas(ax, 3.2, 3.2)
        n = len(matrix)
        end = n + 0.35 if sums else n - 0.5
        scale = scale or scale_of({"": matrix})
        ax.imshow(matrix, **scale)
        ax.set(title=title, xlim=(-0.5, end), ylim=(end, -0.5), xticks=range(n), yticks=range(n))
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0, labelsize=7, pad=1, labelcolor="#777777", labeltop=True, labelbottom=False)
        if n <= READABLE:
            _write_numbers(ax, matrix, scale, size=7.5 if n <= 4 else 5, sums=sums)
    return figure


def plot_heatmaps(matrices: Mapping[str, np.ndarray], title: str = "mean res") -> Figure:
    """A panel a matrix, {label: [n_out, n_in]}, on one colour scale."""
    with style():
        if all(len(matrix) == 1 for matrix in matrices.values()):
            figure, ax = canvas(None, 6.4, 1.0)
            empty(ax, f"{title}: one stream, every matrix is a number" if matrices else "no matrices")
            return figure
        across = min(len(matrices), 4 if len(matrices) <= 16 else 6)
        down = -(-len(matrices) // across)
        figure = Figure(figsize=(PANEL * across + 0.8, PANEL * 1.1 * down + 0.6), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False)
        scale = scale_of(matrices)
        for ax, (label, matrix) in zip(axes.flat, matrices.items(), strict=False):
            plot_matrix(matrix, ax, label, scale)
        for ax in list(axes.flat)[len(matrices) :]:
            ax.set_axis_off()
        figure.suptitle(f"{title}\nrow i: destination, column j: source stream; in italics: sums", fontsize=9)
        bar = figure.colorbar(axes[0, 0].images[0], ax=axes, fraction=0.03, aspect=12 * down + 6, pad=0.01)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.set_label("weight", fontsize=8)
    return figure


def say_heatmaps(matrices: Mapping[str, np.ndarray], name: str) -> str:
    """The largest exchange between streams, and how far the sums are from one."""
    if not matrices:
        return f"{name}: no matrices."
    if all(len(m) == 1 for m in matrices.values()):
        return f"{name}: one stream; every res is the number {number(min(m.min() for m in matrices.values()))}."
    moved = {label: np.abs(m - np.diag(np.diag(m))).max() for label, m in matrices.items()}
    most = max(moved, key=moved.__getitem__)
    rows, columns = (max(np.abs(m.sum(axis) - 1).max() for m in matrices.values()) for axis in (1, 0))
    return (
        f"{name}: the largest weight from one stream to another is {number(moved[most])}, at {most}; "
        f"sums of these mean matrices differ from 1 by at most {number(rows)} (rows) and {number(columns)} (columns)."
    )


def scale_of(matrices: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """One colour scale for all: 0 to 1 or more for weights, else white at 0 and two colours for the signs."""
    values = np.concatenate([np.ravel(m) for m in matrices.values()] or [np.zeros(1)])
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    if low >= 0:
        return dict(cmap="cividis", norm=Normalize(0, max(1.0, high)))
    reach = max(-low, high)
    return dict(cmap="PuOr_r", norm=TwoSlopeNorm(0, -reach, reach))


def _write_numbers(ax: Axes, matrix: np.ndarray, scale: dict[str, Any], size: float, sums: bool) -> None:
    """Entries in the cells, black or white by what is below them; sums to the right and below."""
    n, shade = len(matrix), colormaps[scale["cmap"]]
    # inside the axes: the layout need not measure each number, which takes longer than all the rest
    place: dict[str, Any] = dict(ha="center", va="center", fontsize=size, in_layout=False)
    for i, j in np.ndindex(*matrix.shape):
        red, green, blue, _ = shade(scale["norm"](matrix[i, j]))
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        ax.text(j, i, _entry(matrix[i, j]), color=ink, **place)
    margin: dict[str, Any] = place | dict(color="#444444", style="italic")
    for k in range(n if sums else 0):
        ax.text(n, k, _entry(matrix[k].sum()), **margin)
        ax.text(k, n, _entry(matrix[:, k].sum()), **margin)


def _entry(value: Any) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00") if abs(value) < 99.95 else f"{value:.0f}"
