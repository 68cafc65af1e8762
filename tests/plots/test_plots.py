import math

import matplotlib
import numpy as np
import pandas
import pytest
import torch
from matplotlib.figure import Figure

from mhcnb import registry
from mhcnb.analysis.corpus import Corpus
from mhcnb.analysis.gains import gains as measure
from mhcnb.analysis.gains import sums
from mhcnb.analysis.record import Record
from mhcnb.connections.base import Maps
from mhcnb.plots import corpus, curves, gains, heatmaps
from mhcnb.plots.style import looks, number


def records(n=3, depth=4, scale=1.0):
    generator = torch.Generator().manual_seed(n)
    res = [scale * torch.softmax(torch.randn(2, 3, n, n, generator=generator), -1) for _ in range(depth)]
    return [Record(f"main.{k}.mlp", 0, Maps(torch.zeros(0), torch.zeros(0), m)) for k, m in enumerate(res)]


def gain_frame(*methods):
    frames = [measure(records(scale=1 + k)).assign(method=m, run=m, setting="tiny") for k, m in enumerate(methods)]
    return pandas.concat(frames)


def loss_frame(**methods):
    rows = [
        (f"{method}-s1", method, "tiny", 1, split, step, loss + (split == "train"))
        for method, losses in methods.items()
        for split in ("train", "val")
        for step, loss in enumerate(losses)
    ]
    return pandas.DataFrame(rows, columns=["run", "method", "setting", "seed", "split", "step", "loss"])


