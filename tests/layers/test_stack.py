"""A stack applies its sites in order, and the order of the composite is: later factor on the left."""

import pytest
import torch
from torch import nn

from mhcnb import registry
from mhcnb.layers.site import Site, sites
from mhcnb.layers.stack import Stack

D, N = 4, 3


def stack(blocks, connection="hc", **fields):
    cls = registry.load("connections", connection)
    several = {"streams": N, "init": "method", **fields} if connection != "residual" else {}
    config = cls.Config(name=connection, **several)
    made = Stack(config, D, blocks, torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return made


class Branch(nn.Module):
    """u -> factor·u, noting its context."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor, self.seen = factor, []

    def forward(self, u, **context):
        self.seen.append(context)
        return self.factor * u


def test_composite_maps_the_entry_to_the_exit():
    """With branches that give nothing, X_L = res_L ··· res_1 X_0 for hc's maps, which do not commute; norm_sum shows
    the norm every stream."""
    made = stack([{"a": (Branch(0.0), None), "b": (Branch(0.0), None)}] * 2, reduce="norm_sum")
    called, exits = [], []
    for site in sites(made).values():
        site.connection.probe = called.append
    x = torch.randn(5, D, dtype=torch.float64)
    with torch.no_grad():
        made(x, lambda X: exits.append(X) or X)
        forward = backward = torch.eye(N, dtype=torch.float64)
        for maps in called:
            forward, backward = maps.res @ forward, backward @ maps.res
        X = made.ends.expand(x)
    assert len(called) == 4
    torch.testing.assert_close(exits[0], forward @ X)
    assert (exits[0] - backward @ X).abs().max() > 1e-2


def test_sites_are_counted_over_the_stack_and_named_by_their_place():
    made = stack([{"attn": (Branch(), None), "mlp": (Branch(), None)} for _ in range(3)])
    found = sites(nn.ModuleDict({"main": made}))
    assert list(found) == ["main.0.attn", "main.0.mlp", "main.1.attn", "main.1.mlp", "main.2.attn", "main.2.mlp"]
    assert [site.connection.index for site in found.values()] == list(range(6))


def test_sites_run_in_order():
    order = []

    class Noting(nn.Module):
        def __init__(self, label):
            super().__init__()
            self.label = label

        def forward(self, u):
            order.append(self.label)
            return u

    blocks = [{"b": (Noting(f"{i}b"), None), "a": (Noting(f"{i}a"), None)} for i in range(12)]
    stack(blocks)(torch.randn(2, D, dtype=torch.float64), nn.Identity())
    assert order == [f"{i}{label}" for i in range(12) for label in "ba"]


def test_context_reaches_every_branch():
    branches = [Branch() for _ in range(2)]
    stack([{"a": (branch, None)} for branch in branches])(
        torch.randn(2, D, dtype=torch.float64), nn.Identity(), mask="m"
    )
    assert [branch.seen for branch in branches] == [[{"mask": "m"}]] * 2


def test_a_residual_stack_by_hand():
    """x -> x + 2x -> 3x + 3·3x, then the norm."""
    made = stack([{"a": (Branch(2.0), None)}, {"a": (Branch(3.0), None)}], "residual")
    x = torch.randn(2, 5, D, dtype=torch.float64)
    torch.testing.assert_close(made(x, lambda x: x + 1), 12 * x + 1)


def between(X):
    """A stack's norm that shows whether it is given streams: the identity."""
    return X


@pytest.mark.parametrize("connection", ["residual", "hc"])
def test_the_first_tokens_alone_are_those_of_all(connection):
    """And the last branch, of two blocks, is given no others."""
    last = Branch(0.7)
    made = stack([{"a": (Branch(2.0), None)}, {"a": (Branch(0.5), None), "b": (last, None)}], connection)
    given = []
    last.register_forward_pre_hook(lambda _, args: given.append(args[0].shape[1]))
    x = torch.randn(2, 5, D, dtype=torch.float64)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(made(x, between, first=2), made(x, between)[:, :2])
    assert given == [2, 5] * 2


def test_pre_norm_belongs_to_the_branch():
    """The state that passes by is not normed."""
    cls = registry.load("connections", "residual")
    site = Site(cls(cls.Config(), 1, D), Branch(2.0), nn.Hardtanh(-0.1, 0.1))
    X = torch.randn(3, 1, D)
    torch.testing.assert_close(site(X), X + 2 * X.clamp(-0.1, 0.1))
