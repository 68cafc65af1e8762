import json

from mhcnb.bench.measure import Timing

TINY = dict(width=64, layers=1, batch=1, tokens=8, vocabulary=32, rounds=2, device="cpu")
AXES = dict(streams="2 7", widths="64", lengths="8", depths="1 2")


def test_it_times_draws_and_says_what_connections_cost(execute):
    words, printed = execute("08-speed", "notebooks", **TINY, **AXES)
    assert "On one CPU thread" in printed
    ratios, costs, memory = words
    for case in ("step", "connection", "sinkhorn"):
        assert f"{case}, times the time of " in ratios
    assert costs.startswith("streams n: hc ")
    assert "mhc_lite " in costs
    assert "blocks: hc " in costs
    assert "mhc, recompute: none " in memory


def test_it_shows_the_figures_of_a_whole_bench(tmp_path, execute):
    times = {"residual": 2.0, "mhc": 3.0, "lib: mhc": 6.0}
    rows = [Timing("step", name, t, t, t, t / 2)._asdict() for name, t in times.items()]
    (tmp_path / "bench.json").write_text(json.dumps(rows))
    none = dict.fromkeys(AXES, "")
    words, _ = execute("08-speed", ".", **TINY, **none, figures=str(tmp_path / "bench.json"))
    assert "step, times as fast as lib: mhc 2.00" in words[0]
    assert words[1] == "Nothing was timed."
