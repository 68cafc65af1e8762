"""What every connection promises. Runs over the registry, so a new method is tested before anyone asks."""

import pytest
import torch
from torch.func import functional_call

from mhcnb import registry
from mhcnb.connections.base import Maps
from mhcnb.connections.config import DIALECTS

WIDTHS = [(2, 3), (3, 4), (4, 2)]


def streams(connection, *batch, dtype=torch.float64, seed=0):
    shape = (*batch, connection.n, connection.d)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def branch(u):
    """Not linear, not symmetric between channels."""
    return torch.tanh(u.roll(1, -1) * torch.linspace(0.5, 2, u.shape[-1], dtype=u.dtype))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("size", WIDTHS, ids=str)
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)], ids=str)
def test_shapes(connection_name, make, dialect, size, batch):
    init = DIALECTS[dialect]["init"]
    connection = make(connection_name, *size, dialect=dialect, init=init).double()
    n, X = connection.n, streams(connection, *batch)
    maps = connection.maps(X)
    assert (maps.pre.shape, maps.post.shape, maps.res.shape) == ((*batch, n), (*batch, n), (*batch, n, n))
    assert connection(X, branch).shape == X.shape


@pytest.mark.parametrize("dialect", DIALECTS)
def test_forward_is_the_equation(connection_name, make, perturb, dialect):
    """X'_i = sum_j res[i, j] X_j + post[i] f(sum_j pre[j] X_j), written with loops."""
    connection = perturb(make(connection_name, dialect=dialect).double())
    X = streams(connection, 3)
    maps, out = connection.maps(X), connection(X, branch)
    for t in range(3):
        y = branch(sum(maps.pre[t, j] * X[t, j] for j in range(connection.n)))
        for i in range(connection.n):
            mixed = sum(maps.res[t, i, j] * X[t, j] for j in range(connection.n))
            torch.testing.assert_close(out[t, i], mixed + maps.post[t, i] * y, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_gradients(connection_name, make, perturb, dialect):
    """With respect to the streams and to every parameter, against finite differences in float64."""
    connection = perturb(make(connection_name, 3, 2, dialect=dialect).double())
    names = [name for name, _ in connection.named_parameters()]

    def run(X, *parameters):
        return functional_call(connection, dict(zip(names, parameters, strict=True)), (X, branch))

    inputs = [streams(connection, 2), *(p.detach() for p in connection.parameters())]
    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in inputs])


def test_every_parameter_has_an_effect(connection_name, make, perturb):
    connection = perturb(make(connection_name, dialect="mhc_lite").double())
    X = streams(connection, 4)
    loss = connection(X, branch).mul(streams(connection, 4, seed=1)).sum()
    if parameters := dict(connection.named_parameters()):
        for name, grad in zip(parameters, torch.autograd.grad(loss, parameters.values()), strict=True):
            assert grad.abs().max() > 1e-6, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_coefficients_are_at_least_float32_and_streams_keep_their_type(connection_name, make, perturb, dtype):
    connection = perturb(make(connection_name).to(dtype if dtype == torch.float64 else torch.float32))
    X = streams(connection, 2, 3, dtype=dtype)
    at_least = torch.promote_types(dtype, torch.float32)
    assert {m.dtype for m in connection.maps(X)} == {at_least}
    assert connection(X, branch).dtype == dtype


def test_bfloat16_parameters_lose_no_more_than_their_rounding(connection_name, make, perturb):
    """Parameters in bfloat16 are rounded, the arithmetic on them is not."""
    connection = perturb(make(connection_name)).bfloat16()
    X = streams(connection, 4, dtype=torch.bfloat16)
    exact = connection.maps(X.double())
    for got, want in zip(connection.maps(X), exact, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


def test_autocast_reaches_the_branch_alone(connection_name, make, perturb):
    """Coefficients and the products with the streams stay float32: else the state is rounded at every site."""
    connection, seen = perturb(make(connection_name, 3, 16)), []

    def watched(u):
        seen.append(torch.is_autocast_enabled("cpu"))
        return branch(u)

    X = streams(connection, 8, dtype=torch.float32)
    maps, out = connection.maps(X), connection(X, branch)
    with torch.autocast("cpu", torch.bfloat16):
        cast_maps, cast_out = connection.maps(X), connection(X, watched)
    assert seen == [True]
    assert all(torch.equal(a, b) for a, b in zip(cast_maps, maps, strict=True))
    assert torch.equal(cast_out, out)


def test_initial_values_depend_on_the_generator_alone(connection_name, make):
    before = torch.get_rng_state()
    first = make(connection_name).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    again = make(connection_name).state_dict()
    torch.set_rng_state(before)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_sides_declared_exact_sum_to_one(connection_name, make, perturb, dialect, dtype):
    connection = perturb(make(connection_name, 4, 8, dialect=dialect).to(dtype), scale=2.0)
    res = connection.maps(streams(connection, 200, dtype=dtype)).res
    assert set(connection.exact) <= {"rows", "columns"}
    if connection.exact:
        assert res.min() >= 0
    for side in connection.exact:
        sums = res.sum(-1 if side == "rows" else -2)
        assert (sums - 1).abs().max() < 10 * torch.finfo(dtype).eps


@pytest.mark.parametrize("index", range(5))
def test_exact_residual_start(connection_name, make, index, float64):
    """While streams are equal: pre sums to 1, post is 1, rows of res sum to 1, so X' = X + f(X); and pre is uneven."""
    connection = make(connection_name, 4, 6, index)
    X = torch.randn(7, 1, 6).expand(7, connection.n, 6)
    torch.testing.assert_close(connection(X, branch), X + branch(X), rtol=1e-14, atol=1e-14)
    if connection.n > 1:
        pre = connection.maps(X).pre[0].detach()
        assert pre.argmax() == index % connection.n
        assert pre.max() == pytest.approx(0.7)


def test_the_probe_gives_the_maps_that_are_used(connection_name, make, perturb):
    connection, seen = perturb(make(connection_name)), []
    X = streams(connection, 3, dtype=torch.float32)
    connection.probe = seen.append
    connection(X, branch)
    assert len(seen) == 1
    assert all(torch.equal(a, b) for a, b in zip(seen[0], connection.maps(X), strict=True))


def test_what_the_probe_gives_back_is_used(connection_name, make, perturb):
    """Other maps in, the equation with these out."""
    connection = perturb(make(connection_name).double())
    X, other = streams(connection, 3), Maps(*(torch.randn_like(m) for m in connection.maps(streams(connection, 3))))
    connection.probe = lambda maps: other
    y = branch((other.pre.unsqueeze(-1) * X).sum(-2))
    expected = other.res @ X + other.post.unsqueeze(-1) * y.unsqueeze(-2)
    torch.testing.assert_close(connection(X, branch), expected, rtol=1e-12, atol=1e-12)


def test_context_goes_to_the_branch(connection_name, make):
    connection, seen = make(connection_name), {}
    connection(streams(connection, 2, dtype=torch.float32), lambda u, **c: seen.update(c) or u, mask="m", positions=3)
    assert seen == {"mask": "m", "positions": 3}


def test_the_fields_of_a_dialect_are_written_out(connection_name):
    cls = registry.load("connections", connection_name).Config
    for dialect, preset in DIALECTS.items() if "dialect" in cls.model_fields else ():
        written = cls(name=connection_name, dialect=dialect).model_dump()
        expected = {field: value for field, value in preset.items() if field in cls.model_fields}
        assert expected.items() <= written.items()
