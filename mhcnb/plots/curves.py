"""Losses against updates."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mhcnb.analysis.gains import Frame
from mhcnb.plots.style import canvas, empty, looks, style


def plot_losses(frame: Frame, entropy: float = math.nan, ax: Axes | None = None) -> Figure:
    """Loss by update, a colour a method: val with markers, train thin behind it. `entropy`: of the validation
    text's unigrams, in nats, what a model without context could reach; drawn where it is known."""
    with style():
        figure, ax = canvas(ax, 7.2, 4.2)
        if not np.isfinite(frame["loss"]).any():
            empty(ax, "no losses")
            return figure
        for method, look in looks(frame["method"]).items():
            part = frame[frame["method"] == method]
            for _, train in part[part["split"] == "train"].groupby("run"):
                ax.plot(train["step"], train["loss"], color=look["color"], alpha=0.3, linewidth=0.8)
            label = method
            for _, val in part[part["split"] == "val"].groupby("run"):
                ax.plot(val["step"], val["loss"], label=label, **look)
                label = "_nolegend_"
        if math.isfinite(entropy):
            ax.axhline(entropy, color="#777777", linewidth=1, linestyle=(0, (1, 2)))
            ax.annotate(
                f"unigram entropy {entropy:.2f}", (1, entropy), xycoords=("axes fraction", "data"),
                xytext=(0, 3), textcoords="offset points", ha="right", fontsize=7.5, color="#555555",
            )  # fmt: skip
        title = f"{', '.join(frame['setting'].unique())}: val (markers), train (thin)"
        ax.set(xlabel="update", ylabel="loss (nats/token)", title=title)
        ax.legend()
    return figure


def plot_differences(frame: Frame, ax: Axes | None = None) -> Figure:
    """Validation loss less that of residual by update (`to_baseline` of curves): below 0 is better than residual."""
    with style():
        figure, ax = canvas(ax, 7.2, 3.2)
        if not np.isfinite(frame["difference"]).any():
            empty(ax, "no residual run with the same seed to compare with")
            return figure
        for method, look in looks(frame["method"]).items():
            label = method
            for _, part in frame[frame["method"] == method].groupby("run"):
                ax.plot(part["step"], part["difference"], label=label, **look)
                label = "_nolegend_"
        ax.axhline(0, color="#777777", linewidth=0.8, zorder=1)
        title = f"{', '.join(frame['setting'].unique())}: val loss, difference to residual"
        ax.set(xlabel="update", ylabel="difference (nats/token)", title=title)
        ax.legend()
    return figure


def say_differences(frame: Frame) -> list[str]:
    """For each run the latest difference to residual."""
    last = frame.sort_values("step").groupby(["method", "run"], sort=False).tail(1)
    return [
        f"{row.method} ({row.run}): {row.difference:+.4f} nats/token to residual at update {row.step}."
        for row in last.itertuples()
    ] or ["No residual run with the same setting and seed to compare with."]
