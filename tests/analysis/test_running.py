import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mhcnb.analysis.running import Running

finite = st.floats(-1e15, 1e15, allow_subnormal=False)
around_one = st.floats(1e-12, 1).map(lambda x: 1 + x) | st.floats(0, 1)


@given(
    st.lists(st.lists(finite | around_one, min_size=2, max_size=2), min_size=1, max_size=60),
    st.lists(st.integers(1, 20), min_size=1, max_size=60),
    st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=100)
def test_statistics_equal_those_of_all_values_at_once(rows, cuts, reference):
    values = np.array(rows).T
    running, at = Running(torch.tensor([reference] * 2)), 0
    for size in [*cuts, len(rows)]:
        part = torch.from_numpy(values[:, at : at + size].copy())
        if part.shape[1]:
            running.add(part)
        at += size
    size = np.abs(values).max()
    np.testing.assert_allclose(running.column("mean"), values.mean(1), rtol=1e-12, atol=1e-13 * size)
    assert running.column("min").tolist() == values.min(1).tolist()
    assert running.column("max").tolist() == values.max(1).tolist()
    away = np.abs(values - reference)
    assert running.column("worst").tolist() == away.argmax(1).tolist()  # the first of equals
    for share in (0.5, 0.99):
        true = np.quantile(values, share, axis=1, method="inverted_cdf")
        got = running.column(f"p{round(100 * share)}").numpy()
        assert (np.abs(got - true) <= 0.01 * np.abs(true - reference) + 1e-12).all()


def test_its_memory_is_fixed():
    running = Running(torch.zeros(3))
    sizes = []
    for _ in range(3):
        running.add(torch.randn(3, 1000, dtype=torch.float64))
        sizes.append(sum(t.numel() * t.element_size() for t in vars(running).values() if isinstance(t, torch.Tensor)))
    assert sizes[0] == sizes[1] == sizes[2]


def test_nan_shows_and_names_its_token():
    running = Running(torch.zeros(2))
    running.add(torch.tensor([[1.0, 2.0], [1.0, torch.nan]], dtype=torch.float64))
    running.add(torch.tensor([[9.0], [9.0]], dtype=torch.float64))
    for name in ("mean", "min", "max", "p50", "p99"):
        assert running.column(name).isnan().tolist() == [False, True], name
    assert running.column("worst").tolist() == [2, 1]


def test_infinite_values_are_the_worst_and_not_a_quantile_of_others():
    running = Running(torch.ones(1))
    running.add(torch.tensor([[1.0, 2.0, torch.inf]], dtype=torch.float64))
    assert running.column("worst").tolist() == [2]
    assert running.column("max").tolist() == [torch.inf]
    assert float(running.column("p50")) == pytest.approx(2, abs=0.01)
