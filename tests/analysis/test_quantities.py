"""Every quantity against loops over numpy matrices, one token at a time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mhcnb.analysis import quantities
from mhcnb.analysis.quantities import QUANTITIES, REFERENCES, all_quantities, lambda2, singular_values
from mhcnb.connections.birkhoff import permutation_matrices, sinkhorn

KINDS = ("normal", "whole", "sinkhorn", "permutation", "near_identity", "near_rank_one", "graded")


def matrices(kind, n, seed, tokens=3):
    """Tokens of one kind: `whole` numbers bring ties, zeros, cancelling signs; `near_` ones are almost degenerate."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(tokens, n, n))
    if kind == "whole":
        return rng.integers(-2, 3, (tokens, n, n)).astype(float)
    if kind == "sinkhorn":
        return sinkhorn(torch.from_numpy(8 * noise), 20).numpy()
    if kind == "permutation":
        return np.stack([np.eye(n)[rng.permutation(n)] for _ in range(tokens)])
    if kind == "near_identity":
        return np.eye(n) + 10.0 ** rng.integers(-14, -4) * noise
    if kind == "near_rank_one":
        return np.full((n, n), 1 / n) + 10.0 ** rng.integers(-14, -4) * noise
    return noise * 10.0 ** rng.integers(-6, 7, (tokens, n, 1)) if kind == "graded" else noise


def brute(P):
    """{quantity: (value, tolerance)} of one matrix, by loops; rounding of sums is relative to the sum of sizes."""
    n = len(P)
    rows = [sum(P[i, j] for j in range(n)) for i in range(n)]
    columns = [sum(P[i, j] for i in range(n)) for j in range(n)]
    sizes = [sum(abs(P[i, j]) for j in range(n)) for i in range(n)]
    fine, norm = 1e-13 * (1 + sum(sizes)), np.linalg.norm(P)
    centred = P @ (np.eye(n) - np.ones((n, n)) / n)
    sigma = np.linalg.svd(P, compute_uv=False)
    shares = [abs(P[i, j]) / sizes[i] if sizes[i] else 0 for i in range(n) for j in range(n)]
    eigenvalues, vectors = np.linalg.eig(P)
    # how far rounding moves an eigenvalue: by the condition of the eigenvectors, at worst by the n-th root
    moved = norm * min(1e-14 * np.linalg.cond(vectors), 8 * 1e-15 ** (1 / n))
    return {
        "amax_forward": (max(abs(x) for x in rows), fine),
        "amax_backward": (max(abs(x) for x in columns), fine),
        "amax": (max(abs(x) for x in rows + columns), fine),
        "inf_norm": (max(sizes), fine),
        "row_deviation": (max(abs(x - 1) for x in rows), fine),
        "column_deviation": (max(abs(x - 1) for x in columns), fine),
        "min_column_sum": (min(columns), fine),
        "mean_zero_gain": (np.linalg.norm(centred, 2), fine),
        "sigma_max": (sigma[0], fine),
        "sigma_min": (sigma[-1], fine),
        "lambda2": (sorted(np.abs(eigenvalues))[-2] if n > 1 else 0.0, fine + moved),
        "entropy": (-sum(p * math.log(p) for p in shares if p) / n, 1e-13),
        "identity_distance": (math.sqrt(sum((P[i, j] - (i == j)) ** 2 for i in range(n) for j in range(n))), fine),
        "average_distance": (math.sqrt(sum((P[i, j] - 1 / n) ** 2 for i in range(n) for j in range(n))), fine),
    }


@given(st.sampled_from(KINDS), st.integers(1, 8), st.integers(0, 2**31))
@example("whole", 8, 0)
@example("near_identity", 4, 1)
@settings(max_examples=150)
def test_every_quantity_equals_loops_over_one_matrix_at_a_time(kind, n, seed):
    P = matrices(kind, n, seed)
    together = all_quantities(torch.from_numpy(P))
    assert list(together) == list(QUANTITIES) == list(REFERENCES)
    for token, matrix in enumerate(P):
        for name, (value, tolerance) in brute(matrix).items():
            assert abs(float(together[name][token]) - value) <= tolerance, (name, matrix)
    for name, of in QUANTITIES.items():  # one alone gives what all together give
        torch.testing.assert_close(of(torch.from_numpy(P)), together[name], rtol=0, atol=0)


@given(st.integers(2, 8), st.integers(0, 2**31), st.booleans())
@settings(max_examples=60)
def test_the_spectrum_of_a_matrix_that_was_built_from_it(n, seed, tied):
    rng = np.random.default_rng(seed)
    sigma = np.sort(10.0 ** rng.uniform(-12, 2, n))[::-1]
    if tied:
        sigma[: n // 2 + 1] = sigma[0]
    U, V = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    got = singular_values(torch.from_numpy(U @ np.diag(sigma) @ V.T)).numpy()
    np.testing.assert_allclose(got, sigma, rtol=0, atol=1e-13 * sigma[0])
    signs = np.where(rng.random(n) < 0.5, -1, 1)  # symmetric, so its eigenvalues are as sharp as singular values
    got = lambda2(torch.from_numpy(U @ np.diag(signs * sigma) @ U.T))
    assert float(got) == pytest.approx(sigma[1], abs=1e-13 * sigma[0])


@pytest.mark.parametrize("n", range(2, 7))
def test_permutations_lose_nothing_and_the_average_all(n, float64):
    found = all_quantities(permutation_matrices(n))
    for name in ("amax_forward", "amax_backward", "inf_norm", "mean_zero_gain", "sigma_min", "sigma_max", "lambda2"):
        torch.testing.assert_close(found[name], torch.ones(math.factorial(n)), rtol=0, atol=1e-13)
    assert found["entropy"].abs().max() == 0
    average = all_quantities(torch.full((n, n), 1 / n))
    assert float(average["entropy"]) == pytest.approx(math.log(n), abs=1e-14)
    for name in ("mean_zero_gain", "sigma_min", "lambda2", "average_distance"):
        assert float(average[name]) == pytest.approx(0, abs=1e-14)


def test_a_defective_matrix_is_known_to_a_root_of_the_rounding():
    """The honest limit: a Jordan block of 4 equal eigenvalues, disturbed by 1e-16 in its corner."""
    J = np.eye(4) + np.diag(np.ones(3), 1)
    J[3, 0] = 1e-16
    assert float(lambda2(torch.from_numpy(J))) == pytest.approx(1, abs=3e-4)


def test_signs_cancel_in_sums_and_not_in_norms():
    P = torch.tensor([[1e8, -1e8], [0.5, 0.5]], dtype=torch.float64)
    found = all_quantities(P)
    assert float(found["amax_forward"]) == 1
    assert float(found["inf_norm"]) == 2e8


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_nan_and_leaves_other_tokens_alone(bad):
    P = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    P[1, 0, 2] = bad
    for name in ("sigma_max", "sigma_min", "lambda2", "mean_zero_gain"):
        found = QUANTITIES[name](P)
        assert found.isnan().tolist() == [False, True, False], name
        torch.testing.assert_close(found[[0, 2]], torch.ones(2, dtype=torch.float64))
    one = torch.full((1, 1), bad, dtype=torch.float64)
    assert bool(lambda2(one).isnan())


def test_threads_change_nothing(monkeypatch):
    P = torch.randn(4, 501, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alone = all_quantities(P)
    monkeypatch.setattr(quantities, "BLOCK", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for name, values in all_quantities(P).items():
        assert values.shape == (4, 501)
        assert torch.equal(values, alone[name]), name
