"""Sinkhorn–Knopp against published numbers, its definition and finite differences; the permutation basis."""

import itertools
import math

import pytest
import torch

from mhcnb.connections.birkhoff import BLOCK, permutation_matrices, sinkhorn, sinkhorn_plain

SOFT = torch.tensor([[1, 2, 0, -1], [0, 0.5, 1, 3], [-2, 0, 1, 0], [2, -1, 0.5, 1]], dtype=torch.float64)
HARD = torch.tensor([[0, 15, 0, -15], [0, 0, 0, 0], [-15, 0, 15, 0], [15, 0, 0, 15]], dtype=torch.float64)
ORDERS = ["rows", "columns"]
FIRST = ["sums", "softmax"]


def logits_of_range(size, n, seed=0):
    """[6, n, n] whose largest and smallest entries differ by `size` in every matrix."""
    x = torch.randn(6, n * n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    return ((x - low) / (high - low) - 0.5).mul(size).view(6, n, n)


# values --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("iterations", "columns"),
    [
        (1, (0.96072, 0.995908, 1.245351, 0.798021)),
        (2, (0.988584, 1.018758, 1.050904, 0.941754)),
        (5, (0.999954, 1.002027, 1.000579, 0.99744)),
        (20, (1, 1, 1, 1)),
    ],
)
def test_known_column_sums(iterations, columns):
    """The last side, rows, is exact; the other comes closer with each round."""
    M = sinkhorn(SOFT, iterations)
    torch.testing.assert_close(M.sum(0), torch.tensor(columns, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(M.sum(1), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-15)


def test_known_matrix():
    expected = [
        [0.241974, 0.650060, 0.088200, 0.019766],
        [0.057319, 0.093398, 0.154380, 0.694902],
        [0.030615, 0.223570, 0.609274, 0.136541],
        [0.670092, 0.032972, 0.148145, 0.148791],
    ]
    torch.testing.assert_close(sinkhorn(SOFT), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def test_known_sums_where_twenty_rounds_are_too_few():
    columns = torch.tensor([0.974154, 1.025846, 1.025846, 0.974154], dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(HARD).sum(0), columns, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("last_row", "columns"),
    [((1, 1, 1), (1.694539, 0.652731, 0.652731)), ((1e-13, 1, 1), (1.819738, 0.590131, 0.590131))],
)
def test_known_sums_near_the_boundary(last_row, columns):
    """The limit does not exist at δ = 0: the first two rows ask for the same column."""
    M = torch.tensor([[1, 1e-13, 1e-13], [1, 1e-13, 1e-13], last_row], dtype=torch.float64)
    expected = torch.tensor(columns, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(M.log()).sum(0), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.1])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("iterations", [0, 1, 5])
def test_equals_the_definition(order, eps, n, iterations, first):
    logits = logits_of_range(8, n) if n > 1 else torch.randn(6, 1, 1, dtype=torch.float64)
    recipe = iterations, order, eps, first
    torch.testing.assert_close(sinkhorn(logits, *recipe), sinkhorn_plain(logits, *recipe), rtol=1e-12, atol=1e-14)


def test_softmax_first_by_hand():
    """exp = [[1, 3], [1, 1]], columns (2, 4), then eps = 1/4 to each entry; rows [3/4, 1], [3/4, 1/2] + eps."""
    logits = torch.tensor([[1.0, 3.0], [1.0, 1.0]]).log()
    expected = torch.tensor([[0.375, 0.5], [0.5, 1 / 3]])
    torch.testing.assert_close(sinkhorn_plain(logits, 1, "rows", 0.25, "softmax"), expected)
    torch.testing.assert_close(sinkhorn(logits, 1, "rows", 0.25, "softmax"), expected)


def test_definition_is_two_divisions_a_round():
    """By hand: exp = [[1, 3], [1, 1]], columns (2, 4), then rows 5/4 and 3/4."""
    logits = torch.tensor([[1.0, 3.0], [1.0, 1.0]]).log()
    expected = torch.tensor([[0.4, 0.6], [2 / 3, 1 / 3]])
    torch.testing.assert_close(sinkhorn_plain(logits, 1, "rows"), expected)
    torch.testing.assert_close(sinkhorn(logits, 1, "rows"), expected)
    rows_first = torch.tensor([[1 / 3, 0.6], [2 / 3, 0.4]])
    torch.testing.assert_close(sinkhorn(logits, 1, "columns"), rows_first)


def test_order_is_transposition():
    logits = logits_of_range(10, 4)
    torch.testing.assert_close(sinkhorn(logits, 3, "columns"), sinkhorn(logits.mT, 3, "rows").mT)


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("eps", [0.0, 1e-6])
@pytest.mark.parametrize("size", [100.0, 1000.0])
def test_finite_where_exp_is_not(order, eps, size, first):
    """float32 logits whose exponential overflows or vanishes, values and gradients."""
    logits = logits_of_range(size, 4).float().requires_grad_()
    M = sinkhorn(logits, 20, order, eps, first)
    (grad,) = torch.autograd.grad(M.square().sum(), logits)
    assert M.isfinite().all()
    assert grad.isfinite().all()
    assert M.min() >= 0
    if not eps:
        assert (M.sum(-1 if order == "rows" else -2) - 1).abs().max() < 1e-5


def test_a_common_shift_changes_nothing():
    torch.testing.assert_close(sinkhorn(SOFT + 500, 7), sinkhorn(SOFT, 7), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
def test_batches(batch):
    out = sinkhorn(SOFT.expand(*batch, 4, 4).clone())
    assert out.shape == (*batch, 4, 4)
    torch.testing.assert_close(out, sinkhorn(SOFT).expand_as(out), rtol=1e-14, atol=1e-15)


# gradients -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.1])
@pytest.mark.parametrize("iterations", [0, 1, 3, 20])
@pytest.mark.parametrize("size", [1.0, 10.0, 30.0, 80.0])
def test_gradient_of_the_definition(size, iterations, eps, order, first):
    logits = logits_of_range(size, 4).requires_grad_()
    weights = torch.randn(logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, plain = (
        torch.autograd.grad((f(logits, iterations, order, eps, first) * weights).sum(), logits)[0]
        for f in (sinkhorn, sinkhorn_plain)
    )
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.1])
@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("size", [1.0, 10.0, 30.0, 80.0])
def test_float32_is_exact_to_the_rounding_of_its_logits(size, n, eps, order, first):
    """Values and gradients, of the largest entry; but a gradient that all but vanishes is a difference of numbers near
    one, and is held to a hundredth of them."""
    logits = logits_of_range(size, n).float()
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    found = {}
    for f, dtype in ((sinkhorn, torch.float32), (sinkhorn_plain, torch.float64)):
        leaf = logits.to(dtype).requires_grad_()
        M = f(leaf, 20, order, eps, first)
        found[dtype] = M.detach(), *torch.autograd.grad((M * weights).sum(), leaf)
    ulp = torch.finfo(torch.float32).eps * max(size, 4)
    for ours, exact in zip(found[torch.float32], found[torch.float64], strict=True):
        assert (ours - exact).abs().max() <= 2 * ulp * exact.abs().max().clamp_min(0.01)


@pytest.mark.parametrize("iterations", [1, 3, 20])
@pytest.mark.parametrize("size", [1.0, 10.0, 30.0])
def test_gradient_by_finite_differences(size, iterations):
    logits = logits_of_range(size, 3)[:2].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sinkhorn(x, iterations, "rows", 1e-6), logits, eps=1e-6, atol=1e-7)


def test_backward_saves_the_logits_alone():
    """20 rounds have 40 intermediate matrices; none of them waits for backward."""
    logits, kept = torch.randn(10, 4, 4, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = sinkhorn(logits)
    assert [t.numel() for t in kept] == [logits.numel()]
    assert torch.equal(kept[0].flatten().sort().values, logits.detach().flatten().sort().values)
    out.sum().backward()


def test_plain_saves_much_more():
    """What the test above would see, were the rounds left to autograd."""
    logits, kept = torch.randn(10, 4, 4, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        sinkhorn_plain(logits)
    assert sum(t.numel() for t in kept) > 40 * logits.numel()


def test_backward_by_blocks_equals_backward_at_once():
    logits = torch.randn(BLOCK + 5, 3, 3, generator=torch.Generator().manual_seed(0))
    grads = []
    for parts in ([logits], logits.split(1000)):
        leaves = [part.clone().requires_grad_() for part in parts]
        for leaf in leaves:
            sinkhorn(leaf, 3).square().sum().backward()
        grads.append(torch.cat([leaf.grad for leaf in leaves]))
    torch.testing.assert_close(*grads)


# permutations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_permutation_matrices(n):
    P = permutation_matrices(n)
    assert P.shape == (math.factorial(n), n, n)
    assert ((P == 0) | (P == 1)).all()
    assert (P.sum(1) == 1).all()
    assert (P.sum(2) == 1).all()
    assert len({tuple(p.flatten().tolist()) for p in P}) == len(P)
    for matrix, p in zip(P, itertools.permutations(range(n)), strict=True):
        assert (matrix @ torch.arange(n, dtype=P.dtype)).tolist() == list(p)
