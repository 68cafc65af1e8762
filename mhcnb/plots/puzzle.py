"""A puzzle as a model fills it: what was given, what is right and wrong, what changed in a step."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from mhcnb.analysis.boards import BLANK, GIVEN, KINDS, OPEN, RIGHT, WRONG, Board
from mhcnb.analysis.gains import Frame
from mhcnb.plots.style import canvas, empty, style

# (cell, digit): at least 4.5 to 1 in luminance; a wrong digit is struck out, too, and a given bold: legible in grey
COLOURS = {
    BLANK: ("#FFFFFF", "#777777"),
    GIVEN: ("#D9D9D9", "#000000"),
    RIGHT: ("#BFE6D6", "#0B3B2C"),
    WRONG: ("#F0A070", "#000000"),
    OPEN: ("#CFE3F5", "#08306B"),
}
CHANGED = "#0072B2"
NAMES = {GIVEN: "given", RIGHT: "right", WRONG: "wrong, struck out", OPEN: "nothing says whether right"}
PANEL = 1.45  # inches of a board among many


def plot_puzzle(board: Board, ax: Axes | None = None, title: str = "", brief: bool = False) -> Figure:
    """One board with a legend; a wrong digit has the right one beside it. `brief`: small, without either."""
    with style():
        figure, ax = canvas(ax, 4.2, 4.7)
        n = board.size
        ax.set(xlim=(-0.03, n + 0.03), ylim=(n + 0.03, -0.03), aspect="equal", xticks=[], yticks=[])
        ax.set_title(title, fontsize=7.5 if brief else 9)
        ax.spines[:].set_visible(False)
        ax.grid(visible=False)
        for cell in range(n * n):
            _cell(ax, board, cell, brief)
        _lines(ax, n)
        if not brief:
            handles = legend([board])
            ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2, fontsize=7.5)
    return figure


def plot_film(boards: Mapping[str, Board], title: str, most: int = 18) -> Figure:
    """Boards side by side, {label: board}; of more than `most` the first, the last and some evenly in between."""
    with style():
        if not boards:
            figure, ax = canvas(None, 4, 1)
            empty(ax, "no boards")
            return figure
        chosen = list(boards.items())
        if len(chosen) > most:
            chosen = [chosen[k] for k in np.linspace(0, len(chosen) - 1, most).round().astype(int)]
        across = min(len(chosen), 6)
        down = math.ceil(len(chosen) / across)
        figure = Figure(figsize=(max(PANEL * across, 5) + 0.2, (PANEL + 0.22) * down + 0.75), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False)
        for ax in axes.flat:
            ax.set_axis_off()
        for ax, (label, board) in zip(axes.flat, chosen, strict=False):
            ax.set_axis_on()
            plot_puzzle(board, ax, label, brief=True)
        figure.suptitle(title, fontsize=9)
        shown = legend(board for _, board in chosen)
        figure.legend(handles=shown, loc="outside lower center", ncols=len(shown), fontsize=7.5)
    return figure


def plot_progress(board: Board, trace: Frame, step: int, title: str) -> Figure:
    """A board, and beside it how its puzzle fares by step: blanks that are right, how sure the model is that it is
    done, how far the states move. A line marks the step; 0 is the puzzle as given."""
    with style():
        figure = Figure(figsize=(8.6, 4.9), layout="constrained")
        figure.suptitle(title, fontsize=9)
        grid = figure.add_gridspec(3, 2, width_ratios=(1.25, 1))
        plot_puzzle(board, figure.add_subplot(grid[:, 0]))
        filled, sure, moved = (figure.add_subplot(grid[k, 1]) for k in range(3))
        steps = trace["step"]
        _filled(filled, trace)
        _pair(sure, steps, {"halt": trace["q_halt"], "go on": trace["q_continue"]})
        sure.set(ylabel="logit")
        _pair(moved, steps, {"H": trace["moved_H"], "L": trace["moved_L"]})
        moved.set(ylabel="distance moved", xlabel="step", ylim=(0, None))
        for ax in (ax for ax in (filled, sure, moved) if ax.axison):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.axvline(step, color=CHANGED, linewidth=1, linestyle=":")
            ax.set_xlim(-0.3, len(steps) + 0.3)
    return figure


def say_board(board: Board) -> str:
    """`30 givens kept, 44 other cells right, 7 wrong (r1c3 has 4, not 7; ...), 5 changed in this step`."""
    kinds = {kind: int((board.kinds == kind).sum()) for kind in KINDS}
    answered = board.right.any() or kinds[OPEN]
    words = [f"{kinds[GIVEN]} givens{' kept' if answered else ''}"]
    if board.right.any():
        words.append(f"{kinds[RIGHT]} other cells right, {kinds[WRONG]} wrong{_where(board)}")
    elif kinds[OPEN] or kinds[WRONG]:
        words.append(f"{kinds[OPEN]} other cells break no rule, {kinds[WRONG]} do{_where(board)}")
    words += [f"{kinds[BLANK]} blank"] if kinds[BLANK] else []
    words += [f"{board.changed.sum()} changed in this step"] if board.changed.any() else []
    return ", ".join(words)


def legend(boards: Iterable[Board]) -> list[Patch]:
    """A patch for each kind that the boards have, and for what changed."""
    boards = list(boards)
    found = [kind for kind in NAMES if any((board.kinds == kind).any() for board in boards)]
    patches = [Patch(facecolor=COLOURS[k][0], edgecolor="#9A9A9A", linewidth=0.6, label=NAMES[k]) for k in found]
    if any(board.changed.any() for board in boards):
        patches.append(Patch(facecolor="none", edgecolor=CHANGED, linewidth=1.8, label="changed in this step"))
    return patches


def _cell(ax: Axes, board: Board, cell: int, brief: bool) -> None:
    (row, column), kind = divmod(cell, board.size), str(board.kinds[cell])
    fill, ink = COLOURS[kind]
    ax.add_patch(Rectangle((column, row), 1, 1, facecolor=fill, linewidth=0))
    if board.changed[cell]:
        inner = 0.07
        frame: dict[str, Any] = dict(fill=False, edgecolor=CHANGED, linewidth=0.9 if brief else 1.8)
        ax.add_patch(Rectangle((column + inner, row + inner), 1 - 2 * inner, 1 - 2 * inner, **frame))
    scale = (0.55 if brief else 1.6) * (9 / board.size) ** 0.8
    place: dict[str, Any] = dict(ha="center", va="center_baseline", color=ink, in_layout=False)
    text = str(board.digits[cell] or ("?" if kind == WRONG else ""))
    weight = "bold" if kind == GIVEN else "normal"
    ax.text(column + 0.5, row + 0.5, text, fontsize=10 * scale, weight=weight, **place)
    if kind == WRONG:
        strike: dict[str, Any] = dict(color=ink, linewidth=0.4 if brief else 0.9)
        ax.plot([column + 0.22, column + 0.78], [row + 0.78, row + 0.22], **strike)
        if board.right[cell] and not brief:
            ax.text(column + 0.84, row + 0.82, str(board.right[cell]), fontsize=5 * scale, **place)


def _lines(ax: Axes, n: int) -> None:
    """Thin between cells, thick between boxes."""
    box = math.isqrt(n)
    for k in range(n + 1):
        look: dict[str, Any] = dict(color="#333333", linewidth=1.2 if k % box == 0 else 0.4, zorder=1.5)
        ax.plot([k, k], [0, n], **look)
        ax.plot([0, n], [k, k], **look)


def _filled(ax: Axes, trace: Frame) -> None:
    if trace["right"].isna().all():
        empty(ax, "no single solution to count against")
        return
    blanks = trace["blanks"].iloc[0]
    ax.plot(trace["step"], trace["right"], color="#009E73", marker="o", markersize=4)
    ax.axhline(blanks, color="#777777", linewidth=0.8)
    ax.set(ylabel="blanks right", ylim=(0, blanks * 1.08 + 0.5))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))


def _pair(ax: Axes, steps: Any, lines: Mapping[str, Any]) -> None:
    looks = (("#000000", "-", "o"), ("#D55E00", "--", "^"))
    for (label, values), (colour, line, marker) in zip(lines.items(), looks, strict=True):
        ax.plot(steps, values, color=colour, linestyle=line, marker=marker, markersize=4, label=label)
    ax.legend(fontsize=7.5, ncols=2)


def _where(board: Board, most: int = 3) -> str:
    """` (r1c3 has 4, not 7; ...)` for the first wrong cells."""
    wrong = np.flatnonzero(board.kinds == WRONG).tolist()
    if not wrong:
        return ""
    named = []
    for cell in wrong[:most]:
        of = f"r{cell // board.size + 1}c{cell % board.size + 1} has {board.digits[cell] or 'no digit'}"
        named.append(of + (f", not {board.right[cell]}" if board.right[cell] else ""))
    return f" ({'; '.join(named)}{'; ...' if len(wrong) > most else ''})"
