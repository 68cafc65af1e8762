"""The Sinkhorn laboratory's pictures: convergence, backward modes, permutation weights, the Birkhoff polytope."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mhcnb.analysis.polytope import Mixture, one_hot, permutations, project
from mhcnb.plots.heatmaps import plot_matrix, scale_of
from mhcnb.plots.style import canvas, empty, number, style

SIDES: dict[str, dict[str, Any]] = {
    "rows": dict(color="#0072B2", marker="o", linestyle="-"),
    "columns": dict(color="#D55E00", marker="^", ls="--"),
}
MODES: dict[str, dict[str, Any]] = {
    "unrolled": dict(color="#0072B2", marker="o", fillstyle="none", markersize=9, linestyle="-"),
    "recomputed": dict(color="#009E73", marker="x", markersize=6, linestyle="--"),
    "implicit": dict(color="#D55E00", marker="^", linestyle="-."),
}
LOWEST = 1e-17  # errors of zero are drawn here, at the foot of a logarithmic axis
CLOSE = 1e-3
MOST = 16  # bars


def plot_bench(logits: np.ndarray, matrix: np.ndarray, errors: Mapping[str, np.ndarray], iterations: int) -> Figure:
    """The input [n, n], the matrix after `iterations` rounds, and the error of either side after 0, 1, .. rounds."""
    with style():
        figure = Figure(figsize=(9.6, 3.0))  # a layout engine would take longer than all the rest, at every touch
        places = dict(left=0.03, right=0.985, top=0.85, bottom=0.16, wspace=0.22)
        axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.25), gridspec_kw=places)
        plot_matrix(logits, axes[0], "logits (input)", scale_of({"": logits}), sums=False)
        plot_matrix(matrix, axes[1], f"after {iterations} rounds", scale_of({"": matrix}))
        plot_convergence(errors, iterations, axes[2])
        axes[2].set_title("error of either side")
    return figure


def plot_convergence(errors: Mapping[str, np.ndarray], iterations: int, ax: Axes | None = None) -> Figure:
    """max |sum - 1| of rows and of columns [rounds + 1] on a logarithmic axis, the chosen round marked."""
    with style():
        figure, ax = canvas(ax)
        rounds = np.arange(len(next(iter(errors.values()))))
        for side, look in SIDES.items():
            shown = np.where(np.isfinite(errors[side]), np.maximum(errors[side], LOWEST), np.nan)
            every = max(1, len(rounds) // 10)
            ax.plot(rounds, shown, label=side, markevery=every, markersize=5, **look)
        ax.axvline(iterations, color="#555555", linewidth=1, linestyle=":", label=f"{iterations} rounds")
        ax.axhline(CLOSE, color="#999999", linewidth=0.8, zorder=1)
        ax.set_yscale("log")
        ax.minorticks_off()
        low = min((e[np.isfinite(e) & (e > 0)].min(initial=1) for e in errors.values()), default=1e-8)
        ax.set(
            xlabel="rounds", ylabel="max |sum - 1|", ylim=(max(low / 5, LOWEST / 2), None), xlim=(-1, rounds[-1] + 1)
        )
        ax.legend(loc="upper right")
    return figure


def say_bench(logits: np.ndarray, errors: Mapping[str, np.ndarray], iterations: int, dtype: str) -> str:
    """How hard the input is, what the chosen rounds leave, and how many would do."""
    both = np.maximum(errors["rows"], errors["columns"])
    near = np.flatnonzero(both < CLOSE)
    enough = f"both are under {CLOSE:g} from round {near[0]} on" if len(near) else "never"
    if not len(near):
        enough = f"they are not both under {CLOSE:g} within {len(both) - 1} rounds"
    return (
        f"n = {len(logits)}, range of the logits (log 1/ν) {number(np.ptp(logits))}. After {iterations} rounds in "
        f"{dtype} row sums differ from 1 by at most {number(errors['rows'][iterations])} and column sums by at most "
        f"{number(errors['columns'][iterations])}; {enough}."
    )


def plot_gradients(errors: Mapping[str, np.ndarray], rounds: list[int], iterations: int) -> Figure:
    """The relative distance of each backward mode to finite differences, by rounds; in grey, what those miss."""
    with style():
        figure, ax = canvas(None, 7.2, 3.8)
        for mode, look in MODES.items():
            ax.plot(rounds, np.maximum(errors[mode], LOWEST), label=mode, **look)
        ax.axhspan(LOWEST, 1e-8, color="#EEEEEE", zorder=0, label="error of finite differences")
        ax.axvline(iterations, color="#555555", linewidth=1, linestyle=":", label=f"{iterations} rounds")
        ax.set_xscale("symlog", linthresh=1)
        ax.set_yscale("log")
        ax.set_xticks(rounds, [str(r) for r in rounds])
        ax.minorticks_off()
        ax.set(xlabel="rounds", ylabel="|gradient - finite| / |finite|", title="three ways of going backward")
        ax.set(xlim=(rounds[0] - 0.15, rounds[-1] * 1.2), ylim=(1e-13, None))
        figure.legend(loc="outside right upper")
    return figure


def say_gradients(errors: Mapping[str, np.ndarray], rounds: list[int], iterations: int) -> str:
    """The error of each mode at the chosen rounds, and whether the implicit one may be used there."""
    at = rounds.index(iterations)
    each = ", ".join(f"{mode} {number(errors[mode][at])}" for mode in MODES)
    worst = errors["implicit"][at]
    fit = "close: the rounds have nearly converged" if worst < 1e-2 else "wrong: it takes the rounds as converged"
    fit = "as good as exact" if worst < 1e-6 else fit
    return f"Relative error of the gradient after {iterations} rounds: {each}. Here the implicit gradient is {fit}."


def plot_permutations(mix: Mixture, title: str) -> Figure:
    """The heaviest permutations of a mixture and what they weigh, beside the whole mixture as a matrix."""
    with style():
        figure = Figure(figsize=(9.2, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
        if not len(mix.weights):
            empty(left, "no permutation fits into this matrix")
            right.set_axis_off()
            return figure
        shown = mix.weights[:MOST]
        own = tuple(range(len(mix.orders[0])))
        bars = left.bar(range(len(shown)), shown, color="#0072B2")
        for bar, order in zip(bars, mix.orders, strict=False):
            bar.set_hatch("//" if order == own else "")
            bar.set_edgecolor("white")
        left.bar_label(bars, [f"{weight:.2f}" for weight in shown], fontsize=7)
        left.set_xticks(range(len(shown)), [_name(order) for order in mix.orders[:MOST]], rotation=60, fontsize=7.5)
        more = f", {len(mix.weights) - MOST} lighter ones not shown" if len(mix.weights) > MOST else ""
        left.set(
            ylabel="weight", title=f"{title}{more}", xlabel="p(0) p(1) ..: source of each stream; hatched: identity"
        )
        left.grid(visible=False, axis="x")
        plot_matrix(mix.matrix(), right, "the mixture")
    return figure


def say_permutations(mix: Mixture) -> str:
    """How many permutations, the heaviest, the identity's weight, and what is left over."""
    if not len(mix.weights):
        return "No permutation fits into this matrix."
    own = tuple(range(len(mix.orders[0])))
    identity = sum(weight for weight, order in zip(mix.weights, mix.orders, strict=True) if order == own)
    heavy = int((np.cumsum(mix.weights) < 0.9 * mix.weights.sum()).sum()) + 1
    return (
        f"{len(mix.weights)} permutations, {heavy} of them carry nine tenths; the heaviest is {_name(mix.orders[0])} "
        f"with {number(mix.weights[0])}, the identity has {number(identity)}; left over: {number(mix.rest)}."
    )


