"""What connections cost: ratios of a bench, cost against sizes, memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mhcnb.analysis.gains import Frame
from mhcnb.plots.style import COLOURS, empty, looks, number, style

Row = Mapping[str, Any]  # one timing: case, name, median_s, low_s, high_s, ratio
AXES = {"n": "streams n", "C": "width C", "T": "tokens T in a row", "depth": "blocks"}
KINDS = {"activations": "kept for backward", "update": "most at any moment of an update"}
GREY = "#BBBBBB"


def plot_ratios(rows: Sequence[Row]) -> Figure:
    """A panel a case, a bar a contender: its time over the first one's, with the quartiles; ours in the colours of
    their methods, others hatched, the floor grey."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    with style():
        heights = [sum(row["case"] == case for row in rows) + 1.5 for case in cases] or [2.0]
        figure = Figure(figsize=(7.2, 0.26 * sum(heights) + 0.4), layout="constrained")
        axes = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        if not cases:
            empty(axes[0], "nothing was timed")
        for ax, case in zip(axes, cases, strict=False):
            _bars(ax, [row for row in rows if row["case"] == case])
            ax.set_title(case, loc="left")
        axes[-1].set_xlabel("time over that of the first (ratio)")
    return figure


def _bars(ax: Axes, rows: Sequence[Row]) -> None:
    base = rows[0]["median_s"]
    look = looks([row["name"].split(": ")[-1] for row in rows])
    for k, row in enumerate(rows):
        colour = GREY if row["name"].startswith("floor: ") else look[row["name"].split(": ")[-1]]["color"]
        theirs = ": " in row["name"] and colour != GREY
        ax.barh(k, row["ratio"], color="white" if theirs else colour, edgecolor=colour, hatch="//" if theirs else "")
        ax.plot([row["low_s"] / base, row["high_s"] / base], [k, k], color=COLOURS[-1], linewidth=1)
        end = max(row["ratio"], row["high_s"] / base)
        ax.annotate(number(row["ratio"]), (end, k), (4, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ratios = [row["ratio"] for row in rows]
    if max(ratios) / min(ratios) > 30:
        ax.set_xscale("log")
    ax.axvline(1, color="#777777", linewidth=0.8)
    ax.margins(x=0.12)


def plot_costs(costs: Frame) -> Figure:
    """A panel an axis (n, C, T, depth), a line a method: the time of forward and backward over residual's."""
    shown = [axis for axis in AXES if (costs["axis"] == axis).any()] if len(costs) else []
    with style():
        figure = Figure(figsize=(2.6 * max(len(shown), 2), 3.2), layout="constrained")
        axes = figure.subplots(1, max(len(shown), 1), sharey=True, squeeze=False)[0]
        if not shown:
            empty(axes[0], "nothing was timed")
            return figure
        for ax, axis in zip(axes, shown, strict=True):
            part = costs[costs["axis"] == axis]
            for method, look in looks(part["method"]).items():
                own = part[part["method"] == method]
                ax.plot(own["value"], own["ratio"], label=method, **look)
                ax.fill_between(own["value"], own["low"], own["high"], color=look["color"], alpha=0.12, linewidth=0)
            values = sorted(part["value"].unique())
            ax.set_xscale("log", base=2)
            ax.set_xticks(values, [str(value) for value in values])
            ax.minorticks_off()
            ax.axhline(1, color="#777777", linewidth=0.8, zorder=1)
            ax.set(xlabel=AXES[axis])
        axes[0].set_ylabel("time over residual's (ratio)")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


def say_costs(costs: Frame) -> list[str]:
    """For each axis and method the ratio at both ends."""
    words = []
    for axis, part in costs.groupby("axis", sort=False):
        each = []
        for method, own in part.groupby("method", sort=False):
            first, last = own.iloc[0], own.iloc[-1]
            each.append(f"{method} {first.ratio:.2f} at {first.value}, {last.ratio:.2f} at {last.value}")
        words.append(f"{AXES[str(axis)]}: {'; '.join(each)} (times residual).")
    return words or ["Nothing was timed."]


def plot_memory(memory: Frame) -> Figure:
    """Two panels, what backward finds kept and the most there is at any moment: a group of bars a method, in it a bar a
    way to recompute, in 10⁶ bytes."""
    with style():
        figure = Figure(figsize=(9.2, 3.2), layout="constrained")
        kinds = list(memory["recompute"].unique())
        for ax, (column, title) in zip(figure.subplots(1, 2), KINDS.items(), strict=True):
            methods = list(looks(memory["method"]))
            for k, kind in enumerate(kinds):
                part = memory[memory["recompute"] == kind].set_index("method")
                places = [i + 0.8 * (k - (len(kinds) - 1) / 2) / len(kinds) for i in range(len(methods))]
                heights = [part.loc[method, column] / 1e6 for method in methods]
                bars = ax.bar(places, heights, 0.75 / len(kinds), color=COLOURS[2 + k], label=f"recompute: {kind}")
                ax.bar_label(bars, [number(height) for height in heights], fontsize=6.5)
            ax.set_xticks(range(len(methods)), methods)
            ax.grid(visible=False, axis="x")
            ax.set(title=title, ylabel="MB")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds))
    return figure


def say_memory(memory: Frame) -> list[str]:
    """For each method what is kept and the most there is, against residual's, and what recomputing leaves."""
    words = []
    base = memory[memory["method"] == "residual"].set_index("recompute")
    for method, part in memory.groupby("method", sort=False):
        own = part.set_index("recompute")
        each = [
            f"{kind} {number(row['activations'] / 1e6)} MB kept, {number(row['update'] / 1e6)} MB at most"
            + (f" ({row['update'] / base.loc[kind, 'update']:.2f} of residual)" if kind in base.index else "")
            for kind, row in own.iterrows()
        ]
        words.append(f"{method}, recompute: {'; '.join(each)}.")
    return words
