import itertools
import math

import numpy as np
import pandas
import pytest

from mhcnb.analysis.seeds import Interval, bands, bootstrap, noise_floor, paired_differences, pairs


def finals(losses, state="done"):
    """{(method, seed): val_loss} as `compare.finals` has it."""
    rows = [(f"{m}{s}", m, "tiny", s, state, loss) for (m, s), loss in losses.items()]
    return pandas.DataFrame(rows, columns=["run", "method", "setting", "seed", "state", "val_loss"])


def test_the_interval_is_that_of_all_resamples():
    values = np.array([0.0, 1.0, 5.0, 2.0])
    means = np.array([np.mean(draw) for draw in itertools.product(values, repeat=4)])
    stretched = 2.0 + (means - 2.0) * math.sqrt(4 / 3)
    exact = np.quantile(stretched, [0.025, 0.975])
    np.testing.assert_allclose(bootstrap(values), exact, atol=0.15)
    assert bootstrap(values) == bootstrap(values[::-1])
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2, resamples=50)


def test_it_moves_and_scales_with_the_values():
    values = np.random.default_rng(0).normal(size=7)
    low, high = bootstrap(values)
    np.testing.assert_allclose(bootstrap(3 * values + 10), (3 * low + 10, 3 * high + 10))


def test_it_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = {k: [not bootstrap(rng.normal(size=k), 2000).excludes(0) for _ in range(1000)] for k in (5, 30)}
    assert 0.84 < np.mean(held[5]) < 0.93  # as the docstring warns
    assert 0.91 < np.mean(held[30]) < 0.97


def test_two_values_or_nan_give_no_interval():
    for values in ([], [1.0], [1.0, 2.0], [1.0, 2.0, math.nan]):
        assert not bootstrap(np.array(values)).known
    assert not Interval(math.nan, math.nan).excludes(0)


def test_pairs_cancel_what_a_seed_brings():
    losses = {(m, s): 5 + s + {"residual": 0, "hc": -0.1}[m] for m in ("residual", "hc") for s in (1, 2, 3)}
    frame = paired_differences(finals(losses | {("hc", 9): 0.0}))  # seed 9 has no partner
    (row,) = frame.itertuples()
    assert (row.method, row.pairs, row.better) == ("hc", 3, 3)
    assert row.difference == pytest.approx(-0.1)
    assert Interval(row.low, row.high).excludes(0)
    assert pairs(finals(losses, state="running")).empty


def test_the_noise_floor_pools_methods_around_their_own_means():
    losses = {("residual", 1): 5.0, ("residual", 2): 5.2, ("hc", 1): 4.0, ("hc", 2): 4.4, ("mhc", 1): 9.0}
    (row,) = noise_floor(finals(losses)).itertuples()
    assert row.deviation == pytest.approx(math.sqrt((0.02 + 0.08) / 2))
    assert row.floor == pytest.approx(1.96 * math.sqrt(2) * row.deviation)
    (alone,) = noise_floor(finals({("hc", 1): 1.0})).itertuples()
    assert math.isnan(alone.floor)


def test_bands_hold_what_is_finite():
    rows = [("hc", "tiny", "val", 1, loss) for loss in (3.0, 5.0, math.nan)]
    (row,) = bands(pandas.DataFrame(rows, columns=["method", "setting", "split", "step", "loss"])).itertuples()
    assert (row.mean, row.low, row.high, row.runs) == (4.0, 3.0, 5.0, 2)