def plot_polytope(path: np.ndarray, ax: Axes | None = None) -> Figure:
    """The rounds [rounds + 1, n, n] on their way into the Birkhoff polytope, n = 2 or 3. The first, exp(logits), lies
    anywhere: it is drawn with a sum of n, as all others have it."""
    with style():
        n = path.shape[-1]
        figure, ax = canvas(ax, 6.4, 1.8 if n == 2 else 5.2)
        corners = project(one_hot(permutations(n)))
        ring = corners[np.argsort(np.arctan2(corners[:, 1], corners[:, 0]))]
        outline = corners if n == 2 else np.vstack([ring, ring[:1]])
        ax.plot(*outline.T, color="#999999", linewidth=1.2)
        ax.plot(*corners.T, "s", color="black", markersize=6)
        for order, (x, y) in zip(permutations(n), corners, strict=True):
            ax.annotate(_name(order), (x, y), (0, 8 if y >= 0 else -15), textcoords="offset points", ha="center")
        ax.plot(*project(np.full((n, n), 1 / n)), "+", color="black", markersize=11, label=f"J/{n}, all alike")
        points = project(path * (n / path.sum((-2, -1), keepdims=True)))
        ax.plot(*points[0], "x", color="#0072B2", markersize=8, label="the input")
        ax.plot(*points.T, "-o", color="#0072B2", markersize=4, linewidth=1, fillstyle="none", label="rounds")
        ax.plot(*points[-1], "D", color="#D55E00", markersize=7, label="the last")
        note = "a segment" if n == 2 else "4 dimensions laid on 2: different matrices may meet in a point"
        ax.set(title=f"The Birkhoff polytope, n = {n}: {note}", aspect="equal" if n == 3 else "auto")
        ax.margins(0.12)
        ax.set_axis_off()
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def say_polytope(path: np.ndarray) -> str:
    """How far the last matrix is from the centre and from the nearest permutation."""
    n, last = path.shape[-1], path[-1]
    corners = one_hot(permutations(n))
    away = np.linalg.norm(corners - last, axis=(1, 2))
    dimensions = "is a segment" if n == 2 else "has 4 dimensions, drawn on 2"
    return (
        f"The polytope of n = {n} {dimensions}. After {len(path) - 1} rounds the matrix is {number(away.min())} from "
        f"the permutation {_name(permutations(n)[int(away.argmin())])}, the nearest, and "
        f"{number(float(np.linalg.norm(last - 1 / n)))} from J/{n} (Frobenius)."
    )


def _name(order: tuple[int, ...]) -> str:
    return "".join(str(k) for k in order)
