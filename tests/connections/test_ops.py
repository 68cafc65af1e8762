"""The fast forms are the plain ones: values and gradients."""

import pytest
import torch

from mhcnb.connections import ops


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def with_gradients(f, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = f(*leaves)
    return out.detach(), *torch.autograd.grad((out * random(*out.shape, seed=9)).sum(), leaves)


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)], ids=str)
@pytest.mark.parametrize(("kind", "eps"), [("rms", 1e-6), ("rms", 0.5), ("l2", 1e-12), ("l2", 3.0)])
def test_norm_project(kind, eps, batch):
    """eps 3 lies between the lengths of the rows, so that both sides of the max are met."""
    x, weight = random(*batch, 8), random(8, 3, seed=1)
    fast = with_gradients(lambda x, w: ops.norm_project(x, w, None, kind, eps), x, weight)
    plain = with_gradients(lambda x, w: ops.norm_project_plain(x, w, kind, eps), x, weight)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_norm_weight_is_an_offset_from_one():
    x, weight, gamma = random(4, 8), random(8, 3, seed=1), random(8, seed=2)
    got = with_gradients(lambda x, w, g: ops.norm_project(x, w, g, "rms", 1e-6), x, weight, gamma)

    def plain(x, w, g):
        return (x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + g)) @ w

    for a, b in zip(got, with_gradients(plain, x, weight, gamma), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)], ids=str)
def test_read_and_write(batch):
    n, d = 3, 4
    res, X, post, y = (
        random(*batch, n, n),
        random(*batch, n, d, seed=1),
        random(*batch, n, seed=2),
        random(*batch, d, seed=3),
    )
    for a, b in zip(
        with_gradients(ops.write, res, X, post, y), with_gradients(ops.write_plain, res, X, post, y), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)

    def loops(pre, X):
        return sum(pre[..., j, None] * X[..., j, :] for j in range(n))

    for a, b in zip(with_gradients(ops.read, post, X), with_gradients(loops, post, X), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_bfloat16_streams_are_mixed_in_float32():
    """One rounding at the end, not one a product."""
    res, X, post, y = (
        random(6, 4, 4),
        random(6, 4, 16, seed=1).bfloat16(),
        random(6, 4, seed=2),
        random(6, 16, seed=3).bfloat16(),
    )
    exact = res @ X.double() + post.unsqueeze(-1) * y.double().unsqueeze(-2)
    out = ops.write(res.float(), X, post.float(), y)
    assert out.dtype == torch.bfloat16
    assert ((out.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-5).all()
    u = ops.read(post.float(), X)
    assert u.dtype == torch.bfloat16
    exact = (post.unsqueeze(-1) * X.double()).sum(-2)
    assert ((u.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-5).all()


def test_an_empty_batch():
    X = torch.zeros(0, 3, 4)
    assert ops.norm_project(X, torch.ones(4, 5), None, "rms", 1e-6).shape == (0, 3, 5)
    assert ops.write(torch.zeros(0, 3, 3), X, torch.zeros(0, 3), torch.zeros(0, 4)).shape == X.shape
