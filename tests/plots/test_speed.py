import pandas
import pytest

from mhcnb.plots import speed

NAMES = ("residual", "mhc", "lib: mhc", "floor: copying as much")
ROWS = [
    dict(case=case, name=name, median_s=ratio, low_s=0.9 * ratio, high_s=1.1 * ratio, ratio=ratio)
    for case in ("step", "connection")
    for name, ratio in zip(NAMES, (1.0, 4.0, 40.0, 0.5), strict=True)
]
COSTS = pandas.DataFrame(
    [
        dict(axis=axis, value=value, method=method, ratio=1 + value / 10, low=1.0, high=2.0)
        for axis in ("n", "depth")
        for value in (2, 8)
        for method in ("hc", "mhc")
    ]
)
MEMORY = pandas.DataFrame(
    [
        dict(method=method, recompute=kind, activations=1e6 * k, update=4e6 * k)
        for method, k in (("residual", 1), ("mhc", 3))
        for kind in ("none", "block")
    ]
)


def test_a_bar_is_as_long_as_the_ratio_and_has_the_look_of_its_method():
    figure = speed.plot_ratios(ROWS)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["step", "connection"]
    for ax in figure.axes:
        bars = {label.get_text(): bar for label, bar in zip(ax.get_yticklabels(), ax.patches, strict=True)}
        assert [bar.get_width() for bar in bars.values()] == [1.0, 4.0, 40.0, 0.5]
        ours, theirs, floor = bars["mhc"], bars["lib: mhc"], bars["floor: copying as much"]
        assert theirs.get_edgecolor() == ours.get_edgecolor() != floor.get_edgecolor()
        assert theirs.get_hatch()
        assert not ours.get_hatch()
        assert ax.get_xscale() == "log"  # 80 times between the shortest and the longest


def test_nothing_timed_is_said():
    for figure in (speed.plot_ratios([]), speed.plot_costs(COSTS[:0])):
        assert [text.get_text() for text in figure.axes[0].texts] == ["nothing was timed"]


def test_costs_have_a_panel_an_axis_and_a_line_a_method():
    figure = speed.plot_costs(COSTS)
    assert [ax.get_xlabel() for ax in figure.axes] == ["streams n", "blocks"]
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines[:2]}
    assert lines == {"hc": [[2, 1.2], [8, 1.8]], "mhc": [[2, 1.2], [8, 1.8]]}
    assert speed.say_costs(COSTS)[0] == "streams n: hc 1.20 at 2, 1.80 at 8; mhc 1.20 at 2, 1.80 at 8 (times residual)."


@pytest.mark.parametrize(("panel", "heights"), [(0, [1, 3]), (1, [4, 12])])
def test_memory_has_a_bar_a_way_in_megabytes(panel, heights):
    ax = speed.plot_memory(MEMORY).axes[panel]
    assert [bar.get_height() for bar in ax.patches] == heights * 2
    assert speed.say_memory(MEMORY)[1] == (
        "mhc, recompute: none 3 MB kept, 12 MB at most (3.00 of residual); "
        "block 3 MB kept, 12 MB at most (3.00 of residual)."
    )
