"""The controls are corners of the methods: what they share with them, and what they refuse."""

import pytest
import torch
from pydantic import ValidationError

from mhcnb import registry
from mhcnb.connections.kromhc import kron


def make(name, n=4, d=6, index=1, **fields):
    cls = registry.load("connections", name)
    return cls(cls.Config(name=name, streams=n, **fields), n, d, index).double()


def moved(connection, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in connection.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    return connection


def test_kromhc_of_two_streams_is_mhc_lite():
    """Two permutations, two logits: the same parameters give the same maps."""
    one, other = moved(make("kromhc", 2)), make("mhc_lite", 2)
    other.load_state_dict(one.state_dict())
    X = torch.randn(5, 2, 6, dtype=torch.float64)
    for a, b in zip(one.maps(X), other.maps(X), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


def test_kromhc_matrices_commute_and_are_symmetric():
    """So a product of them shows no order, and no cyclic permutation of three or more streams is among them."""
    connection = moved(make("kromhc", 8))
    with torch.no_grad():
        connection.gate.fill_(1)
        connection.bias["res"].zero_()
    res = connection.maps(torch.randn(2, 8, 6, dtype=torch.float64)).res
    torch.testing.assert_close(res[0] @ res[1], res[1] @ res[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(res, res.mT, rtol=1e-12, atol=1e-12)
    assert (res[0] - res[1]).abs().max() > 0.05


def test_kron():
    A, B = torch.randn(3, 2, 4), torch.randn(3, 5, 3)
    for t in range(3):
        torch.testing.assert_close(kron(A, B)[t], torch.kron(A[t].contiguous(), B[t].contiguous()))


def test_published_start_of_kromhc():
    """n = 4: stay .99933, each neighbour 3.35e-4, both bits 1e-7."""
    res = make("kromhc").maps(torch.zeros(4, 6, dtype=torch.float64)).res[0].tolist()
    assert res == pytest.approx([0.99933, 3.35e-4, 3.35e-4, 1.12e-7], rel=1e-2)
    assert res[0] == pytest.approx(0.99933, abs=5e-6)


@pytest.mark.parametrize(("n", "near"), [(3, "2 and 4"), (6, "4 and 8"), (12, "8 and 16")])
def test_kromhc_refuses_what_is_no_power_of_two(n, near):
    with pytest.raises(ValidationError, match=f"a power of two, got {n}; nearest: {near}"):
        make("kromhc", n)


def test_controls_are_mhc_with_its_matrix_replaced():
    """Same pre and post parameters, same token: only res differs."""
    mhc, X = moved(make("mhc")), torch.randn(5, 4, 6, dtype=torch.float64)
    maps = mhc.maps(X)
    for name, res in {"identity": torch.eye(4), "average": torch.full((4, 4), 0.25)}.items():
        control = make(name)
        with torch.no_grad():
            control.weight.copy_(mhc.weight[:, :8])
            control.gate.copy_(mhc.gate[:2])
            for part in ("pre", "post"):
                control.bias[part].copy_(mhc.bias[part])
        found = control.maps(X)
        torch.testing.assert_close(found.pre, maps.pre, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(found.post, maps.post, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(found.res, res.double().expand(5, 4, 4))


@pytest.mark.parametrize("name", ["identity", "average", "kromhc"])
def test_one_stream_is_refused(name):
    with pytest.raises(ValidationError, match="at least 2 streams; 1 is the connection residual"):
        make(name, 1)
