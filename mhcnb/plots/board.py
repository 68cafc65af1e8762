"""A sweep at a glance: a tile for each cell, its state in colour and letter."""

import math
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mhcnb.analysis.gains import Frame
from mhcnb.plots.style import canvas, empty, style

# (tile, what is written on it): at least 4.5 to 1 in luminance, so that a letter is as legible in grey
COLOURS = {
    "planned": ("#F7F7F7", "#555555"),
    "running": ("#0072B2", "#FFFFFF"),
    "done": ("#BFE6D6", "#0B3B2C"),
    "failed": ("#D55E00", "#000000"),
    "died": ("#6E1423", "#FFFFFF"),
    "timeout": ("#E69F00", "#000000"),
    "interrupted": ("#CC79A7", "#000000"),
    "skipped": ("#DDDDDD", "#4A4A4A"),
}
DETAILED = 60  # cells up to which a tile has words
GAP = 0.03  # inches between tiles
LETTER = 0.045  # inches of width a letter of a label, at 8 points, with room


class _Sizes(NamedTuple):
    """In inches: of a tile, of the labels of the rows, and how many rows stand in one block."""

    width: float
    height: float
    label: float
    rows: int


def plot_board(cells: Frame) -> Figure:
    """Rows by methods (columns row, method, state, letter, text). Many rows are folded into blocks side by side, and
    then a tile has its letter alone."""
    rows, methods = list(dict.fromkeys(cells["row"])), list(dict.fromkeys(cells["method"]))
    with style():
        if cells.empty:
            figure, ax = canvas(None, 4, 1)
            empty(ax, "no cells")
            return figure
        brief = len(cells) > DETAILED
        size = _sizes(rows, methods, brief)
        blocks = math.ceil(len(rows) / size.rows)
        block = size.label + len(methods) * size.width + 0.25
        width = max(blocks * block, 5.0)
        legend = _legend(cells, width)
        top = legend[-1][-1] + (0.4 + 0.075 * max(map(len, methods)) if brief else 0.6)
        height = top + min(len(rows), size.rows) * size.height + 0.1
        figure = Figure(figsize=(width, height))
        ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        ax.set_axis_off()
        _draw_legend(ax, cells, legend)
        down = {row: (0.1 + k // size.rows * block, top + k % size.rows * size.height) for k, row in enumerate(rows)}
        across = {method: size.label + k * size.width for k, method in enumerate(methods)}
        for row, (x, y) in down.items():
            ax.text(x + size.label - 0.1, y + size.height / 2, row, ha="right", va="center", fontsize=8)
        _heads(ax, across, size, top, [0.1 + k * block for k in range(blocks)], brief)
        x = [down[row][0] + across[method] for row, method in zip(cells["row"], cells["method"], strict=True)]
        _tiles(ax, cells.assign(x=x, y=[down[row][1] for row in cells["row"]]), size, brief)
    return figure


def _sizes(rows: list[str], methods: list[str], brief: bool) -> _Sizes:
    """Of tiles with words; of letters alone in blocks of so many rows that the whole is 1.6 times as wide as high."""
    label = 0.25 + LETTER * 1.5 * max(map(len, rows))
    if not brief:
        return _Sizes(max(1.45, 0.3 + LETTER * 1.8 * max(map(len, methods))), 0.7, label, len(rows))
    width, height = 0.3, 0.24
    area = len(rows) * height * (label + len(methods) * width)
    return _Sizes(width, height, label, max(10, math.ceil((area / 1.6) ** 0.5 / height)))


def _legend(cells: Frame, width: float) -> list[tuple[str, str, float, float]]:
    """(state, text, x, y) for each state that there is, in as many lines as it takes."""
    counts, found = cells["state"].value_counts(), []
    x, y = 0.1, 0.1
    for state in COLOURS:
        if state not in counts:
            continue
        text = f"{state} {counts[state]}"
        room = 0.45 + 0.075 * len(text)
        if x + room > width:
            x, y = 0.1, y + 0.3
        found.append((state, text, x, y))
        x += room
    return found


def _draw_legend(ax: Axes, cells: Frame, legend: list[tuple[str, str, float, float]]) -> None:
    letters = dict(zip(cells["state"], cells["letter"], strict=True))
    for state, text, x, y in legend:
        fill, ink = COLOURS[state]
        ax.add_patch(Rectangle((x, y), 0.2, 0.2, facecolor=fill, edgecolor="#9A9A9A", linewidth=0.6))
        ax.text(x + 0.1, y + 0.1, letters[state], color=ink, ha="center", va="center_baseline", weight="bold")
        ax.text(x + 0.27, y + 0.1, text, va="center_baseline")


def _heads(ax: Axes, across: dict[str, float], size: _Sizes, top: float, lefts: list[float], brief: bool) -> None:
    look: dict[str, Any] = dict(rotation=90, fontsize=8) if brief else dict(weight="bold")
    for left in lefts:
        for method, x in across.items():
            ax.text(left + x + (size.width - GAP) / 2, top - 0.07, method, ha="center", va="bottom", **look)


def _tiles(ax: Axes, cells: Frame, size: _Sizes, brief: bool) -> None:
    """Shapes of a state in one collection, letters of a state as one set of markers: quick for thousands."""
    width, height = size.width - GAP, size.height - GAP
    for state, own in cells.groupby("state", sort=False):
        fill, ink = COLOURS[str(state)]
        shapes = [Rectangle((x, y), width, height) for x, y in zip(own["x"], own["y"], strict=True)]
        ax.add_collection(PatchCollection(shapes, facecolor=fill, edgecolor="#9A9A9A", linewidth=0.5))
        left, middle = own["x"] + (width / 2 if brief else 0.18), own["y"] + height / 2
        letter = rf"$\mathbf{{{own['letter'].iloc[0]}}}$"
        ax.scatter(left, middle, s=34 if brief else 70, marker=letter, color=ink, linewidth=0, zorder=3)
        if not brief:
            for x, y, text in zip(own["x"], middle, own["text"], strict=True):
                ax.text(x + 0.36, y, text, color=ink, fontsize=7.5, va="center", linespacing=1.25)
