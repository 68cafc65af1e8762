"""What the papers say of each method, checked on the runs at hand: the shape is there, or it is not, in words.

HC: the composite gain grows with depth and with training (mHC, arXiv 2512.24880, section 3.1). mHC: it stays bounded,
while the side that Sinkhorn leaves inexact drifts with depth. mHC-lite (arXiv 2601.05732): both sides stay at 1.
Products of strictly mixing maps approach J/n, so that streams become alike.
"""

import numpy as np

from mhcnb.analysis.gains import Frame

EXACT = 1e-4  # a gain this near to 1 is 1, over any depth in float32
SIDES = ["forward", "backward"]


def claims(products: Frame, timeline: Frame, maps: Frame) -> list[str]:
    """A sentence for each method at hand of which the papers say something. `products`: a row a run with method,
    sites, forward, backward."""
    if products.empty:
        return ["No run has maps: nothing to hold against the papers."]
    words = []
    for method, runs in products.groupby("method", sort=False):
        name = str(method).split(" ")[0]
        if name == "hc":
            words += [_grows_with_depth(str(method), runs), _grows_with_training(str(method), timeline)]
        elif name == "mhc":
            words.append(_bounded(str(method), runs))
        elif name == "mhc_lite":
            words.append(_one(str(method), runs))
        if name in ("mhc", "mhc_lite", "kromhc", "average"):
            words.append(_mixes(str(method), maps))
    return [text for text in words if text]


def _grows_with_depth(method: str, runs: Frame) -> str:
    gain = runs.assign(gain=runs[SIDES].max(axis=1)).groupby("sites")["gain"].mean()
    if len(gain) < 2:
        return f"{method}: its gain is {gain.iloc[0]:.4g}; all runs have one depth, so growth with it is not seen here."
    each = ", ".join(f"{value:.4g} at {sites}" for sites, value in gain.items())
    if gain.iloc[-1] <= 1.5 * gain.iloc[0]:
        return f"{method}: NOT as in the papers: its gain does not grow with depth here ({each} sites)."
    steady = "at every step of depth" if (np.diff(gain) > 0).all() else "though not at every step of depth"
    return f"{method}: as in the papers, its gain grows with depth, {steady} ({each} sites)."


def _grows_with_training(method: str, timeline: Frame) -> str:
    part = timeline[(timeline["method"] == method) & timeline["quantity"].str.startswith("composite_")]
    if part["step"].nunique() < 2:
        return f"{method}: growth over training is not seen here: no run recorded its maps (log.maps_every)."
    top = part.groupby(["run", "step"])["value"].max().reset_index().sort_values("step").groupby("run")["value"]
    first, last = top.first(), top.last()
    grown = int((last > 1.1 * first).sum())
    share = f"in {grown} of {len(last)} runs (median {first.median():.4g} to {last.median():.4g})"
    if grown <= len(last) / 2:
        return f"{method}: NOT as in the papers: its gain grows over training only {share}."
    return f"{method}: as in the papers, its gain grows over training {share}."


def _bounded(method: str, runs: Frame) -> str:
    off = (runs[SIDES] - 1).abs()
    exact, other = SIDES if off["forward"].max() <= off["backward"].max() else SIDES[::-1]
    if off[exact].max() > EXACT:
        return f"{method}: NOT as in the papers: neither side of its product stays at 1 (worst {off[exact].max():.2g})."
    text = f"{method}: as in the papers its product stays bounded: {exact} is 1 to {off[exact].max():.1g}"
    drift = off.groupby(runs["sites"])[other].mean()
    if len(drift) < 2:
        return f"{text}, {other} is off by {drift.iloc[0]:.2g}."
    each = ", ".join(f"{value:.2g} at {sites}" for sites, value in drift.items())
    verb = "drifts with depth" if drift.iloc[-1] > 1.5 * drift.iloc[0] and drift.iloc[-1] > EXACT else "does NOT drift"
    return f"{text}; the inexact side, {other}, {verb}: it is off by {each} sites."


def _one(method: str, runs: Frame) -> str:
    worst = float((runs[SIDES] - 1).abs().max().max())
    if worst > EXACT:
        return f"{method}: NOT as in the papers: its product is off by up to {worst:.2g}."
    return f"{method}: as in the papers, both sides of its product stay at 1 (to {worst:.1g})."


def _mixes(method: str, maps: Frame) -> str:
    """How much of a difference between streams the whole product keeps, by depth."""
    part = maps[(maps["method"] == method) & (maps["quantity"] == "mean_zero_gain") & (maps["scope"] == "prefix")]
    kept = part.sort_values("depth").groupby("run").tail(1).groupby("depth")["mean"].mean()
    if kept.empty or not np.isfinite(kept).all():
        return ""
    each = ", ".join(f"{value:.3g} at {depth}" for depth, value in kept.items())
    if kept.iloc[-1] < 0.5:
        return f"{method}: strictly mixing, its product makes streams alike: it keeps {each} sites of a difference."
    return (
        f"{method}: NOT as in the papers' long runs: its product hardly mixes yet and keeps {each} sites of a "
        "difference between streams; its maps are still near their start, the identity."
    )
