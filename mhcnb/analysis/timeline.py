"""Gains over training: the `maps` records that a run writes every `log.maps_every` updates."""

from collections.abc import Iterable
from typing import Any

import pandas

from mhcnb.analysis.compare import Member
from mhcnb.analysis.gains import Frame

SIDES = ("forward", "backward")
COLUMNS = ["run", "method", "setting", "seed", "step", "depth", "site", "quantity", "value"]


def timeline(members: Iterable[Member]) -> Frame:
    """run, method, setting, seed, step, depth (from 1, in the order of the record), site, quantity, value. Quantities:
    gain_forward and composite_forward, likewise backward, and whatever else a record has by site."""
    rows = [
        (m.run.name, m.method, m.setting, m.config.seed, record["step"], depth, site, quantity, value)
        for m in members
        for record in m.results
        if record.get("type") == "maps"
        for quantity, by_site in _quantities(record).items()
        for depth, (site, value) in enumerate(by_site.items(), 1)
    ]
    return pandas.DataFrame(rows, columns=COLUMNS).astype({"value": float})


def why_none(member: Member) -> str:
    """Why a run has no timeline, in words; "" where it has one of several steps."""
    steps = {record["step"] for record in member.results if record.get("type") == "maps"}
    if len(steps) > 1:
        return ""
    if steps:
        return f"{member.run.name}: maps of one step only ({steps.pop()}): nothing to follow over training yet"
    return (
        f"{member.run.name} wrote no maps while it trained (log.maps_every is 0 or larger than its steps); "
        "train with log.maps_every=25 to follow its gains"
    )


def _quantities(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """{quantity: {site: value}} of one record; what is not of this form is left out."""
    found: dict[str, dict[str, Any]] = {}
    for side in SIDES:
        found[f"gain_{side}"] = {site: gain[side] for site, gain in _mapping(record, "gains").items() if side in gain}
        found[f"composite_{side}"] = _mapping(_mapping(record, "composite"), side)
    for name in record.keys() - {"gains", "composite"}:
        found[name] = _mapping(record, name)
    return found


def _mapping(record: dict[str, Any], key: str) -> dict[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}
