"""Methods over several seeds: bands of losses, paired differences to residual, and the noise floor under both."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mhcnb.analysis.compare import BASELINE
from mhcnb.analysis.gains import Frame
from mhcnb.analysis.seeds import LEVEL, Interval, noise_floor, paired_differences, pairs
from mhcnb.plots.style import canvas, empty, looks, number, style

SHADE = 0.15


def plot_bands(bands: Frame, split: str = "val", entropy: float = math.nan, ax: Axes | None = None) -> Figure:
    """Loss by update (`analysis.seeds.bands`): line the mean over seeds, band from the lowest to the highest seed."""
    with style():
        figure, ax = canvas(ax, 7.2, 4.2)
        part = bands[bands["split"] == split]
        if part.empty:
            empty(ax, "no losses")
            return figure
        most = int(part["runs"].max())
        for method, look in looks(part["method"]).items():
            own = part[part["method"] == method].sort_values("step")
            ax.plot(own["step"], own["mean"], label=method, **look)
            ax.fill_between(own["step"], own["low"], own["high"], color=look["color"], alpha=SHADE, linewidth=0)
        if math.isfinite(entropy):
            ax.axhline(entropy, color="#777777", linewidth=1, linestyle=(0, (1, 2)), label="unigram entropy")
        ax.set(xlabel="update", ylabel=f"{split} loss (nats/token)")
        over = f", mean and range of up to {most} seeds" if most > 1 else ""
        ax.set_title(f"{_settings(part)}: {split} loss{over}")
        ax.legend()
    return figure


def say_bands(bands: Frame, split: str = "val") -> list[str]:
    """For each method where its seeds end."""
    part = bands[bands["split"] == split].sort_values("step")
    words = []
    for (setting, method), own in part.groupby(["setting", "method"], sort=False):
        last = own.iloc[-1]
        spread = f", seeds from {last['low']:.4f} to {last['high']:.4f}" if last["runs"] > 1 else ""
        runs = f"{last['runs']} run{'s' if last['runs'] > 1 else ''}"
        words.append(
            f"{setting}, {method}: mean {split} loss {last['mean']:.4f} at update {last['step']}{spread} ({runs})."
        )
    return words or [f"No {split} losses."]


def plot_paired(finals: Frame, ax: Axes | None = None) -> Figure:
    """Final val loss less residual's of the same seed: a point a seed, the mean with its bootstrap interval, and in
    grey how far apart two runs are that differ in their seed alone."""
    with style():
        table, each = paired_differences(finals), pairs(finals)
        methods = list(looks(table["method"]))
        figure, ax = canvas(ax, 7.2, 1.1 + 0.5 * max(len(methods), 1))
        if table.empty:
            empty(ax, "no finished pair of a method and residual with the same setting and seed")
            return figure
        floor = noise_floor(finals)["floor"].max()
        if math.isfinite(floor):
            ax.axvspan(-floor, floor, color="#BBBBBB", alpha=0.35, linewidth=0)
        ax.axvline(0, color="#777777", linewidth=0.8)
        for row, (method, look) in enumerate(looks(methods).items()):
            values = each.loc[each["method"] == method, "difference"]
            spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0]
            point = dict(color=look["color"], marker=look["marker"], linestyle="none")
            ax.plot(values, row + np.asarray(spread), markersize=4, alpha=0.6, fillstyle="none", **point)
            mean = table[table["method"] == method].iloc[0]
            ax.plot(mean["difference"], row, markersize=8, **point)
            if math.isfinite(mean["low"]):
                ax.hlines(row, mean["low"], mean["high"], color=look["color"], linewidth=2.5)
        ax.set(yticks=range(len(methods)), yticklabels=methods, xlabel=f"val loss less that of {BASELINE} (nats/token)")
        ax.set_ylim(len(methods) - 0.5, -0.5)
        grey = "; grey: two seeds of one method (95%)" if math.isfinite(floor) else ""
        title = f"{_settings(finals)}: difference to {BASELINE}, by seed"
        ax.set_title(f"{title}\nbar: {LEVEL:.0%} bootstrap interval of the mean{grey}")
    return figure


def say_paired(finals: Frame) -> list[str]:
    """For each method its paired difference, whether it stands out from zero, and the noise floor of seeds."""
    words = []
    for row in paired_differences(finals).itertuples():
        interval = Interval(row.low, row.high)
        text = f"{row.setting}, {row.method}: {row.difference:+.4f} nats/token to {BASELINE} over {row.pairs} seed"
        text += "s" * (row.pairs > 1)
        if not interval.known:
            words.append(f"{text}; too few seeds for an interval.")
            continue
        verdict = "zero lies outside" if interval.excludes(0) else "zero lies inside: no difference is shown"
        text += f" ({LEVEL:.0%} interval {row.low:+.4f} to {row.high:+.4f}; {verdict};"
        words.append(f"{text} {row.better} of {row.pairs} seeds are better than {BASELINE}).")
    words += [
        f"{row.setting}, noise floor: seeds of one method differ by a standard deviation of {row.deviation:.4f}, "
        f"so unpaired single runs less than {number(row.floor)} nats/token apart say nothing."
        for row in noise_floor(finals).itertuples()
        if math.isfinite(row.floor)
    ]
    return words or [f"No finished pair of a method and {BASELINE} with the same setting and seed."]


def _settings(frame: Frame) -> str:
    return ", ".join(frame["setting"].unique())
