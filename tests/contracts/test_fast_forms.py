"""The fast form of every connection is the plain one: values, gradients, and what comes of them in training."""

import pytest
import torch
from torch.func import functional_call

from mhcnb import build_model, registry
from mhcnb.connections.birkhoff import BLOCK
from mhcnb.connections.config import DIALECTS
from mhcnb.objectives.base import Clock

SEVERAL = [name for name in registry.entries("connections") if name != "residual"]
CLOSE = {torch.float32: 1e-6, torch.bfloat16: 2e-2}  # of a tensor's largest entry


def branch(u):
    return torch.tanh(u.roll(1, -1) * torch.linspace(0.5, 2, u.shape[-1], dtype=u.dtype))


def streams(connection, tokens, dtype=torch.float32):
    shape = tokens, connection.n, connection.d
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def spread_to(connection, X, spread):
    """Its logits over a range of `spread`: half of it the same for every token, half by the token."""
    generator, static = torch.Generator().manual_seed(1), torch.cat([*connection.bias.values()])
    with torch.no_grad():
        connection.weight.normal_(generator=generator)
        connection.gate.fill_(1)
        dynamic = torch.cat([part.flatten(1) for part in connection.logits(X.float())], dim=1) - static
        connection.gate.fill_(float(spread / 2 / (dynamic.max() - dynamic.min())))
        for bias in connection.bias.values():
            bias.copy_(torch.rand(bias.shape, generator=generator).sub(0.5) * spread / 2)
        logits = torch.cat([part.flatten(1) for part in connection.logits(X.float())], dim=1)
    assert spread / 2 < logits.max() - logits.min() <= spread
    return connection


def passed(connection, X, dtype=None):
    """X' and the gradients of X and of every parameter, by name; in `dtype`, from the same inputs."""
    inputs = {"X": X, **dict(connection.named_parameters())}
    leaves = {k: x.detach().to(dtype or x.dtype, copy=True).requires_grad_() for k, x in inputs.items()}
    out = functional_call(connection, {k: x for k, x in leaves.items() if k != "X"}, (leaves["X"], branch))
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad((out * cotangent).sum(), list(leaves.values()))
    return {"X'": out.detach(), **dict(zip(leaves, gradients, strict=True))}


def deviations(got, exact):
    """{tensor: its largest deviation over its largest entry}."""
    return {k: ((x.double() - exact[k]).abs().max() / exact[k].abs().max()).item() for k, x in got.items()}


def fails(connection, X, plain_forms):
    """The tensors of the fast form whose distance from float64 is more than CLOSE, and more than rounding explains: 4
    times that of the plain form in X's type. (Sums over tokens may cancel.)"""
    with plain_forms():
        exact = passed(connection, X, torch.float64)
        rounded = deviations(passed(connection, X), exact)
    fast = deviations(passed(connection, X), exact)
    return {k: (off, rounded[k]) for k, off in fast.items() if off > max(CLOSE[X.dtype], 4 * rounded[k])}


@pytest.mark.parametrize("spread", [1, 10])
@pytest.mark.parametrize("size", [(2, 33), (3, 7), (4, 75)], ids=str)
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("name", SEVERAL)
def test_values_and_gradients(name, dtype, dialect, size, spread, make, plain_forms):
    connection = make(name, *size, dialect=dialect)
    X = streams(connection, 9, dtype)
    assert not fails(spread_to(connection, X, spread), X, plain_forms)


@pytest.mark.parametrize("name", SEVERAL)
def test_more_tokens_than_a_block(name, make, plain_forms):
    connection = make(name, 3, 5)
    X = streams(connection, BLOCK + 5)
    assert not fails(spread_to(connection, X, 10), X, plain_forms)


def losses(config, updates=200):
    """Of a model that learns a sequence of period 61."""
    model, objective = build_model(config), registry.load("objectives", "lm")(config.objective)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    found, t = [], torch.arange(13)
    for update in range(updates):
        starts = torch.randint(61, (8, 1), generator=torch.Generator().manual_seed(update))
        rows = (starts + t) ** 2 % 61
        step = objective.step(model, {"inputs": rows[:, :-1], "targets": rows[:, 1:]}, None, Clock(1, update))
        optimizer.zero_grad()
        (step.loss_sum / step.count).backward()
        optimizer.step()
        found.append(step.loss_sum.detach() / step.count)
    return torch.stack(found)


@pytest.mark.parametrize("name", SEVERAL)
def test_loss_curves(name, small, plain_forms):
    """200 updates, in which what differs in the last bit grows."""
    config = small("gpt", name, {"model.layers": 1})
    fast = losses(config)
    with plain_forms():
        plain = losses(config)
    assert fast[-1] < 0.5 * fast[0]
    assert (fast - plain).abs().max() < 1e-3
    assert not torch.equal(fast, plain), "the plain forms were not in place"
