"""Figures of measured maps, of seeds and of training, on frames of exactly the columns that `analysis` gives."""

import math

import matplotlib
import numpy as np
import pandas
import pytest
from matplotlib.figure import Figure

from mhcnb.plots import bydepth, seeds, tradeoffs, training

WHOSE = dict(run="hc-s1", method="hc", setting="tiny", reduction="per_token_then_mean")
PLACE = ["stack", "call", "depth", "index", "site", "scope", "quantity"]


def maps(value=lambda depth, quantity: 1.5**depth, depths=5, **whose):
    """Measurement.maps with p50 < mean < p99 < max, the worst token being number 7."""
    rows = [
        ("main", 0, k, k, f"main.{k}.mlp", scope, quantity, v, 0.5 * v, 4 * v, 0.9 * v, 3 * v, 7)
        for k in range(1, depths + 1)
        for scope in ("single", "prefix", "suffix")
        for quantity in bydepth.NAMES
        for v in [value(k, quantity)]
    ]
    columns = [*PLACE, "mean", "min", "max", "p50", "p99", "worst"]
    return pandas.DataFrame(rows, columns=columns).assign(**(WHOSE | whose))


def streams(n=2, depths=3, cosine=0.9, **whose):
    """Measurement.streams, the last row of which is the state before reduce."""
    names = ["cosine", "effective_rank", *(f"rms_{i}" for i in range(n))]
    sites = [(k, k, f"main.{k}.mlp") for k in range(1, depths + 1)] + [(depths + 1, depths, "main.exit")]
    rows = [
        ("main", 0, *site, q, cosine if q == "cosine" else 2.0 + i, 0.0, 3.0)
        for site in sites
        for i, q in enumerate(names)
    ]
    columns = ["stack", "call", "depth", "index", "site", "quantity", "mean", "min", "max"]
    return pandas.DataFrame(rows, columns=columns).assign(**(WHOSE | whose))


def over_time(steps=(0, 10, 20), sites=3, base=2.0, method="hc"):
    rows = [
        (f"{method}-s1", method, "tiny", 1, step, k, f"main.{k}.mlp", f"composite_{side}", base ** (k * step / 10))
        for step in steps
        for k in range(1, sites + 1)
        for side in ("forward", "backward")
    ]
    columns = ["run", "method", "setting", "seed", "step", "depth", "site", "quantity", "value"]
    return pandas.DataFrame(rows, columns=columns).astype({"value": float})


def finals(losses, speed=1e4):
    rows = [(f"{m}-s{s}", m, "tiny", s, "done", loss, speed, 0.5) for (m, s), loss in losses.items()]
    columns = ["run", "method", "setting", "seed", "state", "val_loss", "tokens_per_s", "peak_memory_gb"]
    return pandas.DataFrame(rows, columns=columns)


LOSSES = {(m, s): 5 + 0.1 * s - shift for m, shift in (("residual", 0), ("hc", 0.2)) for s in (1, 2, 3)}
BANDS = pandas.DataFrame(
    [("tiny", "hc", "val", step, 8.0 - step, 7.5 - step, 9.0 - step, 3) for step in (0, 1)],
    columns=["setting", "method", "split", "step", "mean", "low", "high", "runs"],
)


def products(**columns):
    frame = pandas.DataFrame({"run": list("abcdef"), "method": ["hc", "mhc"] * 3, "sites": [4, 4, 8, 8, 16, 16]})
    frame = frame.assign(setting="tiny", reduction="per_token_then_mean", backward=1.0, val_loss=5.0 + frame.index)
    return frame.assign(forward=[1.0, 1, 4, 1, 16, 1]).assign(**columns)