CORPORA = {"train": Corpus(np.array([5, 0, 3, 2]), np.array([3, 7]), 10), "val": Corpus(np.array([4]), np.array([]), 4)}
SQUARES = {"a": np.array([[0.75, 0.25], [0.5, 0.5]]), "b": np.eye(2)}
DRAWN = {
    "matrix": lambda ax: heatmaps.plot_matrix(SQUARES["a"], ax),
    "gain": lambda ax: gains.plot_gain(gain_frame("hc", "mhc"), "prefix", "forward", ax),
    "sums": lambda ax: gains.plot_sums(sums(records()), ax),
    "losses": lambda ax: curves.plot_losses(loss_frame(hc=[8, 6]), 5.0, ax),
    "differences": lambda ax: curves.plot_differences(loss_frame(hc=[8, 6]).assign(difference=0.1), ax),
    "unigrams": lambda ax: corpus.plot_unigrams(CORPORA, ax),
    "lengths": lambda ax: corpus.plot_lengths(CORPORA, ax),
}
WHOLE = {
    "heatmaps": lambda: heatmaps.plot_heatmaps(SQUARES),
    "gains": lambda: gains.plot_gains(gain_frame("hc", "mhc")),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_draws_where_it_is_told_and_leaves_matplotlib_as_it_was(name):
    before = dict(matplotlib.rcParams)
    figure = Figure()
    here, other = figure.subplots(1, 2)
    assert DRAWN[name](here) is figure
    assert here.has_data() or here.texts
    assert not other.has_data()
    alone = DRAWN[name](None)
    assert isinstance(alone, Figure)
    assert len(alone.axes) == 1
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", WHOLE)
def test_whole_figures_leave_matplotlib_as_it_was(name):
    before = dict(matplotlib.rcParams)
    assert isinstance(WHOLE[name](), Figure)
    assert dict(matplotlib.rcParams) == before


def test_a_method_looks_the_same_whoever_else_is_there():
    every = looks(registry.entries("connections"))
    for method, look in every.items():
        assert looks([method, "residual"])[method] == look
    for trait in ("color", "marker"):
        assert len({look[trait] for look in every.values()}) == len(every)


def test_variants_of_a_method_share_its_colour_and_differ_in_line():
    a, b = looks(["mhc order=rows", "mhc order=columns"]).values()
    assert (
        (a["color"], a["marker"])
        == (b["color"], b["marker"])
        == tuple(looks(["mhc"])["mhc"][k] for k in ("color", "marker"))
    )
    assert a["linestyle"] != b["linestyle"]


def texts(ax):
    return {(t.get_position()): t.get_text() for t in ax.texts}


def test_cells_hold_their_numbers_and_margins_the_sums():
    ax = heatmaps.plot_matrix(SQUARES["a"]).axes[0]
    assert texts(ax) == {
        (0, 0): "0.75", (1, 0): "0.25", (0, 1): "0.50", (1, 1): "0.50",  # x is the source j, y the destination i
        (2, 0): "1.00", (2, 1): "1.00", (0, 2): "1.25", (1, 2): "0.75",
    }  # fmt: skip


def test_small_multiples_share_one_colour_scale_and_large_ones_have_no_numbers():
    figure = heatmaps.plot_heatmaps({"a": np.eye(9), "b": 3 * np.eye(9), "c": np.full((9, 9), np.nan)})
    panels = [ax for ax in figure.axes if ax.images]
    assert len({ax.images[0].get_clim() for ax in panels}) == 1
    assert panels[0].images[0].get_clim() == (0, 3)
    assert not any(ax.texts for ax in panels)
    signed = heatmaps.plot_heatmaps({"a": np.array([[1.0, -2], [0, 1]])})
    assert signed.axes[0].images[0].get_clim() == (-2, 2)  # white is zero


def test_numbers_in_cells_can_be_read_on_their_colour():
    matrix = np.linspace(0, 1, 16).reshape(4, 4)
    ax = heatmaps.plot_matrix(matrix).axes[0]
    image = ax.images[0]
    for (x, y), text in ((t.get_position(), t) for t in ax.texts):
        if x < 4 and y < 4:
            below = np.array(image.cmap(image.norm(matrix[int(y), int(x)])))[:3]
            ink = np.array(matplotlib.colors.to_rgb(text.get_color()))
            assert contrast(below, ink) > 3.5


def contrast(a, b):
    """WCAG contrast ratio of two colours."""
    lights = []
    for colour in (a, b):
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        lights.append(linear @ [0.2126, 0.7152, 0.0722] + 0.05)
    return max(lights) / min(lights)


def test_one_stream_is_said_instead_of_drawn():
    assert "one stream" in heatmaps.plot_heatmaps({"a": np.ones((1, 1))}).axes[0].texts[0].get_text()
    assert "one stream" in heatmaps.say_heatmaps({"a": np.ones((1, 1))}, "residual")
    assert "no matrices" in heatmaps.plot_heatmaps({}).axes[0].texts[0].get_text()


def test_gain_lines_are_the_frame_on_a_logarithmic_axis_with_a_line_at_one():
    frame = gain_frame("residual", "hc")
    ax = gains.plot_gain(frame, "suffix", "backward").axes[0]
    lines = {line.get_label(): line for line in ax.lines}
    for method in ("residual", "hc"):
        part = frame[(frame["method"] == method) & (frame["scope"] == "suffix")].sort_values("index")
        np.testing.assert_array_equal(lines[method].get_xdata(), [1, 2, 3, 4])
        np.testing.assert_array_equal(lines[method].get_ydata(), part["backward"])
    assert ax.get_yscale() == "log"
    assert any(set(line.get_ydata()) == {1} for line in ax.lines)


def test_rounding_errors_do_not_look_like_growth():
    frame = gain_frame("mhc")
    frame["forward"] = 1 + 1e-7 * np.arange(len(frame))
    low, high = gains.plot_gain(frame, "single", "forward").axes[0].get_ylim()
    assert low < 0.96
    assert high > 1.04


def test_a_line_breaks_where_a_span_ends():
    frame = gain_frame("hc").query("scope == 'prefix'")
    frame = pandas.concat([frame, frame.assign(call=1, index=frame["index"] + 4)])
    ax = gains.plot_gain(frame, "prefix", "forward").axes[0]
    assert [len(line.get_xdata()) for line in ax.lines] == [4, 4, 2]  # two spans, and the line at one


def test_damaged_maps_are_drawn_as_far_as_they_go():
    bad = records()
    bad[1].maps.res[0, 0] = math.nan
    frame = measure(bad).assign(method="hc", run="hc", setting="tiny")
    gains.plot_gains(frame)
    gains.plot_sums(sums(bad))
    assert "?" in gains.say_gains(frame.assign(forward=math.nan, backward=math.nan))[0]


def test_words_name_the_largest_gain_and_its_place():
    res = torch.eye(2).repeat(1, 1, 1, 1)
    maps = [Maps(torch.zeros(0), torch.zeros(0), scale * res) for scale in (1, 3, 0.5)]
    frame = measure([Record(f"main.{k}.mlp", 0, m) for k, m in enumerate(maps)]).assign(method="hc")
    (words,) = gains.say_gains(frame)
    assert "composite gain forward up to 3 at main.1.mlp" in words
    assert "single maps forward 0.5 to 3" in words


def test_sums_that_are_exactly_one_are_said():
    one = [Record("main.0.mlp", 0, Maps(torch.zeros(0), torch.zeros(0), torch.ones(1, 1, 1, 1)))]
    assert "exactly 1" in gains.plot_sums(sums(one)).axes[0].texts[0].get_text()


def test_loss_curves_draw_both_splits_and_the_entropy():
    frame = loss_frame(residual=[8.0, 6.0, 5.0], hc=[8.0, 5.0, math.nan])
    ax = curves.plot_losses(frame, 6.3).axes[0]
    drawn = [list(line.get_ydata()) for line in ax.lines]
    assert [8, 6, 5] in drawn
    assert [9, 7, 6] in drawn
    assert any(set(y) == {6.3} for y in drawn)


def test_without_losses_figures_say_so():
    assert "no losses" in curves.plot_losses(loss_frame(hc=[math.nan])).axes[0].texts[0].get_text()
    nothing = loss_frame().assign(difference=[])
    assert "no residual" in curves.plot_differences(nothing).axes[0].texts[0].get_text()
    assert "No residual" in curves.say_differences(nothing)[0]


def test_corpus_in_words():
    assert corpus.say_lengths(CORPORA)[0].startswith("train: 2 documents of 3 to 7 tokens, median 5")
    assert "no whole document" in corpus.say_lengths(CORPORA)[1]
    assert "10 tokens counted, 3 ids occur, the largest is 3" in corpus.say_unigrams(CORPORA)[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0000001, "1"), (1.024, "1.02"), (0, "0"), (2.14e-7, "2.1e-07"), (45300, "45,300"), (math.nan, "?")],
)
def test_numbers_read_well(value, text):
    assert number(value) == text
