"""Explorers over recorded runs: one matrix of one run beside one of another, and gains by depth at any step."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mhcnb.analysis.gains import Frame, stack_of
from mhcnb.notebook import recorded
from mhcnb.notebook.controls import Jump, Menu, Slider, State, explore
from mhcnb.notebook.views import Comparison, Laboratory
from mhcnb.plots.gains import PANELS, TITLES, plot_gain
from mhcnb.plots.heatmaps import plot_heatmaps
from mhcnb.plots.style import number

Place = tuple[Path, int]  # a run folder and the step of one of its checkpoints


def matrices(seen: Laboratory | Comparison, first: int = 1, last: int = 1, token: int = 0) -> None:
    """res of one site, or the product of a range of sites, of two runs or two checkpoints side by side.

    The arguments are the state at the start: sites from 1 in call order, of which a product ends with the stack of the
    first; token 0 for the mean over tokens.
    """
    places = _places(seen)
    if not places:
        print("No run with maps to look into.")
        return
    one, other = _start(list(places.values()))
    depth = max(len(_records(place)) for place in (one, other))
    first, last = min(first, depth), min(last, _furthest((one, other), first))
    tokens = _records(one)[0].maps.res[..., 0, 0].numel()
    options = list(places.items())
    controls = [
        Menu("a", "A", one, options),
        Menu("b", "B", other, options),
        Slider("first", "from site", first, 1, depth, help="in call order, from 1"),
        Slider("last", "to site", last, 1, depth, help="the product of all sites from the first to this"),
        Slider("token", "token (0: mean)", min(token, tokens), 0, tokens, help="of the first validation window"),
        Jump("Worst token of A", _worst, "the one whose largest row or column sum is furthest from 1"),
        Jump("Entry to exit", _whole, "the product of all sites of the stack that the first lies in, in one call"),
    ]
    names = {place: name for name, place in places.items()}
    explore(partial(_pair, names), controls, "explore-matrices", seen.figures)


def gains(seen: Comparison) -> None:
    """Amax gain by depth, all methods in one picture, at any update that was recorded while they trained."""
    timeline = seen.timeline
    if timeline.empty:
        print("No run recorded its gains while it trained (log.maps_every): no updates to move through.")
        return
    steps, settings = np.unique(timeline["step"]), list(timeline["setting"].unique())
    gap = int(np.diff(steps).min()) if len(steps) > 1 else 1
    controls = [
        Menu("setting", "setting", settings[0], [(name, name) for name in settings]),
        Slider("step", "update", int(steps[-1]), int(steps[0]), int(steps[-1]), gap, help="the nearest one recorded"),
        Menu("panel", "gain", PANELS[2], [(TITLES[panel], panel) for panel in PANELS]),
    ]
    explore(partial(_gains_at, timeline), controls, "explore-gains", seen.figures)


def _gains_at(timeline: Frame, setting: str, step: int, panel: tuple[str, str]) -> Any:
    scope, side = panel
    quantity = f"{'gain' if scope == 'single' else 'composite'}_{side}"
    part = timeline[(timeline["setting"] == setting) & (timeline["quantity"] == quantity)]
    near = int(part["step"].iloc[(part["step"] - step).abs().argmin()])
    part = part[part["step"] == near]
    frame = part.assign(scope=scope, index=part["depth"], **{side: part["value"]})
    figure = plot_gain(frame, scope, side)
    top = [f"{method} {number(of['value'].max(), 4)}" for method, of in frame.groupby("method", sort=False)]
    return figure, f"Update {near}, {setting}, {TITLES[panel]}: largest gain {'; '.join(top)}."


def _pair(names: dict[Place, str], a: Place, b: Place, first: int, last: int, token: int) -> Any:
    """Two matrices on one colour scale, and their gains in words."""
    found, words = {}, []
    for letter, place in (("A", a), ("B", b)):
        records = _records(place)
        low, high = sorted(min(k, len(records)) for k in (first, last))
        P = recorded.matrix(records, low, high, token)
        found[f"{letter}: {names[place]}"] = P
        sites = records[low - 1].site if low == high else f"{records[low - 1].site} to {records[high - 1].site}"
        rows, columns = (np.abs(P.sum(axis)).max() for axis in (1, 0))
        gain = f"gain forward {number(float(rows), 4)}, backward {number(float(columns), 4)}"
        words.append(f"{letter}, {names[place]}, {sites}: {gain}.")
    of = "mean over tokens" if token == 0 else f"token {token}"
    far = _distance(*found.values())
    low, high = sorted((first, last))
    what = f"res of site {low}" if low == high else f"product of res over sites {low} to {high}"
    return plot_heatmaps(found, f"{what}, {of}"), "\n".join([*words, f"{of.capitalize()}. {far}"])


def _distance(A: np.ndarray, B: np.ndarray) -> str:
    if A.shape != B.shape:
        return f"A has {len(A)} streams and B {len(B)}."
    return f"A and B differ by at most {number(float(np.abs(A - B).max()))} in an entry."


def _worst(a: Place, first: int, last: int, **_: Any) -> State:
    records = _records(a)
    low, high = sorted(min(k, len(records)) for k in (first, last))
    P = recorded.matrices(records, low, high)
    away = np.maximum(np.abs(P.sum(-1) - 1).max(-1), np.abs(P.sum(-2) - 1).max(-1))
    return dict(token=int(away.argmax()) + 1)


def _whole(a: Place, first: int, **_: Any) -> State:
    spans = _spans(a)
    inside = [k for k, span in enumerate(spans, 1) if span == spans[min(first, len(spans)) - 1]]
    return dict(first=inside[0], last=inside[-1])


def _furthest(places: tuple[Place, ...], first: int) -> int:
    """The last site of a product from `first` on that lies in one stack and call in all of the places."""
    ends = {_whole(place, first)["last"] for place in places}
    return max(end for end in ends if all(len(set(_spans(p)[first - 1 : end])) <= 1 for p in places))


def _spans(place: Place) -> list[tuple[str, int]]:
    """The stack and the call of every site, in call order."""
    return [(stack_of(r.site), r.call) for r in _records(place)]


def _places(seen: Laboratory | Comparison) -> dict[str, Place]:
    """{"run, step 300": (folder, 300)} for every checkpoint whose maps can be recorded."""
    if isinstance(seen, Laboratory):  # what was measured has been opened already
        folders = [view.figures.parent for view in seen.views]
    else:
        measured = set(seen.maps["run"]) if len(seen.maps) else set()
        folders = [m.run.path for m in seen.members if m.run.name in measured]
    return {f"{folder.name}, step {step}": (folder, step) for folder in folders for step in recorded.steps(folder)}


def _start(places: list[Place]) -> tuple[Place, Place]:
    """The last checkpoints of the first two runs with several streams; of one run alone, its first and last."""
    last = list({folder: (folder, step) for folder, step in places}.values())
    streams = (place for place in last if _records(place)[0].maps.res.shape[-1] > 1)
    one = next(streams, last[0])
    return one, next(streams, places[0] if len(last) == 1 else last[0])


def _records(place: Place) -> Any:
    return recorded.records(*place)
