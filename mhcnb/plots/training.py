"""Maps while a run trains: one quantity by layer and step, and how composites grow."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from mhcnb.analysis.gains import Frame
from mhcnb.plots.style import canvas, empty, logarithmic, looks, number, style

NAMES = {
    "gain_forward": "amax gain forward of single maps",
    "gain_backward": "amax gain backward of single maps",
    "composite_forward": "amax gain forward, composite from entry to depth l",
    "composite_backward": "amax gain backward, composite from depth l to exit",
}


def plot_layer_steps(timeline: Frame, quantity: str, ax: Axes | None = None) -> Figure:
    """One quantity of one run: a row a site, entry at the bottom, a column a recorded step."""
    with style():
        part = timeline[(timeline["quantity"] == quantity) & np.isfinite(timeline["value"])]
        sites = part.sort_values("depth")["site"].unique()
        figure, ax = canvas(ax, 7.2, 1.8 + 0.16 * min(max(len(sites), 6), 20))
        if part["step"].nunique() < 2:
            empty(ax, "fewer than two recorded steps: nothing to follow over training")
            return figure
        table = part.pivot_table(index="depth", columns="step", values="value")
        image = ax.imshow(table, aspect="auto", origin="lower", cmap="cividis", norm=_scale(table.to_numpy()))
        ax.grid(visible=False)
        every, rows = max(1, len(table.columns) // 10), max(1, len(sites) // 16)
        ax.set_xticks(range(0, len(table.columns), every), [str(s) for s in table.columns[::every]])
        ax.set_yticks(range(0, len(sites), rows), list(sites[::rows]), fontsize=7)
        bar = figure.colorbar(image, ax=ax, pad=0.01)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.set_label("ratio (per token, then mean)", fontsize=8)
        ax.set(xlabel="update", ylabel="site", title=NAMES.get(quantity, quantity))
    return figure


def livelier(timeline: Frame) -> str:
    """The side of the composite that moves further from 1."""
    sides = ("composite_forward", "composite_backward")
    return max(sides, key=lambda side: (timeline.loc[timeline["quantity"] == side, "value"] - 1).abs().max())


def say_layer_steps(timeline: Frame, quantity: str, name: str) -> str:
    """Where and when the quantity is largest, against the first record."""
    part = timeline[(timeline["quantity"] == quantity) & np.isfinite(timeline["value"])]
    if part["step"].nunique() < 2:
        return f"{name}: fewer than two recorded steps, nothing to follow over training."
    first, top = part[part["step"] == part["step"].min()], part.iloc[part["value"].argmax()]
    return (
        f"{name}: {NAMES.get(quantity, quantity)} is at most {number(first['value'].max(), 5)} at update "
        f"{part['step'].min()} and {number(top['value'], 5)} at update {top['step']}, at {top['site']}."
    )


def plot_growth(timeline: Frame, ax: Axes | None = None) -> Figure:
    """The largest composite gain of either side by update, a line a run, on a logarithmic axis."""
    with style():
        figure, ax = canvas(ax)
        top = growth(timeline)
        if top["step"].nunique() < 2:
            empty(ax, "no run recorded its maps at two steps or more (log.maps_every)")
            return figure
        for method, look in looks(top["method"]).items():
            label = method
            for _, run in top[top["method"] == method].groupby("run"):
                ax.plot(run["step"], run["value"], label=label, markevery=max(1, len(run) // 12), **look)
                label = "_nolegend_"
        logarithmic(ax, top["value"])
        ax.axhline(1, color="#777777", linewidth=0.8, zorder=1)
        settings = "; ".join(top["setting"].unique())
        ax.set(xlabel="update", ylabel="largest composite amax gain (ratio)")
        ax.set_title(f"{settings}\nreduction: each token's, then over tokens")
        ax.legend()
    return figure


def say_growth(timeline: Frame) -> list[str]:
    """For each method the largest composite gain at the first and the last record."""
    words = []
    for method, part in growth(timeline).groupby("method", sort=False):
        each = part.sort_values("step").groupby("run").value.agg(["first", "last"])
        words.append(
            f"{method}: largest composite gain {_span(each['first'])} at update {part['step'].min()}, "
            f"{_span(each['last'])} at update {part['step'].max()}."
        )
    return words or ["No run recorded its maps while it trained (log.maps_every)."]


def growth(timeline: Frame) -> Frame:
    """run, method, setting, seed, step, value: the largest composite gain over depths and sides."""
    part = timeline[timeline["quantity"].isin(["composite_forward", "composite_backward"])]
    keys = ["run", "method", "setting", "seed", "step"]
    return part.groupby(keys, sort=False)["value"].max().reset_index()


def _scale(values: np.ndarray) -> Normalize:
    """Logarithmic where values span more than a factor of three, else from 0.95 to 1.05 or more."""
    low, high = np.nanmin(values), np.nanmax(values)
    if low > 0 and high / low > 3:
        return LogNorm(low, high)
    return Normalize(min(low, 0.95), max(high, 1.05))


def _span(values) -> str:
    low, high = number(values.min(), 4), number(values.max(), 4)
    return low if low == high else f"{low} to {high}"
