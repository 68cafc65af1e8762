"""Gains over training, and the papers' sentences held against them."""

from types import SimpleNamespace

import pandas
import pytest

from mhcnb.analysis.claims import claims
from mhcnb.analysis.timeline import timeline, why_none


def member(records, name="r"):
    of = SimpleNamespace(name=name), SimpleNamespace(seed=1)
    return SimpleNamespace(run=of[0], config=of[1], results=records, method="hc", setting="tiny")


def maps_record(step, gain):
    by_site = {"main.0.attn": {"forward": gain, "backward": 1.0}, "main.0.mlp": {"forward": 1.0, "backward": gain}}
    composite = {side: {site: gain**k for k, site in enumerate(by_site)} for side in ("forward", "backward")}
    record = {"type": "maps", "step": step, "time_s": 0.0, "tokens": 8, "gains": by_site, "composite": composite}
    return record | {"lambda2": {"main.0.attn": 0.5, "main.0.mlp": 0.25}}


def test_a_row_for_each_step_site_and_quantity():
    frame = timeline([member([{"type": "train", "step": 1}, maps_record(0, 1.0), maps_record(5, 3.0)])])
    assert len(frame) == 2 * 2 * 5
    part = frame[(frame.step == 5) & (frame.quantity == "gain_backward")]
    assert part[["depth", "site", "value"]].to_numpy().tolist() == [[1, "main.0.attn", 1.0], [2, "main.0.mlp", 3.0]]
    assert set(frame.quantity) == {
        *(f"{kind}_{side}" for kind in ("gain", "composite") for side in ("forward", "backward")), "lambda2",
    }  # fmt: skip


def test_why_there_is_nothing_to_follow():
    assert "wrote no maps" in why_none(member([]))
    assert "one step only (0)" in why_none(member([maps_record(0, 1.0)]))
    assert why_none(member([maps_record(0, 1.0), maps_record(1, 1.0)])) == ""


def test_a_damaged_record_counts_as_far_as_it_goes():
    assert timeline([member([{"type": "maps", "step": 3, "gains": {"a": {}}, "composite": 7}])]).empty


def products(method, gains, backward=None):
    rows = [(method, f"{method}{k}", k, f, (backward or gains)[k]) for k, f in gains.items()]
    return pandas.DataFrame(rows, columns=["method", "run", "sites", "forward", "backward"])


MAPS = pandas.DataFrame(columns=["method", "run", "depth", "scope", "quantity", "mean"])


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (products("hc", {4: 1.0, 8: 3.0, 16: 9.0}), "as in the papers, its gain grows with depth, at every step"),
        (products("hc", {4: 1.0, 8: 9.0, 16: 3.0}), "though not at every step"),
        (products("hc", {4: 2.0, 8: 2.1}), "hc: NOT as in the papers: its gain does not grow"),
        (products("mhc", {4: 1, 48: 1}, {4: 1.001, 48: 1.1}), "inexact side, backward, drifts with depth"),
        (products("mhc", {4: 1.001, 48: 1.1}, {4: 1, 48: 1}), "inexact side, forward, drifts with depth"),
        (products("mhc", {4: 1, 48: 1}, {4: 1.002, 48: 1.001}), "does NOT drift"),
        (products("mhc", {4: 2}, {4: 2}), "mhc: NOT as in the papers: neither side"),
        (products("mhc_lite", {4: 1 + 1e-6}), "both sides of its product stay at 1"),
        (products("mhc_lite", {4: 1.01}), "mhc_lite: NOT as in the papers"),
    ],
)
def test_claims_are_computed_from_the_runs(frame, said):
    assert any(said in text for text in claims(frame, timeline([]), MAPS))


def test_growth_over_training_and_mixing_are_read_off_their_frames():
    grown = timeline([member([maps_record(0, 1.0), maps_record(5, 3.0)])])
    assert any("grows over training in 1 of 1" in text for text in claims(products("hc", {4: 3.0}), grown, MAPS))
    for kept, said in ((0.1, "makes streams alike"), (0.9, "NOT as in the papers' long runs")):
        row = ("mhc_lite", "a", 4, "prefix", "mean_zero_gain", kept)
        maps = pandas.DataFrame([row], columns=MAPS.columns)
        assert any(said in text for text in claims(products("mhc_lite", {4: 1.0}), timeline([]), maps))
    assert claims(pandas.DataFrame(), timeline([]), MAPS) == ["No run has maps: nothing to hold against the papers."]
