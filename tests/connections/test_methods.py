"""Initial values, the sides of res, refusals and ends of the four methods."""

import math

import pytest
import torch
from pydantic import ValidationError

from mhcnb import registry
from mhcnb.connections.ends import Ends


def make(name, n=4, d=6, index=0, **fields):
    cls = registry.load("connections", name)
    return cls(cls.Config(name=name, streams=n, **fields), n, d, index)


def start(name, index=0, **fields):
    """The maps of one token at the start."""
    connection = make(name, index=index, **fields)
    return [m.detach() for m in connection.maps(torch.randn(4, 6))]


def matrix(diagonal, other, n=4):
    return torch.full((n, n), other) + (diagonal - other) * torch.eye(n)


# initial values ------------------------------------------------------------------------------------------------------

OWN, OTHER = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))  # σ(±1) = .731, .269


@pytest.mark.parametrize("index", [0, 2, 5])
@pytest.mark.parametrize(("name", "res"), [("mhc", (0.99900, 3.35e-4)), ("mhc_lite", (0.9940, 0.0020))])
def test_start_of_the_mhc_lite_dialect(name, res, index):
    pre, post, got = start(name, index, dialect="mhc_lite")
    expected = torch.full((4,), OTHER)
    expected[index % 4] = OWN
    torch.testing.assert_close(pre, expected)
    torch.testing.assert_close(post, 2 * expected)
    torch.testing.assert_close(got, matrix(*res), rtol=0, atol=5e-5)


@pytest.mark.parametrize("index", [0, 2, 5])
def test_start_of_hc_is_the_papers(index):
    """Site k reads stream k mod n, writes to all, mixes nothing."""
    pre, post, res = start("hc", index, dialect="mhc_lite")
    assert pre.tolist() == [float(i == index % 4) for i in range(4)]
    assert post.tolist() == [1.0] * 4
    assert torch.equal(res, torch.eye(4))


@pytest.mark.parametrize(("name", "res"), [("hc", (1, 0)), ("mhc", (0.999, 3.35e-4)), ("mhc_lite", (0.994, 0.002))])
def test_start_of_the_paper_dialect(name, res):
    pre, post, got = start(name, index=6)
    torch.testing.assert_close(pre, torch.tensor([0.1, 0.1, 0.7, 0.1]))
    torch.testing.assert_close(post, torch.ones(4))
    torch.testing.assert_close(got, matrix(*res), rtol=0, atol=5e-5)


def test_identity_share_of_mhc_lite():
    """softmax of one 0 among 23 times -8."""
    res = start("mhc_lite", dialect="mhc_lite")[2]
    total = 1 + 23 * math.exp(-8)
    assert res[0, 0].item() == pytest.approx((1 + 5 * math.exp(-8)) / total, rel=1e-6)  # 5 others fix stream 0


def test_gates_start_at_a_hundredth_and_projections_at_zero():
    for name, gates in {"hc": 2, "mhc": 3, "mhc_lite": 3}.items():
        connection = make(name)
        torch.testing.assert_close(connection.gate.detach(), torch.full((gates,), 0.01))
        assert not connection.weight.any()


# sides of res --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["rows", "columns"])
def test_mhc_is_exact_on_one_side_only(order):
    """Logits of range 30 whose other side is known to be off by 0.0258 after 20 rounds."""
    connection = make("mhc", order=order)
    hard = torch.tensor([[0, 15, 0, -15], [0, 0, 0, 0], [-15, 0, 15, 0], [15, 0, 0, 15.0]])
    with torch.no_grad():
        connection.bias["res"].copy_((hard if order == "rows" else hard.T).flatten())
    res = connection.maps(torch.randn(4, 6)).res.detach()
    sums = {"rows": res.sum(-1), "columns": res.sum(-2)}
    exact = sums.pop(order)
    (other,) = sums.values()
    assert (exact - 1).abs().max() < 1e-6
    assert (other - 1).abs().max() == pytest.approx(0.025846, abs=1e-5)


