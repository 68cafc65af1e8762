import time

import pytest

from mhcnb.bench.measure import Timing, held, rate, side_by_side, table, timing


def test_contenders_take_turns_and_the_first_round_is_not_counted():
    calls = []
    timings = side_by_side("case", {name: lambda name=name: calls.append(name) for name in "abc"}, 2)
    assert calls == list("abc") * 3
    assert [t.name for t in timings] == list("abc")


def test_a_ratio_is_the_median_over_rounds_and_not_the_ratio_of_medians():
    found = timing("case", "b", [1.0, 8.0, 30.0], [1.0, 4.0, 10.0])
    assert found.ratio == 2.0
    assert found.median_s == 8.0
    assert timing("case", "b", [3.0], [2.0]) == Timing("case", "b", 3.0, 3.0, 3.0, 1.5)


def test_times_are_those_of_the_contender():
    pause = {"long": 0.03, "short": 0.01}
    long, short = side_by_side("case", {name: lambda s=s: time.sleep(s) for name, s in pause.items()}, 3)
    assert long.median_s >= 0.03
    assert short.median_s >= 0.01
    assert short.ratio < 1


def test_seconds_are_those_of_the_clock_that_is_given():
    """Processor time stands still in a sleep."""
    (asleep,) = side_by_side("case", {"asleep": lambda: time.sleep(0.03)}, 1, time.process_time)
    assert asleep.median_s < 0.02


def row(name, ratio, work=0.0, unit="", case="layer"):
    return Timing(case, name, ratio / 10, ratio / 10, ratio / 10, ratio, work, unit)


ROWS = [
    row("residual", 1.0, 3e9, "B"),
    row("hc", 4.0, 9e9, "B"),
    row("mhc", 5.0, 9e9, "B"),
    row("lib: mhc", 15.0, 9e9, "B"),
    row("lib, compiled: mhc", 7.5, 9e9, "B"),
    row("floor: copying as much", 2.0, 9e9, "B"),
    row("alone", 1.0, case="other"),
]


def test_it_says_how_many_times_as_fast_as_each_peer_and_how_far_from_the_floor():
    assert held(ROWS) == [
        "layer, times as fast as lib: mhc 3.00",
        "layer, times as fast as lib, compiled: mhc 1.50",
        "layer, times the time of copying as much alone: hc 2.00, mhc 2.50",  # residual has less to do
    ]


@pytest.mark.parametrize(
    ("work", "seconds", "said"), [(9e9, 0.5, "18.0 GB/s"), (2e12, 0.01, "200 TB/s"), (5, 1.0, "5.0 B/s")]
)
def test_a_rate_is_the_counted_work_over_the_median(work, seconds, said):
    assert rate(Timing("case", "a", seconds, 0, 0, 1.0, work, "B")) == said


def test_the_table_has_a_column_of_rates_only_where_somebody_counted():
    assert "rate" not in table(ROWS[-1:])
    lines = table(ROWS).splitlines()
    assert lines[0].endswith("rate")
    assert lines[2].endswith("22.5 GB/s")
    assert lines[-1].endswith("1.00")
