"""A model that answers in steps, over many puzzles: how right it is by step and by the number of blanks, when it would
halt, how far its states move. Frames have the columns run and method."""

import math
from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mhcnb.analysis.gains import Frame
from mhcnb.plots.puzzle import COLOURS
from mhcnb.plots.style import looks, number, style

SHARES = {"blank_accuracy": "blank cells that are right", "exact_accuracy": "puzzles that are solved"}
LEVELS = {"H": "level H", "L": "level L"}
ACROSS = 4  # panels beside one another


def plot_steps(steps: Frame) -> Figure:
    """Shares of blank cells and of whole puzzles that are right, by step."""
    with style():
        figure = Figure(figsize=(8.6, 3.5), layout="constrained")
        for ax, (name, label) in zip(figure.subplots(1, 2), SHARES.items(), strict=True):
            for part, look in _runs(steps):
                ax.plot(part["step"], part[name], **look)
            ax.set(xlabel="step", ylabel=label, ylim=(-0.02, 1.02))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.suptitle(f"{_puzzles(steps)}, by step", fontsize=9)
        _legend(figure)
    return figure


def say_steps(steps: Frame) -> list[str]:
    """For each run the shares at the first and the last step."""
    words = []
    for run, part in steps.groupby("run", sort=False):
        first, last = part.iloc[0], part.iloc[-1]
        shares = [f"{number(first[name])} to {number(last[name])} of the {label}" for name, label in SHARES.items()]
        p, n = last["exact_accuracy"], last["puzzles"]
        words.append(
            f"{_whose(part, run)}: from step {first['step']} to {last['step']} it goes from {', from '.join(shares)} "
            f"(± {number(math.sqrt(p * (1 - p) / n), 2)}, {n} puzzles); of all cells {number(last['accuracy'])}."
        )
    return words


def plot_blanks(blanks: Frame) -> Figure:
    """The same after the last step, by the number of blanks; below, how many puzzles there are of each."""
    with style():
        figure = Figure(figsize=(8.6, 4.4), layout="constrained")
        axes = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
        counts = blanks[blanks["run"] == blanks["run"].iloc[0]]
        for (ax, below), (name, label) in zip(axes.T, SHARES.items(), strict=True):
            for part, look in _runs(blanks):
                ax.plot((part["low"] + part["high"]) / 2, part[name], **look)
            ax.set(ylabel=label, ylim=(-0.02, 1.02))
            wide = (counts["high"] - counts["low"] + 0.8).to_numpy()
            below.bar((counts["low"] + counts["high"]) / 2, counts["puzzles"], wide, color="#BBBBBB")
            below.set(xlabel="blanks", ylabel="puzzles")
            below.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.suptitle(f"{_puzzles(blanks)}, by number of blanks", fontsize=9)
        _legend(figure)
    return figure


def say_blanks(blanks: Frame) -> list[str]:
    """For each run the shares of the puzzles with fewest and with most blanks."""
    words = []
    for run, part in blanks.groupby("run", sort=False):
        ends = [part.iloc[0], part.iloc[-1]][: len(part)]
        shares = [
            f"of {row['puzzles']:.0f} puzzles with {_range(row)} blanks it solves {number(row['exact_accuracy'])} and "
            f"has {number(row['blank_accuracy'])} of their blanks right"
            for row in ends
        ]
        words.append(f"{_whose(part, run)}: {'; '.join(shares)}.")
    return words