def test_dialects_choose_the_exact_side():
    assert make("mhc").exact == ("rows",)
    assert make("mhc", dialect="mhc_lite").exact == ("columns",)


def test_hc_declares_nothing_and_is_free():
    connection = make("hc")
    assert connection.exact == ()
    with torch.no_grad():
        connection.bias["res"].neg_()
    assert torch.equal(connection.maps(torch.zeros(4, 6)).res, -torch.eye(4))


def test_shared_and_own_gates_of_hc():
    """s_α scales pre and res, s_β post: HC eq. 10-13."""
    connection = make("hc").double()
    X = torch.randn(4, 6, dtype=torch.float64)
    with torch.no_grad():
        connection.weight.normal_(generator=torch.Generator().manual_seed(0))
    before = connection.maps(X)
    with torch.no_grad():
        connection.gate[0] *= 2
    after = connection.maps(X)
    torch.testing.assert_close(after.pre - connection.bias["pre"], 2 * (before.pre - connection.bias["pre"]))
    torch.testing.assert_close(after.res - torch.eye(4), 2 * (before.res - torch.eye(4)))
    assert torch.equal(after.post, before.post)


def test_norm_makes_maps_blind_to_scale():
    for name in ("hc", "mhc", "mhc_lite"):
        connection = make(name, norm_eps=1e-30).double()
        with torch.no_grad():
            connection.weight.normal_(generator=torch.Generator().manual_seed(0))
        X = torch.randn(5, 4, 6, dtype=torch.float64)
        for a, b in zip(connection.maps(X), connection.maps(1000 * X), strict=True):
            torch.testing.assert_close(a, b)


def test_a_zero_state_is_no_division_by_zero():
    for dialect in ("paper", "mhc_lite"):
        for name in ("hc", "mhc", "mhc_lite"):
            X = torch.zeros(2, 4, 6, requires_grad=True)
            make(name, dialect=dialect)(X, lambda u: u + 1).sum().backward()
            assert X.grad.isfinite().all()


# refusals ------------------------------------------------------------------------------------------------------------


def test_mhc_lite_of_seven_streams_is_refused_with_the_count():
    with pytest.raises(ValidationError, match="5040 permutations at n = 7"):
        make("mhc_lite", 7)
    assert make("mhc_lite", 6, 1).res_width == 720


@pytest.mark.parametrize("name", ["hc", "mhc", "mhc_lite"])
@pytest.mark.parametrize("n", [1, 0, -1])
def test_fewer_than_two_streams_are_refused(name, n):
    with pytest.raises(ValidationError, match="at least 2 streams; 1 is the connection residual" if n == 1 else "1"):
        make(name, n)


@pytest.mark.parametrize("reduce", ["sum", "norm_sum"])
def test_exact_residual_needs_the_mean(reduce):
    with pytest.raises(ValidationError, match=f"needs reduce: mean, got {reduce}"):
        make("mhc", reduce=reduce)
    make("mhc", reduce=reduce, init="method")


# entry and exit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hc", "mhc", "mhc_lite"])
def test_expand_repeats(name):
    x = torch.randn(2, 3, 6)
    X = Ends(make(name).config, 6).expand(x)
    assert X.shape == (2, 3, 4, 6)
    assert all(torch.equal(X[..., i, :], x) for i in range(4))


def test_reduce_rules():
    """norm(mean), norm(sum), sum of norm(each), with a norm that is none of them by accident."""
    X, norm = torch.randn(2, 4, 6), lambda x: x.square()
    rules = {
        reduce: Ends(make("hc", reduce=reduce, init="method").config, 6).reduce(X, norm)
        for reduce in ("mean", "sum", "norm_sum")
    }
    torch.testing.assert_close(rules["mean"], (X.sum(1) / 4) ** 2)
    torch.testing.assert_close(rules["sum"], X.sum(1) ** 2)
    torch.testing.assert_close(rules["norm_sum"], (X**2).sum(1))
