"""Sinkhorn–Knopp on the bench: three backward modes against finite differences, and the error of both sides."""

import itertools

import pytest
import torch

from mhcnb.analysis.sinkhorn import errors, gradients, implicit
from mhcnb.connections.birkhoff import sinkhorn_plain

SOFT = torch.tensor([[1, 2, 0, -1], [0, 0.5, 1, 3], [-2, 0, 1, 0], [2, -1, 0.5, 1]], dtype=torch.float64)
RECIPES = [("rows", 0.0, "sums"), ("columns", 0.0, "sums"), ("rows", 1e-6, "softmax"), ("columns", 0.1, "softmax")]


def problem(size, n=4):
    """Six matrices of logits whose largest and smallest differ by `size`, and gradients of the result."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, n * n, dtype=torch.float64, generator=generator)
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    logits = ((x - low) / (high - low) - 0.5).mul(size).view(6, n, n)
    return logits, torch.randn(6, n, n, dtype=torch.float64, generator=generator)


def worst(a, b):
    return float((a - b).abs().max())


@pytest.mark.parametrize(("order", "eps", "first"), RECIPES)
@pytest.mark.parametrize("iterations", [1, 3, 20])
@pytest.mark.parametrize("size", [1.0, 10.0, 30.0])
def test_unrolled_and_recomputed_are_the_derivative(size, iterations, order, eps, first):
    found = gradients(*problem(size), iterations, order, eps, first)
    assert set(found) == {"unrolled", "recomputed", "implicit", "finite"}
    assert worst(found["unrolled"], found["recomputed"]) < 1e-13
    assert worst(found["recomputed"], found["finite"]) < 1e-9
    assert found["finite"].abs().max() > 1e-2


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_finite_differences_are_those_of_the_definition(n):
    logits, G = problem(4.0, n) if n > 1 else (torch.zeros(6, 1, 1), torch.ones(6, 1, 1))
    finite = gradients(logits, G, 3)["finite"]
    for t, i, j in itertools.product(range(6), range(n), range(n)):
        step = torch.zeros(n, n, dtype=torch.float64)
        step[i, j] = 1e-4
        up, down = (sinkhorn_plain(logits[t].double() + s, 3) for s in (step, -step))
        assert float(finite[t, i, j]) == pytest.approx(float(((up - down) * G[t]).sum() / 2e-4), abs=1e-6)


IMPLICIT = {  # (range, rounds): the least and the most that `implicit` is wrong by
    (1, 1): (0.03, 0.3), (1, 3): (1e-5, 1e-3), (1, 20): (0, 1e-9),
    (10, 1): (0.1, 2), (10, 3): (0.03, 1), (10, 20): (1e-3, 0.1), (10, 2000): (0, 1e-8),
    (30, 1): (0.1, 2), (30, 3): (0.03, 1), (30, 20): (1e-3, 0.5),
}  # fmt: skip


@pytest.mark.parametrize(("size", "iterations"), IMPLICIT, ids=str)
def test_implicit_is_right_where_the_rounds_have_converged(size, iterations):
    """A matrix of range 1 has after 20 rounds, one of range 10 after some hundred, one of range 30 has not."""
    least, most = IMPLICIT[size, iterations]
    logits, G = problem(float(size))
    found = gradients(logits, G, iterations)
    assert least <= worst(found["implicit"], found["finite"]) <= most
    converged = float(errors(logits, iterations, dtype=torch.float64).columns[-1].max()) < 1e-12
    assert converged == (most < 1e-7)


def test_implicit_knows_nothing_of_eps():
    """DeepSeek's floor moves the fixed point: converged, and still another gradient."""
    logits, G = problem(10.0)
    found = gradients(logits, G, 2000, "rows", 1e-6, "softmax")
    assert 1e-6 < worst(found["implicit"], found["finite"]) < 1e-3


def test_implicit_solves_the_linear_system():
    """dL/dlogits is orthogonal to every shift of a row or a column, which change no doubly stochastic limit."""
    logits, G = problem(3.0)
    grad = implicit(sinkhorn_plain(logits, 200), G)
    assert grad.sum(-1).abs().max() < 1e-12
    assert grad.sum(-2).abs().max() < 1e-12


def test_known_errors():
    """Column sums of the soft matrix, published for 1, 2, 5 and 20 rounds."""
    found = errors(SOFT, 20, dtype=torch.float64)
    assert found.rows.shape == found.columns.shape == (21,)
    assert float(found.rows[1:].max()) < 1e-15
    known = {1: 1.245351 - 1, 2: 1 - 0.941754, 5: 1 - 0.99744, 20: 0}
    for iterations, error in known.items():
        assert float(found.columns[iterations]) == pytest.approx(error, abs=1e-6)


def test_errors_begin_with_the_exponential():
    found = errors(torch.zeros(2, 3, 3), 0)
    assert found.rows.tolist() == found.columns.tolist() == [[2, 2]]


@pytest.mark.parametrize(("order", "eps", "first"), RECIPES)
def test_errors_are_those_of_the_definition(order, eps, first):
    logits, _ = problem(10.0)
    found = errors(logits, 4, order, eps, torch.float64, first)
    for i in range(5):
        M = sinkhorn_plain(logits, i, order, eps, first)
        torch.testing.assert_close(found.rows[i], (M.sum(2) - 1).abs().amax(1), rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(found.columns[i], (M.sum(1) - 1).abs().amax(1), rtol=1e-10, atol=1e-13)


def test_precision_limits_the_exact_side():
    logits, _ = problem(10.0)
    at = {dtype: float(errors(logits, 20, dtype=dtype).rows[-1].max()) for dtype in (torch.bfloat16, torch.float32)}
    assert 1e-3 < at[torch.bfloat16] < 0.1
    assert 0 < at[torch.float32] < 1e-5
