"""The fast forms are the plain ones: values and gradients, each alone and one after the other."""

import pytest
import torch

from mhcnb.connections import ops

NORMS = [("rms", 1e-6), ("rms", 0.5), ("l2", 1e-12), ("l2", 3.0)]  # 3 lies between the lengths of rows
BATCHES = [(), (5,), (2, 3)]
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-2}  # of a tensor's largest entry


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def with_gradients(f, inputs, dtype=None):
    """f of the inputs, a tensor or several, and its gradients, in `dtype`."""
    leaves = [x.detach().to(dtype or x.dtype, copy=True).requires_grad_() for x in inputs]
    out = f(*leaves)
    out = out if isinstance(out, tuple) else (out,)
    loss = sum((y * random(*y.shape, seed=9 + i)).sum() for i, y in enumerate(out))
    return *(y.detach() for y in out), *torch.autograd.grad(loss, leaves)


def agree(fast, plain, close):
    for i, (a, b) in enumerate(zip(fast, plain, strict=True)):
        assert a.shape == b.shape
        off, largest = (a.double() - b).abs().max().item(), b.abs().max().item()
        assert off <= close * largest, f"tensor {i}: off by {off} where {largest} is the largest entry"


def branch(u):
    return torch.tanh(u.roll(1, -1) * torch.linspace(0.5, 2, u.shape[-1], dtype=u.dtype))


def site(project, read, write):
    """One site, in the fast or the plain form: all three operations in a row, maps straight from logits."""

    def run(X, weight, gate, bias, n, widths, kind, eps):
        logits, on = project(X, weight, kind, eps, ops.Gating(gate, list(bias.split(widths)), widths, [0, 1, 0]))
        pre, post, res = logits.split(widths, dim=-1)
        u, leave = read(X, on, pre, post, res.unflatten(-1, (n, n)))
        return write(leave, branch(u))

    return run


def plain_project(X, weight, kind, eps, gating):
    raw = ops.norm_project_plain(X.flatten(-2), weight, kind, eps)
    scale = torch.cat([gating.gate[g].expand(w) for w, g in zip(gating.widths, gating.gates, strict=True)])
    return scale * raw + torch.cat(gating.bias), None


def plain_read(X, on, pre, post, res):
    return ops.read_plain(pre, X), (res, X, post)


FAST = site(ops.project, ops.read, ops.write)
PLAIN = site(plain_project, plain_read, lambda left, y: ops.write_plain(*left, y))


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize(("kind", "eps"), NORMS)
def test_a_site(kind, eps, batch, dtype):
    """The one gradient of X that passes from operation to operation is the sum of three."""
    n, d = 3, 7
    widths, weight = [n, n, n * n], random(n * d, n * n + 2 * n, seed=1) / 3
    inputs = [random(*batch, n, d), weight, random(2, seed=2), random(n * n + 2 * n, seed=3)]
    inputs = [inputs[0].to(dtype), *(x.to(torch.promote_types(dtype, torch.float32)) for x in inputs[1:])]
    settings = (n, widths, kind, eps)
    got = with_gradients(lambda *x: FAST(*x, *settings), inputs)
    assert got[0].dtype == got[1].dtype == dtype
    agree(got, with_gradients(lambda *x: PLAIN(*x, *settings), inputs, torch.float64), CLOSE[dtype])


# each alone ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize(("kind", "eps"), NORMS)
def test_project_a_token_or_each_of_its_streams(kind, eps, batch):
    """By the height of the weight; without a gating the products alone."""
    X = random(*batch, 2, 4)
    for weight, rows in ((random(8, 3, seed=1), X.flatten(-2)), (random(4, 3, seed=1), X)):
        got = with_gradients(lambda X, w: ops.project(X, w, kind, eps)[0], (X, weight))
        *value, dx, dW = with_gradients(lambda x, w: ops.norm_project_plain(x, w, kind, eps), (rows, weight))
        agree(got, (*value, dx.view(X.shape), dW), 1e-12)


