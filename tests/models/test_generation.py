"""What is drawn, from what, and how far. That the cache changes nothing is among the contracts."""

import math
from pathlib import Path

import pytest
import torch

from mhcnb import build_model, load_config
from mhcnb.errors import ConfigError, DataError
from mhcnb.models.base import Model
from mhcnb.models.generation import Sampling, generate, stream

PARAMS = Path(__file__).parents[2] / "params" / "rlm" / "tiny.yaml"
SIZES = {"width": 16, "layers": 2, "heads": 2, "block_size": 24, "vocab_size": 64, "dropout": 0.5}


@pytest.fixture(scope="module")
def model():
    """Weights so large that its words are few, but not one."""
    model = build_model(load_config(PARAMS, {"connection.name": "residual", "model": SIZES}))
    with torch.no_grad():
        model.head.weight *= 40
    return model


def prompts(*shape):
    return torch.randint(64, shape, generator=torch.Generator().manual_seed(0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# the distribution ----------------------------------------------------------------------------------------------------


def by_hand(logits, temperature, top_p, top_k):
    """Tokens in order of probability are kept while fewer than top_k, and less than top_p of the probability of these,
    came before; then what is kept is scaled to one."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])[: top_k or len(logits)]
    weights = {i: math.exp(logits[i] / temperature) for i in order}
    whole, before, kept = sum(weights.values()), 0.0, {}
    for i in order:
        if before < top_p * whole:
            kept[i] = weights[i]
        before += weights[i]
    return [kept.get(i, 0.0) / sum(kept.values()) for i in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_p", [0.2, 0.9, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 3, 50])
def test_the_distribution_by_hand(temperature, top_p, top_k):
    logits = 2 * torch.randn(5, 9, dtype=torch.float64, generator=generator())
    expected = [by_hand(row, temperature, top_p, top_k) for row in logits.tolist()]
    found = Sampling(temperature, top_p, top_k).probabilities(logits)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_draws_have_the_distribution():
    logits = torch.tensor([[1.0, 0.0, 2.0, -1.0]])
    drawn = Sampling(1.3, 0.95).draw(logits.expand(20_000, 4), generator())
    share = drawn.bincount(minlength=4) / 20_000
    torch.testing.assert_close(share, Sampling(1.3, 0.95).probabilities(logits)[0], rtol=0, atol=0.015)


def test_temperature_zero_is_the_limit():
    logits = torch.randn(50, 9, generator=generator())
    assert torch.equal(Sampling(0.0).draw(logits), Sampling(1e-4).draw(logits, generator()))


# rows ----------------------------------------------------------------------------------------------------------------


def test_a_tensor_gives_a_tensor_and_a_list_a_list(model):
    rows = prompts(2, 5)
    whole = generate(model, rows, 7, temperature=0)
    assert whole.shape == (2, 12)
    assert torch.equal(whole[:, :5], rows)
    for given in (list(rows), rows.tolist()):
        found = generate(model, given, 7, temperature=0)
        assert isinstance(found, list)
        assert torch.equal(torch.stack(found), whole)


def test_a_seed_decides(model):
    texts = [generate(model, prompts(2, 5), 10, generator=generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


def test_rows_end_with_eos(model):
    """A row that has ended is filled up with it, or cut there; nothing is computed when all have."""
    rows = prompts(3, 5)
    endless = generate(model, rows, 15, temperature=0)[:, 5:]
    eos = int(endless[0, 4])
    ends = [(row == eos).nonzero()[0].item() + 1 if eos in row else 15 for row in endless]
    filled = generate(model, rows, 15, temperature=0, eos=eos)[:, 5:]
    cut = generate(model, list(rows), 15, temperature=0, eos=eos)
    assert filled.shape[1] == max(ends) > min(ends)
    for before, after, row, end in zip(endless, filled, cut, ends, strict=True):
        assert torch.equal(after[:end], before[:end])
        assert (after[end:] == eos).all()
        assert torch.equal(row[5:], before[:end])


def test_tokens_stream_as_generate_has_them(model):
    tokens = stream(model, prompts(2, 5), 6, Sampling(0.0))
    first = next(tokens)
    rest = torch.stack([first, *tokens], dim=1)
    assert torch.equal(rest, generate(model, prompts(2, 5), 6, temperature=0)[:, 5:])


def test_it_is_evaluation_without_gradient_and_leaves_no_trace(model):
    """Dropout would make two texts differ."""
    model.train()
    model.norm.eval()
    texts = [generate(model, prompts(1, 5), 10, temperature=0) for _ in range(2)]
    assert torch.equal(*texts)
    assert model.training
    assert not model.norm.training
    tokens = stream(model, prompts(1, 5), 10, Sampling())
    assert not next(tokens).requires_grad
    assert torch.is_grad_enabled()
    tokens.close()
    assert model.training


# refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": -1}, "temperature = -1; expected 0"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"temperature": float("inf")}, "temperature = inf"),
        ({"top_p": 0.0}, r"top_p = 0.0; expected a share"),
        ({"top_p": 1.5}, r"top_p = 1.5"),
        ({"top_k": -1}, "top_k = -1; expected a number of tokens"),
        ({"top_k": 2.5}, r"top_k = 2.5"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0; expected 1 or more"),
        ({"max_new_tokens": 20}, r"5 tokens and max_new_tokens = 20 make 25; model.block_size is 24: ask for 19"),
        ({"eos": 64}, "eos = 64; the model has tokens 0 to 63"),
    ],
    ids=str,
)
def test_settings_without_sense(model, fields, said):
    with pytest.raises(ConfigError, match=said):
        generate(model, prompts(1, 5), **{"max_new_tokens": 4} | fields)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (prompts(1, 24), r"a prompt of 24 tokens; model.block_size is 24, so shorten it"),
        ([[1, 2], []], "prompt 1 is empty"),
        (prompts(2, 0), "prompt 0 is empty"),
        ([], "no prompt is given"),
        (prompts(5), r"prompts of shape \[5\]; expected \[b, t\], as ids\[None\]"),
        ([[1, 64]], "token 64 in a prompt; the model has 0 to 63"),
        ([[-1]], "token -1 in a prompt"),
        ([[0.5]], r"prompt 0 is torch.float32 of shape \[1\]"),
        ([prompts(1, 5)], r"prompt 0 is torch.int64 of shape \[1, 5\]"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_prompts_that_cannot_be_taken(model, ids, said):
    with pytest.raises(DataError, match=said):
        stream(model, ids, 4, Sampling())  # at once, before the first token is asked for


def test_a_model_that_does_not_decode():
    with pytest.raises(ConfigError, match="Model does not decode token by token"):
        generate(Model(), [[1]], 4)