DRAWN = {
    "quantiles": lambda ax: bydepth.plot_quantiles(maps(), "amax_forward", "prefix", ax),
    "bands": lambda ax: seeds.plot_bands(BANDS, "val", 7.0, ax),
    "paired": lambda ax: seeds.plot_paired(finals(LOSSES), ax),
    "growth": lambda ax: training.plot_growth(over_time(), ax),
    "loss against gain": lambda ax: tradeoffs.plot_loss_gain(products(), ax),
}
WHOLE = {
    "spectrum": lambda: bydepth.plot_spectrum(maps()),
    "streams": lambda: bydepth.plot_streams(streams()),
    "cost": lambda: tradeoffs.plot_cost(finals(LOSSES)),
    "depth": lambda: tradeoffs.plot_depth(products()),
    "layers by step": lambda: training.plot_layer_steps(over_time(), "composite_forward"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_draws_where_it_is_told_and_leaves_matplotlib_as_it_was(name):
    before = dict(matplotlib.rcParams)
    figure = Figure()
    here, other = figure.subplots(1, 2)
    assert DRAWN[name](here) is figure
    assert here.has_data()
    assert not other.has_data()
    assert len(DRAWN[name](None).axes) == 1
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", WHOLE)
def test_whole_figures_leave_matplotlib_as_it_was(name):
    before = dict(matplotlib.rcParams)
    assert isinstance(WHOLE[name](), Figure)
    assert dict(matplotlib.rcParams) == before


def lines(ax):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines}


def test_quantiles_are_those_of_the_frame_and_the_worst_token_is_named():
    drawn = lines(bydepth.plot_quantiles(maps(depths=2), "amax_forward", "prefix").axes[0])
    assert drawn["median token"] == ([1, 2], pytest.approx([0.9 * 1.5, 0.9 * 2.25]))
    assert drawn["worst token"] == ([1, 2], pytest.approx([6.0, 9.0]))
    words = bydepth.say_quantiles(maps(depths=2), "amax_forward", "prefix", "hc")
    assert "largest at main.2.mlp: median token 2.025, 99 of 100 tokens below 6.75, worst token (no. 7) 9." in words


def test_every_figure_of_measured_values_names_the_reduction():
    other = maps(reduction="mean_matrix_then_max")
    for figure in (bydepth.plot_quantiles(other, "amax_forward", "single"), bydepth.plot_spectrum(other)):
        texts = [ax.get_title() for ax in figure.axes] + [figure.get_suptitle()]
        assert any("of the mean matrix" in text for text in texts)
    for figure in (tradeoffs.plot_depth(products()), bydepth.plot_spectrum(maps())):
        assert "each token's" in figure.get_suptitle()


def test_values_that_are_not_finite_are_said_and_do_not_stop_a_figure():
    bad = maps(lambda depth, quantity: math.nan if depth > 2 else 1.5**depth)
    bydepth.plot_quantiles(bad, "amax_forward", "prefix")
    bydepth.plot_spectrum(bad)
    assert "not finite at 3 of 5 sites" in bydepth.say_quantiles(bad, "amax_forward", "prefix", "hc")
    assert "no finite spectrum" in bydepth.say_spectrum(bad, "hc")
    nothing = maps(lambda depth, quantity: math.nan)
    assert "no finite" in bydepth.plot_quantiles(nothing, "amax_forward", "prefix").axes[0].texts[0].get_text()
    bydepth.plot_streams(streams(cosine=math.nan))
    assert "no finite state" in bydepth.say_streams(streams(cosine=math.nan))[0]


def test_the_exit_comes_after_the_last_site_and_one_stream_is_not_compared():
    ax, *_ = bydepth.plot_streams(pandas.concat([streams(), streams(1, run="r", method="residual")])).axes
    assert lines(ax)["hc"] == ([1, 2, 3, 4], [0.9] * 4)
    assert "residual" not in lines(ax)
    twice = pandas.concat([streams(), streams(run="hc-s2")])  # an index that stands twice
    assert "0.9 at the exit, least 0.9 at main.1.mlp" in bydepth.say_streams(twice)[0]
    assert bydepth.say_streams(streams(1))[0] == "hc: one stream, nothing to compare."


def test_a_line_ends_where_the_streams_do():
    """Two calls of one stack, as a recurrent level has them."""
    twice = [streams(), streams().assign(call=1, index=lambda frame: frame["index"] + 3)]
    for frame in (pandas.concat(twice), pandas.concat([*twice, streams(run="r", method="mhc")])):
        figure = bydepth.plot_streams(frame)
        for ax in figure.axes:
            spans = [list(line.get_xdata()) for line in ax.lines[:2]]
            assert spans == [[1, 2, 3, 4], [4, 5, 6, 7]]
        (legend,) = figure.legends
        texts = [text.get_text() for text in legend.get_texts()]
        assert len(texts) == len(set(texts)) == 2
    later = maps().assign(call=1, index=maps()["index"] + 5)
    ax = bydepth.plot_spectrum(pandas.concat([maps(), later])).axes[0]
    assert [list(line.get_xdata()) for line in ax.lines[:2]] == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]


