"""Losses against updates, and where runs end."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mhcnb.analysis.compare import by_method
from mhcnb.analysis.gains import Frame
from mhcnb.plots.style import canvas, empty, looks, number, style

PANELS = {
    "val_loss": "validation loss (nats/token)",
    "tokens_per_s": "speed (tokens/s)",
    "peak_memory_gb": "peak memory (GB)",
}


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


def say_losses(frame: Frame, entropy: float = math.nan) -> list[str]:
    """For each run the first and the latest validation loss."""
    words = []
    for (method, run), val in frame[frame["split"] == "val"].groupby(["method", "run"], sort=False):
        val = val.sort_values("step")
        first, last = val.iloc[0], val.iloc[-1]
        text = f"{method} ({run}): val loss {first['loss']:.3f} at update {first['step']}"
        text += f", {last['loss']:.3f} at {last['step']} ({first['loss'] - last['loss']:.3f} lower)"
        if math.isfinite(entropy):
            side = "under" if last["loss"] < entropy else "over"
            text += f", {abs(entropy - last['loss']):.2f} {side} the unigram entropy"
        words.append(text + ".")
    return words


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


def plot_finals(frame: Frame) -> Figure:
    """Validation loss, speed and memory at the end, a row a method and a point a run (seed), values written beside."""
    with style():
        methods = list(looks(frame["method"]))
        figure = Figure(figsize=(9.6, 1.3 + 0.42 * max(len(methods), 1)), layout="constrained")
        figure.suptitle(", ".join(frame["setting"].unique()), fontsize=9)
        axes = figure.subplots(1, len(PANELS), sharey=True)
        for ax, (column, label) in zip(axes, PANELS.items(), strict=True):
            if not np.isfinite(frame[column]).any():
                empty(ax, f"no {label}")
                continue
            _points(ax, frame, column, methods)
            ax.set(xlabel=label, yticks=range(len(methods)), yticklabels=methods)
            ax.set_ylim(len(methods) - 0.4, -0.6)
    return figure


def say_finals(frame: Frame) -> list[str]:
    """For each setting the methods of finished runs in order of loss, with their paired differences to residual."""
    words = []
    for setting, part in by_method(frame).groupby("setting", sort=False):
        ranked = part.sort_values("val_loss")
        each = [f"{row.method} {row.val_loss:.4f}{_against(row.difference)}" for row in ranked.itertuples()]
        words.append(f"{setting}, best first: {'; '.join(each)}.")
    return words or ["No run has finished yet."]


def _points(ax: Axes, frame: Frame, column: str, methods: list[str]) -> None:
    for row, (method, look) in enumerate(looks(methods).items()):
        values = frame.loc[frame["method"] == method, column].dropna()
        ax.plot(values, [row] * len(values), color=look["color"], marker=look["marker"], linestyle="none")
        if len(values):
            text = f"{values.mean():.4f}" if column == "val_loss" else number(values.mean())
            ax.annotate(
                text, (values.mean(), row), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7.5
            )
    ax.margins(x=0.25)


def _against(difference: float) -> str:
    return f" ({difference:+.4f} to residual)" if math.isfinite(difference) and difference else ""
