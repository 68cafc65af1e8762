"""A training as it goes: what its records say so far."""

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mhcnb.analysis.gains import Frame
from mhcnb.plots.curves import plot_losses
from mhcnb.plots.style import empty, logarithmic, style

SIDES: dict[str, dict[str, Any]] = {
    "forward": dict(color="#D55E00", marker="^", linestyle="--"),
    "backward": dict(color="#0072B2", marker="o", linestyle="-", fillstyle="none"),
}


def plot_live(curves: Frame, records: list[dict[str, Any]], entropy: float = math.nan) -> Figure:
    """Loss, gradient norm, tokens/s and largest composite gain by update, of the `results` of one run."""
    with style():
        figure = Figure(figsize=(9.6, 5.0), layout="constrained")
        axes = figure.subplots(2, 2)
        plot_losses(curves, entropy, axes[0, 0])
        train = [record for record in records if record.get("type") == "train"]
        _line(axes[0, 1], train, "grad_norm", "gradient norm")
        _line(axes[1, 0], train, "tokens_per_s", "speed (tokens/s)")
        _gains(axes[1, 1], [record for record in records if record.get("type") == "maps"])
    return figure


def largest(composite: Mapping[str, Mapping[str, float]], side: str) -> float:
    """The largest composite gain of a `maps` record, of one side."""
    return max(composite.get(side, {}).values(), default=math.nan)


def _line(ax: Axes, train: list[dict[str, Any]], key: str, label: str) -> None:
    points = [(r["step"], r[key]) for r in train if r.get(key) is not None]
    if not points:
        return empty(ax, f"no {label} yet")
    ax.plot(*zip(*points, strict=True), color="#0072B2", marker=".")
    ax.set(xlabel="update", ylabel=label, ylim=(0, 1.1 * max(y for _, y in points)))


def _gains(ax: Axes, maps: list[dict[str, Any]]) -> None:
    if not maps:
        return empty(ax, "no gains: log.maps_every is 0,\nor the first record is still to come")
    steps = [record["step"] for record in maps]
    for side, look in SIDES.items():
        ax.plot(steps, [largest(record["composite"], side) for record in maps], label=side, **look)
    logarithmic(ax, [largest(r["composite"], side) for r in maps for side in SIDES])
    ax.axhline(1, color="#777777", linewidth=0.8, zorder=1)
    ax.set(xlabel="update", ylabel="largest composite amax gain")
    ax.legend()
