"""What every model that decodes promises with every connection: the cache changes the cost and nothing else."""

import pytest
import torch

from mhcnb import build_model
from mhcnb.connections.config import DIALECTS
from mhcnb.errors import DataError
from mhcnb.layers.cache import Cache
from mhcnb.models.generation import generate


@pytest.fixture
def decoding(small, perturb, decoder_name, connection_name, float64):
    """decoding(dialect): such a model, away from its special start."""
    return lambda dialect="paper": perturb(build_model(small(decoder_name, connection_name, dialect=dialect)), 0.1)


def tokens(*shape):
    return torch.randint(64, shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def by_pieces(model, inputs, lengths, padding=None):
    """Logits of inputs [b, t] that come in pieces of these lengths."""
    cache = Cache(sum(lengths), padding)
    return torch.cat([model({"inputs": piece}, cache=cache).logits for piece in inputs.split(lengths, 1)], 1)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_cached_equals_uncached(decoding, dialect):
    """However the tokens come."""
    model, inputs = decoding(dialect), tokens(2, 10)
    with torch.no_grad():
        whole = model({"inputs": inputs}).logits
    for lengths in ((1,) * 10, (4, 1, 5), (10,)):
        torch.testing.assert_close(by_pieces(model, inputs, lengths), whole, rtol=1e-11, atol=1e-12)


def test_rows_of_different_lengths_are_each_as_alone(decoding):
    """Whatever stands before a shorter row."""
    model, inputs, padding = decoding(), tokens(3, 10), torch.tensor([0, 3, 7])
    batched = by_pieces(model, inputs, (8, 1, 1), padding)
    for row, before, logits in zip(inputs, padding.tolist(), batched, strict=True):
        with torch.no_grad():
            alone = model({"inputs": row[None, before:]}).logits[0]
        torch.testing.assert_close(logits[before:], alone, rtol=1e-11, atol=1e-12)


def test_greedy_generation_takes_the_most_likely_token_each_time(decoding):
    """By whole passes without a cache; prompts of different lengths."""
    model, prompts = decoding(), [tokens(5), tokens(2), tokens(1)]
    for prompt, text in zip(prompts, generate(model, prompts, 6, temperature=0), strict=True):
        expected = prompt
        for _ in range(6):
            with torch.no_grad():
                expected = torch.cat([expected, model({"inputs": expected[None]}).logits[0, -1:].argmax(-1)])
        assert torch.equal(text, expected)


def test_a_cache_is_not_longer_than_the_model(decoding):
    model, cache = decoding(), Cache(20)
    model({"inputs": tokens(1, 10)}, cache=cache)
    with pytest.raises(DataError, match=r"13 tokens in a row; model\.block_size is 12"):
        model({"inputs": tokens(1, 3)}, cache=cache)