def plot_halting(halting: Frame) -> Figure:
    """A panel a run: after which step puzzles would halt, right or wrong."""
    with style():
        runs = list(halting["run"].unique())
        across, down = min(len(runs), ACROSS), -(-len(runs) // ACROSS)
        figure = Figure(figsize=(max(2.6 * across, 4.6), 2.4 * down + 0.6), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False, sharey=True)
        for ax in list(axes.flat)[len(runs) :]:
            ax.set_axis_off()
        for ax, run in zip(axes.flat, runs, strict=False):
            part = halting[halting["run"] == run]
            ax.bar(part["step"], part["right"], color=COLOURS["right"][0], edgecolor="#777777", label="solved then")
            look: dict[str, Any] = dict(color=COLOURS["wrong"][0], edgecolor="#777777", hatch="///", label="not solved")
            ax.bar(part["step"], part["wrong"], bottom=part["right"], linewidth=0.6, **look)
            ax.set(title=_whose(part, run), xlabel="step")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0, 0].set_ylabel("puzzles that would halt")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def say_halting(halting: Frame) -> list[str]:
    """For each run how many would halt before the last step, when on average, and how often they are right."""
    words = []
    for run, part in halting.groupby("run", sort=False):
        all_, early = part["right"] + part["wrong"], part.iloc[:-1]
        n, last = int(all_.sum()), int(part["step"].iloc[-1])
        stops, right = int((early["right"] + early["wrong"]).sum()), int(early["right"].sum())
        mean = (all_ * part["step"]).sum() / n
        text = f"{_whose(part, run)}: by its own will it halts before step {last} in {stops} of {n} puzzles"
        text += f", {right} of them solved" if stops else ""
        words.append(f"{text}; {number(mean)} steps on average, {int(part['right'].sum())} puzzles solved then.")
    return words


def plot_distances(distances: Frame) -> Figure:
    """How far the states of both levels move in each step: medians; of one run alone also the middle 80 %."""
    with style():
        figure = Figure(figsize=(8.6, 3.5), layout="constrained")
        for ax, (level, title) in zip(figure.subplots(1, 2, sharey=True), LEVELS.items(), strict=True):
            of_level = distances[distances["level"] == level]
            for part, look in _runs(of_level):
                if of_level["run"].nunique() == 1:
                    band: dict[str, Any] = dict(color=look["color"], alpha=0.15, linewidth=0)
                    ax.fill_between(part["step"], part["low"], part["high"], **band)
                ax.plot(part["step"], part["median"], **look)
            ax.set(title=title, xlabel="step", yscale="log")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.axes[0].set_ylabel(r"$\|z_k - z_{k-1}\| \, / \, \|z_{k-1}\|$")
        _legend(figure)
    return figure


def say_distances(distances: Frame) -> list[str]:
    """For each run how far each level moves in its first and its last step."""
    words = []
    for run, part in distances.groupby("run", sort=False):
        ends = {level: own["median"].iloc[[0, -1]] for level, own in part.groupby("level", sort=False)}
        moves = [f"{level} by {number(a)} in step 1 and {number(b)} in the last" for level, (a, b) in ends.items()]
        words.append(f"{_whose(part, run)} moves {', '.join(moves)} (of the state's size, medians over puzzles).")
    return words


def _runs(frame: Frame) -> Iterator[tuple[Frame, dict[str, Any]]]:
    """(part, how it is drawn) for each run; its method stands in the legend once."""
    look_of, named = looks(frame["method"]), set()
    for method, look in look_of.items():
        for _, part in frame[frame["method"] == method].groupby("run", sort=False):
            yield part, look | dict(label="_nolegend_" if method in named else method)
            named.add(method)


def _legend(figure: Figure) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))


def _puzzles(frame: Frame) -> str:
    of_one = frame[frame["run"] == frame["run"].iloc[0]]
    return f"{int(of_one['puzzles'].sum() if 'low' in frame else of_one['puzzles'].iloc[0])} puzzles"


def _whose(part: Frame, run: Any) -> str:
    """The method, and the run where that is not named so."""
    method = part["method"].iloc[0]
    return str(run) if str(run).startswith(method) else f"{method} ({run})"


def _range(row: Any) -> str:
    return f"{row['low']:.0f}" if row["low"] == row["high"] else f"{row['low']:.0f} to {row['high']:.0f}"
