"""The dialect deepseek_v4 against that model's own orientation: comb logits transposed, projections one matrix with
rows pre, post, comb."""

import pytest
import torch
from pydantic import ValidationError

from mhcnb import registry
from mhcnb.connections.birkhoff import sinkhorn
from mhcnb.connections.config import DIALECTS
from mhcnb.connections.ends import Ends

SOFT = torch.tensor([[1, 2, 0, -1], [0, 0.5, 1, 3], [-2, 0, 1, 0], [2, -1, 0.5, 1]], dtype=torch.float64)
HARD = torch.tensor([[0, 15, 0, -15], [0, 0, 0, 0], [-15, 0, 15, 0], [15, 0, 0, 15]], dtype=torch.float64)
N, D, EPS = 4, 6, 1e-6


def make(name="mhc", **fields):
    cls = registry.load("connections", name)
    return cls(cls.Config(name=name, dialect="deepseek_v4", streams=N, **fields), N, D).double()


def comb_matrix(logits):
    """Their recipe: softmax over the last index, + eps, columns, then 19 times rows and columns."""
    comb = torch.softmax(logits, -1) + EPS
    comb = comb / (comb.sum(-2, keepdim=True) + EPS)
    for _ in range(19):
        comb = comb / (comb.sum(-1, keepdim=True) + EPS)
        comb = comb / (comb.sum(-2, keepdim=True) + EPS)
    return comb


def theirs(fn, base, scale, X, branch, early=""):
    """One site on X [t, n, d]; `early` names what the first port of the model to transformers did wrong."""
    x = X.flatten(-2)
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    pre, post, comb = (x @ fn.T).split([N, N, N * N], -1)
    pre_base, post_base, comb_base = base.split([N, N, N * N])
    pre = torch.sigmoid(scale[0] * pre + pre_base) + EPS
    post = torch.sigmoid(scale[1] * post + post_base) * (1 if early == "post without 2" else 2)
    logits = (scale[2] * comb + comb_base).unflatten(-1, (N, N))
    comb = torch.sigmoid(logits) if early == "sigmoid" else comb_matrix(logits)
    res = comb if early == "no transpose" else comb.mT
    return res @ X + post.unsqueeze(-1) * branch((pre.unsqueeze(-1) * X).sum(-2)).unsqueeze(-2)


def site():
    """Their parameters, and a connection with the same: our res logits are by destination, theirs by source."""
    generator = torch.Generator().manual_seed(3)
    fn, base = (torch.randn(*shape, generator=generator).double() for shape in [((2 + N) * N, N * D), ((2 + N) * N,)])
    scale = torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64)
    connection, comb = make(), slice(2 * N, None)
    with torch.no_grad():
        connection.weight.copy_(fn.T)
        connection.weight[:, comb] = by_destination(fn)
        connection.gate.copy_(scale)
        for name, part in zip(("pre", "post"), base.split([N, N, N * N])[:2], strict=True):
            connection.bias[name].copy_(part)
        connection.bias["res"].copy_(base[comb].view(N, N).T.flatten())
    return (fn, base, scale), connection


def by_destination(fn):
    """[n·d, n²]: column i·n + j is their row of comb[j, i]."""
    return torch.stack([fn[2 * N + j * N + i] for i in range(N) for j in range(N)], dim=1)


def test_a_site_computes_what_theirs_does():
    parameters, connection = site()
    X = torch.randn(7, N, D, generator=torch.Generator().manual_seed(4)).double()
    expected = theirs(*parameters, X, torch.tanh)
    torch.testing.assert_close(connection(X, torch.tanh), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("early", ["sigmoid", "post without 2", "no transpose"])
def test_each_fault_of_the_early_port_would_be_seen(early):
    parameters, connection = site()
    X = torch.randn(7, N, D, generator=torch.Generator().manual_seed(4)).double()
    assert (connection(X, torch.tanh) - theirs(*parameters, X, torch.tanh, early)).abs().max() > 0.1


def test_known_matrix_is_that_of_the_paper():
    """Where 20 rounds suffice, both recipes reach the one doubly stochastic limit."""
    V4 = DIALECTS["deepseek_v4"]
    ours = sinkhorn(SOFT.T, 20, V4["order"], V4["eps"], V4["first"])
    torch.testing.assert_close(ours.T, sinkhorn(SOFT), rtol=0, atol=3e-6)
    assert (ours.T - sinkhorn(SOFT)).abs().max() > 1e-9


def test_known_sums_where_twenty_rounds_are_too_few():
    """Row sums of comb, which are the column sums of res, and those that end on one."""
    V4 = DIALECTS["deepseek_v4"]
    res = sinkhorn(HARD.T, 20, V4["order"], V4["eps"], V4["first"])
    known = torch.tensor([0.97483, 1.023831, 0.97483, 1.026505], dtype=torch.float64)
    torch.testing.assert_close(res.sum(0), known, rtol=0, atol=1e-6)
    assert 1e-9 < (res.sum(1) - 1).abs().max() < 2e-6
    torch.testing.assert_close(res, comb_matrix(HARD).T, rtol=1e-12, atol=1e-12)


def test_the_floor_bounds_the_inexact_side():
    """Logits of deviation 24: without it some sums are off by half, with it by less than a tenth."""
    logits = 24 * torch.randn(4000, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    off = {
        first: float((sinkhorn(logits, 20, "rows", eps, first).sum(-2) - 1).abs().max())
        for first, eps in (("sums", 0.0), ("softmax", 1e-6))
    }
    assert off["sums"] > 0.5
    assert off["softmax"] < 0.1


def test_sides_are_no_longer_called_exact():
    assert make().exact == ()
    assert make("mhc_lite").exact == ("rows", "columns")


# the learned exit ----------------------------------------------------------------------------------------------------


def head(name="mhc", **fields):
    return Ends(make(name, **fields).config, D).double()


def test_head_is_a_learned_weighted_sum_and_then_the_norm():
    ends, norm = head(), lambda x: x.square()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in ends.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    X = torch.randn(3, 5, N, D, generator=generator).double()
    x = X.flatten(-2)
    normed = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    w = torch.sigmoid(ends.gate * (normed @ ends.weight) + ends.bias) + EPS
    expected = norm(sum(w[..., i, None] * X[..., i, :] for i in range(N)))
    torch.testing.assert_close(ends.reduce(X, norm), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["hc", "mhc", "mhc_lite", "kromhc", "identity", "average"])
def test_head_begins_as_the_mean_and_has_n_d_n_plus_n_plus_one_parameters(name):
    ends, X = head(name), torch.randn(9, N, D).double()
    torch.testing.assert_close(ends.reduce(X, torch.tanh), torch.tanh(X.mean(-2)), rtol=1e-6, atol=1e-6)
    assert sum(p.numel() for p in ends.parameters()) == N * D * N + N + 1


def test_head_is_not_cast():
    ends, X = head().float(), torch.randn(9, N, D)
    with torch.no_grad():
        ends.weight.normal_(generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        cast = ends.reduce(X, lambda x: x)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, ends.reduce(X, lambda x: x))


def test_exact_residual_is_refused():
    with pytest.raises(ValidationError, match="needs reduce: mean, got head"):
        make(init="exact_residual")
    make(init="exact_residual", reduce="mean")
