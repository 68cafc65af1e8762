"""Which of several runs solves which of the same puzzles."""

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from mhcnb.analysis.gains import Frame
from mhcnb.plots.puzzle import COLOURS
from mhcnb.plots.style import canvas, number, style


def plot_solved(solved: Frame) -> Figure:
    """A row a run (a column of the frame, bool), a column a puzzle, in the order of the column `blanks`, then the most
    solved first."""
    with style():
        runs = runs_of(solved)
        figure, ax = canvas(None, 9.2, 0.34 * len(runs) + 1.4)
        ordered = solved.iloc[np.lexsort((-solved[runs].sum(axis=1), solved["blanks"]))]
        shades = ListedColormap([COLOURS["wrong"][0], COLOURS["right"][0]])
        ax.imshow(ordered[runs].T.to_numpy(float), aspect="auto", cmap=shades, vmin=0, vmax=1, interpolation="nearest")
        ax.set_yticks(range(len(runs)), [f"{run}  {number(solved[run].mean())}" for run in runs])
        ax.set_yticks(np.arange(len(runs) + 1) - 0.5, minor=True)
        ax.grid(visible=False)
        ax.grid(which="minor", axis="y", color="white", linewidth=2)
        _mark_blanks(ax, ordered["blanks"].to_numpy())
        ax.tick_params(which="both", length=0)
        ax.spines[:].set_visible(False)
        ax.set(xlabel="puzzles, from where there are so many blanks")
        ax.set_title(f"the same {len(solved)} puzzles, solved (light green) or not (orange), and the share solved")
    return figure


def say_solved(solved: Frame) -> list[str]:
    """What all and what none of the runs solve, and each against the first."""
    first, *others = runs = runs_of(solved)
    every, none = int(solved[runs].all(axis=1).sum()), int((~solved[runs]).all(axis=1).sum())
    words = [f"Of {len(solved)} puzzles all runs solve {every}, none solves {none}."]
    for other in others:
        more, less = (int((solved[a] & ~solved[b]).sum()) for a, b in ((other, first), (first, other)))
        words.append(f"{other} solves {more} that {first} does not; {first} solves {less} that {other} does not.")
    return words


def runs_of(solved: Frame) -> list[str]:
    """The columns that are runs."""
    return [column for column in solved if column != "blanks"]


def _mark_blanks(ax, blanks: np.ndarray) -> None:
    """Numbers of blanks where they begin, as far apart as they can be read."""
    starts = np.flatnonzero(np.diff(blanks, prepend=-1))
    shown, least = [], len(blanks) / 30
    for start in starts.tolist():
        if not shown or start - shown[-1] >= least:
            shown.append(start)
    ax.set_xticks(shown, [str(blanks[start]) for start in shown])
