"""GPT: what nanoGPT is, whatever the connection."""

import math
from pathlib import Path

import pytest
import torch

from mhcnb import build_model, load_config, registry
from mhcnb.errors import ConfigError

PARAMS = Path(__file__).parents[2] / "params" / "gpt"
SMALL = {"width": 24, "layers": 3, "heads": 2, "block_size": 12, "vocab_size": 64}
CONNECTIONS = list(registry.entries("connections"))


def gpt(connection="residual", **fields):
    return build_model(load_config(PARAMS / "tiny.yaml", {"connection.name": connection, "model": SMALL | fields}))


def inputs(*shape):
    return torch.randint(64, shape, generator=torch.Generator().manual_seed(0))


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_causality(connection):
    """The logits at t have no gradient with respect to later tokens, and one with respect to every earlier one."""
    model, seen = gpt(connection), []
    model.wte.register_forward_hook(lambda module, args, out: seen.append(out) or out.retain_grad())
    logits = model({"inputs": inputs(1, 8)}).logits
    for t in range(8):
        (grad,) = torch.autograd.grad(logits[0, t].square().sum(), seen[0], retain_graph=True)
        size = grad[0].abs().sum(-1)
        assert (size[: t + 1] > 0).all()
        assert (size[t + 1 :] == 0).all()


@pytest.mark.parametrize("bias", [False, True])
def test_parameter_count(bias):
    """12 d² a block (4 attention, 8 MLP), embeddings, and two norms a block + one."""
    d, layers, v, t = 24, 3, 64, 12
    expected = 12 * d * d * layers + (v + t) * d + (2 * layers + 1) * d
    if bias:
        expected += layers * (3 * d + d + 4 * d + d) + (2 * layers + 1) * d
    assert count(gpt(bias=bias)) == expected


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_connection_at_every_branch(connection):
    """2 sites a block; no other parameter depends on the connection."""
    model, residual = gpt(connection), gpt("residual")
    per_site = [count(m) for name, m in model.named_modules() if name.endswith(".connection")]
    assert len(per_site) == 6
    assert count(model) - count(residual) == sum(per_site) == 6 * per_site[0]


def test_initial_values():
    """N(0, 0.02), the two projections into the stream 0.02/√(2L); norms one, biases zero."""
    model = gpt(width=128, layers=4, vocab_size=512, block_size=64, bias=True)
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            assert not value.any(), name
        elif "norm" in name:
            assert (value == 1).all(), name
        else:
            std = 0.02 / math.sqrt(8) if name.endswith(("out.weight", "down.weight")) else 0.02
            assert value.std().item() == pytest.approx(std, rel=0.03), name
            assert abs(value.mean().item()) < 4 * std / math.sqrt(value.numel()), name


def test_head_is_the_embedding_and_hidden_is_normed():
    model = gpt()
    out = model({"inputs": inputs(2, 5)})
    torch.testing.assert_close(out.logits, out.hidden @ model.wte.weight.T)
    torch.testing.assert_close(out.hidden.mean(-1), torch.zeros(2, 5), rtol=0, atol=1e-6)
    torch.testing.assert_close(out.hidden.var(-1, unbiased=False), torch.ones(2, 5), rtol=0.05, atol=0)


def test_loss_at_the_start_is_that_of_guessing():
    model, x = gpt(), inputs(8, 12)
    loss = torch.nn.functional.cross_entropy(model({"inputs": x[:, :-1]}).logits.flatten(0, 1), x[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(64), abs=0.1)


def test_positions_matter():
    logits = gpt()({"inputs": torch.zeros(1, 6, dtype=torch.long)}).logits[0]
    assert len({tuple(row.tolist()) for row in logits}) == 6


def test_flops():
    """6 a weight that is multiplied, and 12 L d T of attention."""
    model = gpt()
    weights = count(model) - 12 * 24
    assert model.flops_per_token() == 6 * weights + 12 * 3 * 24 * 12


@pytest.mark.parametrize(
    ("name", "shape", "lr"),
    [("small", (6, 8, 512), 1e-3), ("medium", (12, 12, 768), 6e-4), ("large", (24, 16, 1024), 3e-4)],
)
def test_presets(name, shape, lr):
    config = load_config(PARAMS / f"{name}.yaml")
    model, train = config.model, config.train
    assert (model.layers, model.heads, model.width) == shape
    assert (model.block_size, model.vocab_size, model.bias, model.dropout) == (1024, 50304, False, 0.0)
    assert (train.lr, train.warmup, train.steps) == (lr, 200, 10001)
    assert train.min_lr == pytest.approx(lr / 10)
    assert (train.micro_batch, train.accumulation, train.betas) == (16, 8, (0.9, 0.95))
    assert (train.weight_decay, train.clip, config.preset) == (0.1, 1.0, name)
    assert not train.warnings()


def test_tiny_is_tiny():
    config = load_config(PARAMS / "tiny.yaml")
    model, train = config.model, config.train
    assert (model.layers, model.width, model.heads, model.block_size, model.vocab_size) == (4, 128, 4, 64, "auto")
    assert (train.micro_batch, train.warmup, train.lr) == (16, 20, 2e-3)
    assert config.data.root == "embedded"


def test_vocabulary_auto_needs_data_that_say_it(tmp_path):
    with pytest.raises(ConfigError, match=r"model.vocab_size=50304"):
        build_model(load_config(PARAMS / "tiny.yaml", {"data.root": str(tmp_path)}))


def test_vocabulary_auto_is_rounded_up_to_64():
    from mhcnb.models.base import with_sizes

    config = load_config(PARAMS / "tiny.yaml")
    sizes = {1: 64, 64: 64, 65: 128, 50257: 50304}
    assert {size: with_sizes(config, {"vocab_size": size}).model.vocab_size for size in sizes} == sizes
    fixed = load_config(PARAMS / "small.yaml")
    assert with_sizes(fixed, {"vocab_size": 65}) is fixed
