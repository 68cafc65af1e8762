"""What `analysis.measure` finds, by depth: quantiles over tokens, the spectrum of products, how alike streams are."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mhcnb.analysis.gains import Frame
from mhcnb.plots.style import COLOURS, LINES, canvas, empty, logarithmic, looks, number, reduction_of, style

SCOPES = {
    "single": "single maps",
    "prefix": "composites from entry to depth l",
    "suffix": "composites from depth l to exit",
}
NAMES = {
    "amax_forward": "amax gain forward",
    "amax_backward": "amax gain backward",
    "inf_norm": "infinity norm",
    "row_deviation": "row sums' distance from 1",
    "column_deviation": "column sums' distance from 1",
    "min_column_sum": "smallest column sum",
    "mean_zero_gain": "gain of differences between streams",
    "sigma_max": "largest singular value",
    "sigma_min": "smallest singular value",
    "lambda2": "|second eigenvalue|",
    "entropy": "entropy of rows",
    "identity_distance": "distance to I",
    "average_distance": "distance to J/n",
}
SPECTRUM = {"sigma_max": ("#0072B2", "o"), "lambda2": ("#E69F00", "^"), "sigma_min": ("#D55E00", "v")}
FLOOR = 1e-12  # singular values below are rounding of float64 products


def plot_quantiles(maps: Frame, quantity: str, scope: str, ax: Axes | None = None) -> Figure:
    """One quantity by depth over tokens: median, mean, the range up to 99 of 100, and the furthest token."""
    with style():
        figure, ax = canvas(ax)
        part = choose(maps, quantity, scope)
        if not np.isfinite(part["max"]).any():
            empty(ax, f"no finite {NAMES.get(quantity, quantity)}")
            return figure
        label = "tokens, median to 99 of 100"
        for _, span in part.groupby(["stack", "call"], sort=False):
            x = span["index"]
            ax.fill_between(x, span["p50"], span["p99"], color="#0072B2", alpha=0.25, linewidth=0, label=label)
            ax.plot(x, span["p50"], color="#0072B2", label=_once("median token", label))
            ax.plot(x, span["mean"], color="#000000", linestyle="--", label=_once("mean", label))
            ax.plot(x, span["max"], color="#D55E00", linestyle=":", marker="^", label=_once("worst token", label))
            label = "_nolegend_"
        logarithmic(ax, part[["p50", "max"]].to_numpy(), around=1 if "deviation" not in quantity else None)
        ax.set(xlabel="depth l (sites)", ylabel=NAMES.get(quantity, quantity))
        ax.set_title(f"{NAMES.get(quantity, quantity)}, {SCOPES[scope]}\n{reduction_of(maps)}")
        ax.legend(fontsize=7.5)
    return figure


def say_quantiles(maps: Frame, quantity: str, scope: str, name: str) -> str:
    """Median, 99 of 100 and the worst token at the depth where that is worst."""
    part, what = choose(maps, quantity, scope), NAMES.get(quantity, quantity)
    finite = part[np.isfinite(part["max"])]
    if finite.empty:
        return f"{name}: {what} of {SCOPES[scope]} is not finite anywhere."
    row = finite.iloc[finite["max"].argmax()]
    if finite["max"].max() - finite["min"].min() < 1e-5:
        return f"{name}: {what} of {SCOPES[scope]} is {number(row['mean'], 5)} for every token at every depth."
    text = f"{name}: {what} of {SCOPES[scope]} is largest at {row['site']}: median token {number(row['p50'], 4)}, "
    text += (
        f"99 of 100 tokens below {number(row['p99'], 4)}, worst token (no. {int(row['worst'])}) {number(row['max'], 4)}"
    )
    lost = len(part) - len(finite)
    return text + (f"; not finite at {lost} of {len(part)} sites." if lost else ".")


def plot_spectrum(maps: Frame) -> Figure:
    """Largest and smallest singular value and |second eigenvalue| by depth, of single maps and of composites."""
    with style():
        figure = Figure(figsize=(9.2, 3.4), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        drawn = [maps[maps["quantity"].isin(SPECTRUM) & (maps["scope"] == scope)] for scope in ("single", "prefix")]
        for ax, scope, part in zip(axes, ("single", "prefix"), drawn, strict=True):
            if not np.isfinite(part["mean"]).any():
                empty(ax, "one stream: a number has no spectrum to see" if part.empty else "no finite values")
                continue
            _spectrum(ax, part)
            ax.set(title=SCOPES[scope], xlabel="depth l (sites)", ylabel="mean over tokens")
        figure.suptitle(reduction_of(maps), fontsize=9)
        axes[0].legend(fontsize=7.5, loc="best") if axes[0].lines else None
    return figure


def say_spectrum(maps: Frame, name: str) -> str:
    """How much of a difference between streams the whole product keeps."""
    last = maps[maps["scope"] == "prefix"].sort_values("index").groupby("quantity").tail(1).set_index("quantity")
    if last.empty or not np.isfinite(last["mean"].get("sigma_max", np.nan)):
        return f"{name}: the product of all maps has no finite spectrum."
    kept = last["mean"].get("mean_zero_gain", np.nan)
    text = f"{name}: the product of all {int(last['depth'].max())} maps stretches by at most "
    text += f"{number(last['mean']['sigma_max'])} and by at least {number(last['mean']['sigma_min'])}, its second "
    text += f"eigenvalue is {number(last['mean']['lambda2'])}; it keeps at most {number(kept)} of a difference "
    return text + "between streams (means over tokens)."


def plot_streams(streams: Frame) -> Figure:
    """The streams that enter each site: mean cosine between pairs, effective rank, RMS; a line a method, or, where
    there is one run, a line a stream for RMS."""
    with style():
        figure = Figure(figsize=(11.4, 3.6), layout="constrained")
        axes = figure.subplots(1, 3)
        streams = streams.assign(index=streams["index"] + streams["site"].str.endswith(".exit"))
        single = ~streams["run"].isin(streams.loc[streams["quantity"] == "rms_1", "run"])
        rms = streams[streams["quantity"].str.startswith("rms_")]
        several = streams["run"].nunique() > 1
        for ax, quantity, label in zip(
            axes, ("cosine", "effective_rank", "rms"), ("cosine between streams", "effective rank", "RMS"), strict=True
        ):
            part = rms if quantity == "rms" else streams[(streams["quantity"] == quantity) & ~single]
            ax.set(xlabel="depth l (sites)", ylabel=label, title=f"{label}, mean over tokens")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            if not np.isfinite(part["mean"]).any():
                empty(ax, f"no {label}: one stream, or nothing finite")
            elif quantity == "rms" and not several:
                _rms(ax, part)
            else:
                _by_method(ax, part)
        handles, labels = axes[2 if not several else 0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
    return figure


def say_streams(streams: Frame) -> list[str]:
    """For each method how alike its streams are at the end, and where they differ most."""
    words = []
    for method, part in streams.groupby("method", sort=False):
        cosine = part[(part["quantity"] == "cosine") & np.isfinite(part["mean"])].sort_values(["index", "depth"])
        if cosine.empty or not (part["quantity"] == "rms_1").any():
            words.append(f"{method}: {'no finite state' if cosine.empty else 'one stream'}, nothing to compare.")
            continue
        final = cosine.groupby("run").tail(1)["mean"].mean()
        least = cosine.iloc[cosine["mean"].argmin()]
        rank = part[part["quantity"] == "effective_rank"].sort_values("index")["mean"]
        words.append(
            f"{method}: cosine between streams {number(final, 5)} at the exit, least {number(least['mean'], 5)} at "
            f"{least['site']}; effective rank up to {number(rank.max())}."
        )
    return words


def choose(maps: Frame, quantity: str, scope: str) -> Frame:
    """The rows of one quantity and scope, by depth."""
    return maps[(maps["quantity"] == quantity) & (maps["scope"] == scope)].sort_values("index")


def _spectrum(ax: Axes, part: Frame) -> None:
    for quantity, (colour, marker) in SPECTRUM.items():
        label = NAMES[quantity]
        for span in _spans(part[part["quantity"] == quantity]):
            every = max(1, len(span) // 12)
            mean = span["mean"].clip(lower=FLOOR)
            ax.plot(span["index"], mean, color=colour, marker=marker, label=label, markevery=every)
            label = "_nolegend_"
    logarithmic(ax, part["mean"].clip(lower=FLOOR).to_numpy(), around=1)


def _rms(ax: Axes, part: Frame) -> None:
    for k, (name, own) in enumerate(part.groupby("quantity", sort=True)):
        look: dict[str, Any] = dict(color=COLOURS[(k + 1) % len(COLOURS)], linestyle=LINES[k % 4])
        label = f"stream {str(name).removeprefix('rms_')}"
        for span in _spans(own):
            ax.plot(span["index"], span["mean"], label=label, **look)
            label = "_nolegend_"


def _by_method(ax: Axes, part: Frame) -> None:
    """A line a run and span: the mean over what the part holds at one depth (RMS: over streams)."""
    for method, look in looks(part["method"]).items():
        label = method
        for _, run in part[part["method"] == method].groupby("run"):
            for span in _spans(run):
                line = span.groupby("index")["mean"].mean()
                ax.plot(line.index, line.to_numpy(), label=label, markevery=max(1, len(line) // 12), **look)
                label = "_nolegend_"


def _spans(part: Frame) -> Iterator[Frame]:
    """By depth, what lies between an expand and its reduce: a line ends where the streams do."""
    for _, span in part.groupby(["stack", "call"], sort=False):
        yield span.sort_values("index")


def _once(label: str, first: Any) -> str:
    """`label` for the first span, nothing in the legend for others."""
    return label if first != "_nolegend_" else "_nolegend_"
