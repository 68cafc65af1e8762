"""Amax gains and sums of res by depth."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mhcnb.analysis.gains import Frame
from mhcnb.plots.style import canvas, empty, logarithmic, looks, number, plain_ticks, reduction_of, style

FLOOR = 1e-9  # below the rounding of float32 sums: the lower end of a logarithmic axis of deviations
PANELS = (("single", "forward"), ("single", "backward"), ("prefix", "forward"), ("suffix", "backward"))
TITLES = {
    ("single", "forward"): "single maps, forward",
    ("single", "backward"): "single maps, backward",
    ("prefix", "forward"): "composite from entry to depth l, forward",
    ("prefix", "backward"): "composite from entry to depth l, backward",
    ("suffix", "forward"): "composite from depth l to exit, forward",
    ("suffix", "backward"): "composite from depth l to exit, backward",
}


def plot_gain(frame: Frame, scope: str, side: str, ax: Axes | None = None) -> Figure:
    """Amax gain of one side by depth, a line a method (column `method`), on a logarithmic axis with a line at 1."""
    with style():
        alone = ax is None
        figure, ax = canvas(ax)
        chosen = frame[frame["scope"] == scope]
        for method, look in looks(frame["method"]).items():
            _lines(ax, chosen[chosen["method"] == method], side, method, look)
        logarithmic(ax, chosen[side])
        ax.axhline(1, color="#777777", linewidth=0.8, zorder=1)
        ax.set(title=TITLES[scope, side], xlabel="depth l (sites)", ylabel="amax gain (ratio)")
        if alone:
            ax.legend()
    return figure


def plot_gains(frame: Frame) -> Figure:
    """The four gains that mHC shows: forward and backward, of single maps and of composites. Columns method and
    setting say whose they are."""
    with style():
        figure = Figure(figsize=(9.2, 6.0), layout="constrained")
        axes = figure.subplots(2, 2)
        if frame.empty:
            for ax in axes.flat:
                empty(ax, "no gains")
            return figure
        figure.suptitle("; ".join(filter(None, [*frame["setting"].unique(), reduction_of(frame)])), fontsize=9)
        for ax, (scope, side) in zip(axes.flat, PANELS, strict=True):
            plot_gain(frame, scope, side, ax)
        _share_range(axes[0])
        _share_range(axes[1])
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
    return figure


def say_gains(frame: Frame) -> list[str]:
    """For each method the composite's greatest gains and where they are."""
    words = []
    for method, part in frame.groupby("method", sort=False):
        peaks = [_peak(part[part["scope"] == scope], side) for scope, side in PANELS[2:]]
        single = part[part["scope"] == "single"]
        words.append(
            f"{method}: composite gain forward {peaks[0]}, backward {peaks[1]}; "
            f"single maps forward {_range(single['forward'])}, backward {_range(single['backward'])}."
        )
    return words


def plot_sums(frame: Frame, ax: Axes | None = None) -> Figure:
    """How far row and column sums are from 1 by depth: of single maps and of composites, mean and worst token. Where
    the distance is zero there is no point."""
    with style():
        figure, ax = canvas(ax, 6.4, 3.8)
        if not frame.filter(like="_max_deviation").to_numpy().any():
            empty(ax, "every sum is exactly 1")
            return figure
        for scope, line, face, shift in (("single", "-", None, -0.07), ("prefix", "--", "white", 0.07)):
            part = frame[frame["scope"] == scope]
            x = part["index"] + shift
            for side, colour, marker in (("row", "#0072B2", "o"), ("column", "#D55E00", "^")):
                mean, worst = (part[f"{side}_{kind}_deviation"].replace(0, math.nan) for kind in ("mean", "max"))
                label = f"{side}s, {'single' if scope == 'single' else 'composite 1..l'}"
                ax.vlines(x, mean, worst, color=colour, alpha=0.4)
                ax.plot(x, mean, label=label, color=colour, marker=marker, linestyle=line, markerfacecolor=face)
        ax.set_yscale("log")
        ax.set_ylim(FLOOR, None)
        ax.set(xlabel="depth l (sites)", ylabel="|sum - 1|: mean, bar up to the worst")
        ax.legend(fontsize=7.5, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def say_sums(frame: Frame, name: str) -> str:
    """The worst sums of single maps and of the composites, and the smallest column."""
    single, prefix = (frame[frame["scope"] == scope] for scope in ("single", "prefix"))
    parts = [
        f"{side} sums differ from 1 by at most {number(single[f'{side}_max_deviation'].max())} in one site "
        f"and {number(prefix[f'{side}_max_deviation'].max())} in a composite"
        for side in ("row", "column")
    ]
    least = f"the smallest column sum of a composite is {number(prefix['column_min'].min())}"
    return f"{name}: {'; '.join(parts)}; {least} (over all tokens)."


def _lines(ax: Axes, part: Frame, side: str, method: str, look: dict) -> None:
    """A line a span and run, broken where a span ends."""
    label = method
    for _, span in part.groupby([c for c in ("run", "stack", "call") if c in part], sort=False):
        span = span.sort_values("index")
        every = max(1, len(span) // 12)
        ax.plot(span["index"], span[side], label=label, markevery=every, **look)
        label = "_nolegend_"


def _share_range(axes) -> None:
    """One vertical range, so that forward and backward compare by eye."""
    limits = [ax.get_ylim() for ax in axes]
    for ax in axes:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        plain_ticks(ax)


def _peak(part: Frame, side: str) -> str:
    values = part[side]
    if values.isna().all():
        return "?"
    where = values.idxmax()
    if values.max() - values.min() < 1e-4:
        return f"{number(values[where], 4)} throughout"
    return f"up to {number(values[where], 4)} at {part.loc[where, 'site']}"


def _range(values: Any) -> str:
    low, high = number(values.min(), 4), number(values.max(), 4)
    return low if low == high else f"{low} to {high}"
