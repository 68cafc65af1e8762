import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mhcnb.analysis.streams import state


@given(st.integers(1, 8), st.integers(1, 9), st.integers(0, 2**31), st.sampled_from([1.0, 1e-4, 0.0]))
@settings(max_examples=60)
def test_state_equals_loops_over_streams(n, d, seed, spread):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(2, 3, 1, d)) + spread * rng.normal(size=(2, 3, n, d))
    found = state(torch.from_numpy(X))
    assert list(found) == ["cosine", "effective_rank", *(f"rms_{i}" for i in range(n))]
    for token, x in enumerate(X.reshape(6, n, d)):
        size = [math.sqrt(sum(v * v for v in row)) for row in x]
        cosines = [float(x[i] @ x[j]) / (size[i] * size[j]) for i in range(n) for j in range(i)]
        assert float(found["cosine"][token]) == pytest.approx(np.mean(cosines) if cosines else 1.0, abs=1e-12)
        sigma = np.linalg.svd(x, compute_uv=False)
        p = [s for s in sigma / sigma.sum() if s > 1e-15]
        rank = math.exp(-sum(v * math.log(v) for v in p))
        assert float(found["effective_rank"][token]) == pytest.approx(rank, abs=1e-5)
        for i in range(n):
            assert float(found[f"rms_{i}"][token]) == pytest.approx(size[i] / math.sqrt(d))


def test_equal_streams_are_one_direction_and_orthogonal_ones_n():
    equal = state(torch.ones(1, 4, 8))
    assert (float(equal["cosine"]), float(equal["effective_rank"])) == pytest.approx((1, 1))
    apart = state(torch.eye(4, 8).unsqueeze(0))
    assert (float(apart["cosine"]), float(apart["effective_rank"])) == pytest.approx((0, 4))


def test_zeros_and_nan_do_not_stop_it():
    X = torch.zeros(3, 2, 4)
    X[1] = 1.0
    X[2, 0, 0] = math.nan
    found = state(X)
    assert found["cosine"][:2].tolist() == [0, pytest.approx(1)]
    assert bool(found["effective_rank"][2].isnan())
    assert float(found["effective_rank"][1]) == pytest.approx(1)
