"""A point a run: loss against gain, cost against loss, gain against depth."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mhcnb.analysis.compare import BASELINE
from mhcnb.analysis.gains import Frame
from mhcnb.plots.style import canvas, empty, logarithmic, looks, number, reduction_of, style

COSTS = {"tokens_per_s": "speed (tokens/s)", "peak_memory_gb": "peak memory (GB)"}
FEWEST = 5  # runs under which a correlation of ranks is chance
GAINS = {"forward": "entry to exit, forward", "backward": "entry to exit, backward"}


def plot_loss_gain(runs: Frame, ax: Axes | None = None) -> Figure:
    """Final val loss against the larger side of the whole composite's gain (columns forward, backward, val_loss)."""
    with style():
        figure, ax = canvas(ax)
        runs = runs.assign(gain=runs[list(GAINS)].max(axis=1))
        runs = runs[np.isfinite(runs["gain"]) & np.isfinite(runs["val_loss"])]
        if runs.empty:
            empty(ax, "no run has both a final loss and maps")
            return figure
        _points(ax, runs, "gain", "val_loss")
        logarithmic_x(ax, runs["gain"])
        ax.set(xlabel="amax gain of the whole product, larger side (ratio)", ylabel="val loss (nats/token)")
        ax.set_title(f"{_settings(runs)}\n{reduction_of(runs)}")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))  # beside it: here points are few and large
    return figure


def say_loss_gain(runs: Frame) -> str:
    """Whether runs with a larger gain have a larger loss: rank correlation, over runs of one setting each."""
    runs = runs.assign(gain=runs[list(GAINS)].max(axis=1)).dropna(subset=["gain", "val_loss"])
    if len(runs) < FEWEST:
        return "Too few runs with a loss and maps to relate them."
    ranks = runs.groupby("setting")[["gain", "val_loss"]].rank()
    centred = ranks - ranks.groupby(runs["setting"]).transform("mean")
    scale = float(np.sqrt((centred**2).sum().prod()))
    if not scale:
        return "All runs of a setting have one gain or one loss: there is nothing to relate."
    r = float((centred["gain"] * centred["val_loss"]).sum()) / scale
    tendency = (
        "no clear tendency" if abs(r) < 0.3 else f"a larger gain goes with a {'higher' if r > 0 else 'lower'} loss"
    )
    return f"Loss against gain over {len(runs)} runs: rank correlation {r:+.2f} within settings, {tendency}."


def plot_cost(finals: Frame) -> Figure:
    """Val loss against speed and against memory."""
    with style():
        figure = Figure(figsize=(9.2, 3.6), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        figure.suptitle(_settings(finals), fontsize=9)
        for ax, (column, label) in zip(axes, COSTS.items(), strict=True):
            part = finals[np.isfinite(finals[column]) & np.isfinite(finals["val_loss"])]
            if part.empty:
                empty(ax, f"no run has both a final loss and its {label}")
                continue
            _points(ax, part, column, "val_loss")
            ax.set(xlabel=label, ylabel="val loss (nats/token)")
        handles, labels = max((ax.get_legend_handles_labels() for ax in axes), key=lambda pair: len(pair[0]))
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
    return figure


def say_cost(finals: Frame) -> list[str]:
    """For each setting and method speed and memory, against residual where it is there."""
    words = []
    for setting, part in finals.groupby("setting", sort=False):
        mean = part.groupby("method", sort=False)[[*COSTS, "val_loss"]].mean()
        base = mean.loc[BASELINE] if BASELINE in mean.index else None
        each = []
        for method, row in mean.iterrows():
            ratio = (
                f" ({row.tokens_per_s / base.tokens_per_s:.2f} of {BASELINE})"
                if base is not None and method != BASELINE
                else ""
            )
            each.append(f"{method} {number(row.tokens_per_s)} tokens/s{ratio}, {number(row.peak_memory_gb)} GB")
        words.append(f"{setting}: {'; '.join(each)}.")
    return words


def plot_depth(runs: Frame) -> Figure:
    """Gain of the whole product against the number of sites: a point a run, a line through a method's means."""
    with style():
        figure = Figure(figsize=(9.2, 3.8), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        figure.suptitle(f"amax gain of the product of all maps of a run\n{reduction_of(runs)}", fontsize=9)
        for ax, (side, label) in zip(axes, GAINS.items(), strict=True):
            part = runs[np.isfinite(runs[side])]
            if part["sites"].nunique() < 2:
                empty(ax, "all runs have one depth: a sweep over model.layers shows more")
                continue
            for method, look in looks(part["method"]).items():
                own = part[part["method"] == method]
                mean = own.groupby("sites")[side].agg(lambda v: float(np.exp(np.log(v).mean())))
                ax.plot(mean.index, mean, label=method, **look)
                ax.plot(own["sites"], own[side], **(look | {"linestyle": "none", "alpha": 0.5, "markersize": 4}))
            ax.axhline(1, color="#777777", linewidth=0.8, zorder=1)
            ax.set(title=label, xlabel="depth L (sites)", ylabel="amax gain (ratio)")
        logarithmic(axes[0], runs[list(GAINS)].to_numpy())
        handles, labels = axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
    return figure


def say_depth(runs: Frame) -> list[str]:
    """For each method the larger gain at the least and at the greatest depth."""
    if runs["sites"].nunique() < 2:
        return ["All runs have one depth: nothing to compare over it (params/sweeps/depth.yaml varies it)."]
    words = []
    for method, part in runs.assign(gain=runs[list(GAINS)].max(axis=1)).groupby("method", sort=False):
        mean = part.groupby("sites")["gain"].mean()
        each = ", ".join(f"{number(gain, 4)} at {sites}" for sites, gain in mean.items())
        words.append(f"{method}: gain of the whole product (larger side) {each} sites.")
    return words


def logarithmic_x(ax: Axes, values) -> None:
    """The x axis logarithmic where values span more than a factor of three."""
    if values.min() > 0 and values.max() / values.min() > 3:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        ax.set_xlim(min(values.min(), 0.95) - 0.02, max(values.max(), 1.05) + 0.02)


def _points(ax: Axes, runs: Frame, x: str, y: str) -> None:
    """Faint points of runs, and a larger one at a method's mean where it has several."""
    for method, look in looks(runs["method"]).items():
        own, point = runs[runs["method"] == method], look | {"linestyle": "none", "markersize": 8}
        if len(own) > 1:
            ax.plot(own[x], own[y], **(point | {"alpha": 0.5, "markersize": 4, "fillstyle": "none"}))
        ax.plot(own[x].mean(), own[y].mean(), label=method, **point)


def _settings(frame: Frame) -> str:
    return ", ".join(frame["setting"].unique())
