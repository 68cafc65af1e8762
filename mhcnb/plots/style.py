"""How figures look: a context, never a global setting, and a fixed colour, marker and line for each method."""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mhcnb import registry

# Okabe and Ito's colours, told apart with any colour vision, in an order that leaves the familiar methods far apart
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
# (shape, size, filled): curves of several methods often lie on one another, so large ones are hollow
MARKERS = (
    ("s", 8, False),
    ("^", 6, True),
    ("o", 6, False),
    ("D", 3, True),
    ("v", 7, False),
    ("P", 5, True),
    ("X", 6, False),
)
LINES = ("-", "--", "-.", ":")
FAMILIAR = ("residual", "hc", "mhc", "mhc_lite")

RC: dict[Any, Any] = {
    "figure.dpi": 100,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,  # fonts embedded as text
    "svg.fonttype": "none",
}


def style() -> AbstractContextManager:
    """The look of every figure, for as long as the context lasts."""
    return matplotlib.rc_context(RC)


def looks(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """{label: colour, marker and line, as plot() takes them}, fixed for a method, the first word of a label. Further
    labels of one method (`mhc order=rows`, `mhc order=columns`) share its colour and marker, not its line. In the
    order in which they are drawn and listed."""
    others = sorted(set(registry.entries("connections")) - set(FAMILIAR))
    place = {name: k for k, name in enumerate((*FAMILIAR, *others))}
    result: dict[str, dict[str, Any]] = {}
    seen: dict[str, int] = {}
    for label in sorted(set(labels), key=lambda label: (place.get(label.split(" ")[0], len(place)), label)):
        method = label.split(" ")[0]
        k, variant = place.setdefault(method, len(place)), seen.get(method, 0)
        seen[method] = variant + 1
        shape, size, filled = MARKERS[k % len(MARKERS)]
        result[label] = dict(
            color=COLOURS[k % len(COLOURS)],
            marker=shape,
            markersize=size,
            fillstyle="full" if filled else "none",
            linestyle=LINES[(k + variant) % len(LINES)],
        )
    return result


def canvas(ax: Axes | None, width: float = 6.4, height: float = 3.8) -> tuple[Figure, Axes]:
    """The figure of `ax`, or a new one of that size in inches."""
    if ax is not None:
        return ax.get_figure(root=True), ax  # type: ignore[return-value]
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def empty(ax: Axes, words: str) -> None:
    """Says in the axes why there is nothing to see."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, words, ha="center", va="center", transform=ax.transAxes, color="#555555", wrap=True)


def logarithmic(ax: Axes, values: Any, around: float | None = 1.0) -> None:
    """A logarithmic axis over the positive finite values. With `around` it never shows less than 0.95 to 1.05 of it:
    rounding errors must not look like growth."""
    values = np.ravel(np.asarray(values, dtype=float))
    values = values[np.isfinite(values) & (values > 0)]
    ax.set_yscale("log")
    low, high = (values.min(), values.max()) if values.size else (around or 1.0,) * 2
    if around is not None:
        low, high = min(low, 0.95 * around), max(high, 1.05 * around)
    room = max((high / low) ** 0.07, 1.02)
    ax.set_ylim(low / room, high * room)
    plain_ticks(ax)


def plain_ticks(ax: Axes) -> None:
    """1.05 rather than 1.05 x 10^0, as many as fit."""
    low, high = ax.get_ylim()
    wide = LogLocator(10) if high / low > 100 else LogLocator(10, subs=(1, 1.5, 2, 3, 5, 7))
    ax.yaxis.set_major_locator(MaxNLocator(6) if high / low < 2 else wide)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def reduction_of(frame: Any) -> str:
    """How tokens were reduced, for a title; from the column `reduction` of measured frames."""
    names = {"per_token_then_mean": "each token's, then over tokens", "mean_matrix_then_max": "of the mean matrix"}
    found = frame["reduction"].unique() if "reduction" in frame else []
    return "reduction: " + ", ".join(names.get(name, str(name)) for name in found) if len(found) else ""


def number(value: float, digits: int = 3) -> str:
    """A figure as one reads it: 1.02, 0.0131, 2.1e-07, 45,300; `?` where it is not known."""
    if value is None or not math.isfinite(value):
        return "?" if value is None or math.isnan(value) else "infinite"
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.{digits - 1}e}"
    if abs(value) < 1e-3:
        return f"{value:.{digits - 2}e}"
    return f"{value:.{digits}g}"
