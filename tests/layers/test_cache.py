"""The cache by itself: what it holds, and what may be looked at."""

import pytest
import torch
from torch import nn

from mhcnb.errors import DataError
from mhcnb.layers.attention import places
from mhcnb.layers.cache import Cache

CPU = torch.device("cpu")


def test_each_layer_gets_its_own_tokens_back():
    cache, layers = Cache(5), [nn.Identity(), nn.Identity()]
    pieces = [[torch.randn(2, 3, t, 4) for t in (3, 1, 1)] for _ in range(4)]  # k and v of both layers
    for step in range(3):
        for i, layer in enumerate(layers):
            k, v = pieces[2 * i], pieces[2 * i + 1]
            found = cache.extend(layer, k[step], v[step])
            assert torch.equal(found[0], torch.cat(k[: step + 1], 2))
            assert torch.equal(found[1], torch.cat(v[: step + 1], 2))
        cache.advance(pieces[0][step].shape[2])
    with pytest.raises(DataError, match="6 tokens for a cache with room for 5"):
        cache.extend(layers[0], torch.zeros(2, 3, 1, 4), torch.zeros(2, 3, 1, 4))


def test_without_padding_the_mask_is_needed_in_the_middle_alone():
    cache = Cache(9)
    assert cache.mask(4, CPU) is None
    cache.advance(4)
    assert cache.mask(1, CPU) is None
    assert cache.mask(2, CPU).int().tolist() == [[[[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]]]
    assert cache.positions(2, CPU).tolist() == [4, 5]


def test_padding_is_not_looked_at_and_has_no_position():
    """But by itself, where there is nothing else to look at."""
    cache = Cache(9, torch.tensor([0, 2]))
    assert cache.positions(3, CPU).tolist() == [[0, 1, 2], [0, 0, 0]]
    assert cache.mask(3, CPU).int().tolist() == [
        [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]],
        [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]],
    ]
    cache.advance(3)
    assert cache.positions(1, CPU).tolist() == [[3], [1]]
    assert cache.mask(1, CPU).int().tolist() == [[[[1, 1, 1, 1]]], [[[0, 0, 1, 1]]]]


def test_documents_have_no_cache():
    with pytest.raises(DataError, match="decode them as rows of their own"):
        places(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 3, dtype=torch.long), Cache(3), 8)