def test_a_layer_map_has_a_row_a_site_from_the_entry_up_and_a_column_a_step():
    ax = training.plot_layer_steps(over_time(), "composite_forward").axes[0]
    shown = ax.images[0].get_array()
    np.testing.assert_allclose(shown, [[1, 2, 4], [1, 4, 16], [1, 8, 64]])
    assert ax.images[0].origin == "lower"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "10", "20"]
    words = training.say_layer_steps(over_time(), "composite_forward", "hc")
    assert "at most 1 at update 0 and 64 at update 20, at main.3.mlp" in words


def test_one_step_or_none_is_said():
    for frame in (over_time(steps=(0,)), over_time(steps=())):
        assert "fewer than two" in training.plot_layer_steps(frame, "composite_forward").axes[0].texts[0].get_text()
        assert "no run recorded" in training.plot_growth(frame).axes[0].texts[0].get_text()
        assert "fewer than two" in training.say_layer_steps(frame, "composite_forward", "hc")


def test_the_livelier_side_is_the_one_that_moves():
    frame = over_time(base=1.0)
    frame.loc[frame.quantity == "composite_backward", "value"] = 0.5
    assert training.livelier(frame) == "composite_backward"


def test_paired_points_stand_at_their_differences_and_the_interval_is_said():
    ax = seeds.plot_paired(finals(LOSSES)).axes[0]
    points = [x for line in ax.lines for x in line.get_xdata() if line.get_marker() not in ("", "None", None)]
    np.testing.assert_allclose(points, [-0.2] * 4)  # three seeds and their mean
    words = seeds.say_paired(finals(LOSSES))
    assert (
        "hc: -0.2000 nats/token to residual over 3 seeds (95% interval -0.2000 to -0.2000; zero lies outside"
        in words[0]
    )
    assert "standard deviation of 0.1000" in words[1]
    assert "too few seeds" in seeds.say_paired(finals({key: LOSSES[key] for key in LOSSES if key[1] == 1}))[0]
    assert "No finished pair" in seeds.say_paired(finals({("hc", 1): 5.0}))[0]


def test_depth_and_gain_in_words():
    assert tradeoffs.say_depth(products())[0].startswith(
        "hc: gain of the whole product (larger side) 1 at 4, 4 at 8, 16 at 16"
    )
    assert "one depth" in tradeoffs.say_depth(products(sites=4))[0]
    up = tradeoffs.say_loss_gain(products(forward=[1.0, 2, 3, 4, 5, 6]))
    assert "rank correlation +1.00 within settings, a larger gain goes with a higher loss" in up
    assert "lower loss" in tradeoffs.say_loss_gain(products(forward=[6.0, 5, 4, 3, 2, 1]))
    assert "nothing to relate" in tradeoffs.say_loss_gain(products(forward=1.0))
    assert "Too few" in tradeoffs.say_loss_gain(products().iloc[:3])


def test_cost_in_words_is_relative_to_residual():
    frame = finals(LOSSES)
    frame.loc[frame.method == "hc", "tokens_per_s"] = 8e3
    assert tradeoffs.say_cost(frame) == [
        "tiny: residual 10,000 tokens/s, 0.5 GB; hc 8,000 tokens/s (0.80 of residual), 0.5 GB."
    ]