def test_norm_weight_is_an_offset_from_one():
    x, weight, gamma = random(4, 2, 4), random(8, 3, seed=1), random(8, seed=2)

    def plain(x, w, g):
        x = x.flatten(-2)
        return (x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + g)) @ w

    def fast(x, w, g):
        return ops.project(x, ops.weighted(w, g), "rms", 1e-6)[0]

    agree(with_gradients(fast, (x, weight, gamma)), with_gradients(plain, (x, weight, gamma)), 1e-12)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_read_and_write(batch):
    """The read needs no projection: X may stand for itself. The branch may not depend on the streams."""
    n, d = 3, 4
    maps = random(*batch, n, seed=1), random(*batch, n, seed=2), random(*batch, n, n, seed=3)

    def fast(X, y, pre, post, res):
        u, entered = ops.read(X, X, pre, post, res)
        return u, ops.write(entered, y)

    def loops(X, y, pre, post, res):
        u = sum(pre[..., j, None] * X[..., j, :] for j in range(n))
        mixed = [sum(res[..., i, j, None] * X[..., j, :] for j in range(n)) for i in range(n)]
        return u, torch.stack([mixed[i] + post[..., i, None] * y for i in range(n)], dim=-2)

    inputs = random(*batch, n, d), random(*batch, d, seed=4), *maps
    agree(with_gradients(fast, inputs), with_gradients(loops, inputs), 1e-12)


def test_bfloat16_streams_are_mixed_in_float32():
    """One rounding at the end, not one a product."""
    res, pre, post = random(6, 4, 4).float(), random(6, 4, seed=1).float(), random(6, 4, seed=2).float()
    X, y = random(6, 4, 16, seed=3).bfloat16(), random(6, 16, seed=4).bfloat16()
    u, entered = ops.read(X, X, pre, post, res)
    out = ops.write(entered, y)
    assert u.dtype == out.dtype == torch.bfloat16
    exact = res.double() @ X.double() + post.unsqueeze(-1).double() * y.double().unsqueeze(-2)
    assert ((out.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-5).all()
    exact = (pre.unsqueeze(-1).double() * X.double()).sum(-2)
    assert ((u.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-5).all()


# what they cost and promise ------------------------------------------------------------------------------------------


def test_a_stand_in_has_no_memory_and_backward_keeps_X_once():
    X, weight, kept = random(50, 2, 60).requires_grad_(), random(120, 8, seed=1).requires_grad_(), {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        logits, on = ops.project(X, weight, "rms", 1e-6)
        pre, post, res = logits.split([2, 2, 4], dim=-1)
        u, entered = ops.read(X, on, pre, post, res.unflatten(-1, (2, 2)))
        ops.write(entered, u)
    assert on.untyped_storage().nbytes() == entered.on.untyped_storage().nbytes() == X.element_size()
    coefficients = 8 * 50 * (2 * 8 + 2)  # logits and raw; the norm's factor and slope
    assert sum(kept.values()) <= X.nbytes + u.nbytes + coefficients + 2 * weight.nbytes


def test_operators_keep_their_promises():
    """torch.library's own checks: schema, announced shapes, autograd registration."""
    X, weight, gate, *bias = (x.requires_grad_() for x in (random(5, 8), random(8, 3), random(2), random(1), random(2)))
    Y, pre, res, y = (x.requires_grad_() for x in (random(5, 2, 4), random(5, 1, 2), random(5, 2, 2), random(5, 1, 4)))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for operator, inputs in (
        (ops._project, (X, weight, gate, bias, [1, 2], [1, 0], "l2", 1e-6)),
        (ops._read, (Y.detach(), Y, pre)),
        (ops._write, (res, Y.detach(), Y, pre, y)),
        (ops._project_backward, (random(5, 8), random(5, 3), *(x.detach() for x in (X, weight, gate)), random(5, 3),
                                 random(2, 5, 1), [1, 2], [1, 0])),
        (ops._read_backward, (random(5, 2, 4), random(5, 1, 4), Y.detach(), pre.detach())),
        (ops._write_backward, (random(5, 2, 4), *(x.detach() for x in (res, Y, pre, y)))),
    ):  # fmt: skip
        torch.library.opcheck(operator, inputs, test_utils=checks)


def test_an_empty_batch():
    X, weight = torch.zeros(2, 0, 3, 4, requires_grad=True), torch.ones(12, 15, requires_grad=True)
    logits, on = ops.project(X, weight, "rms", 1e-6)
    assert logits.shape == (2, 0, 15)
    pre, post, res = logits.split([3, 3, 9], dim=-1)
    u, entered = ops.read(X, on, pre, post, res.unflatten(-1, (3, 3)))
    out = ops.write(entered, u)
    assert out.shape == X.shape
    dX, dW = torch.autograd.grad(out.sum(), (X, weight))
    assert dX.shape == X.shape
    assert not dW.any()
