"""Attention and MLP against their definitions, written with loops."""

import math

import pytest
import torch

from mhcnb.layers.attention import CausalAttention, documents_mask, positions_within
from mhcnb.layers.linear import embedding, linear
from mhcnb.layers.mlp import GELUMLP


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def attention(heads=2, d=6, bias=True, dropout=0.0):
    layer = CausalAttention(d, heads, bias, dropout, 0.5, 0.5, generator()).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator(1), dtype=torch.float64)
    return layer


def by_loops(layer, u, allowed):
    """Softmax of q·k / √(head width) over the allowed positions, head by head."""
    b, t, d = u.shape
    width = d // layer.heads
    q, k, v = (u @ layer.qkv.weight.T + layer.qkv.bias).split(d, dim=-1)
    z = torch.zeros_like(u)
    for row in range(b):
        for h in range(layer.heads):
            part = slice(h * width, (h + 1) * width)
            for i in range(t):
                seen = [j for j in range(t) if allowed(row, i, j)]
                scores = [float(q[row, i, part] @ k[row, j, part]) / math.sqrt(width) for j in seen]
                total = sum(math.exp(s) for s in scores)
                z[row, i, part] = sum(math.exp(s) / total * v[row, j, part] for s, j in zip(scores, seen, strict=True))
    return z @ layer.out.weight.T + layer.out.bias


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_attention_by_loops(heads):
    layer, u = attention(heads), torch.randn(2, 5, 6, dtype=torch.float64, generator=generator(2))
    with torch.no_grad():
        torch.testing.assert_close(layer(u), by_loops(layer, u, lambda row, i, j: j <= i))


def test_attention_within_documents_by_loops():
    layer, u = attention(), torch.randn(2, 6, 6, dtype=torch.float64, generator=generator(2))
    documents = torch.tensor([[0, 0, 0, 1, 1, 2], [3, 4, 4, 4, 4, 4]])
    with torch.no_grad():
        expected = by_loops(layer, u, lambda row, i, j: j <= i and bool(documents[row, i] == documents[row, j]))
        torch.testing.assert_close(layer(u, mask=documents_mask(documents)), expected)


def test_positions_begin_again_in_each_document():
    documents = torch.tensor([[0, 0, 0, 1, 1, 2], [7, 7, 7, 7, 7, 7], [1, 2, 3, 3, 4, 4]])
    assert positions_within(documents).tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 0, 1]]


def test_gelu_is_exact():
    layer = GELUMLP(3, True, 0.0, 0.5, 0.5, generator()).double()
    u = torch.randn(4, 3, dtype=torch.float64, generator=generator(1))
    with torch.no_grad():
        z = layer.up(u)
        gelu = [[x / 2 * (1 + math.erf(x / math.sqrt(2))) for x in row] for row in z.tolist()]
        expected = torch.tensor(gelu, dtype=torch.float64) @ layer.down.weight.T + layer.down.bias
        torch.testing.assert_close(layer(u), expected, rtol=1e-13, atol=1e-13)
    assert layer.up.out_features == 12


def test_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    u = torch.randn(2, 5, 6, dtype=torch.float64)
    for layer in (attention(dropout=0.5), GELUMLP(6, False, 0.5, 0.5, 0.5, generator()).double()):
        assert not torch.equal(layer(u), layer(u))
        layer.eval()
        assert torch.equal(layer(u), layer(u))


def test_layers_draw_from_their_generator_alone():
    before = torch.get_rng_state()
    layers = [linear(64, 64, True, 0.3, generator(5)) for _ in range(2)]
    tables = [embedding(64, 64, 0.3, generator(5)) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert torch.equal(tables[0].weight, tables[1].weight)
    assert layers[0].weight.std().item() == pytest.approx(0.3, rel=0.05)
    assert tables[0].weight.std().item() == pytest.approx(0.3, rel=0.05)
    assert not layers[0].bias.any()
