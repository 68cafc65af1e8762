"""How figures look: a context, never a global setting, and a fixed colour, marker and line for each method."""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
