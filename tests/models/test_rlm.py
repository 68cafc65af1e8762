"""RLM: what Llama is, whatever the connection."""

import math
from pathlib import Path

import pytest
import torch

from mhcnb import build_model, load_config
from mhcnb.analysis.cost import build_meta
from mhcnb.errors import ConfigError
from mhcnb.models.generation import generate
from mhcnb.training.footprint import memory

PARAMS = Path(__file__).parents[2] / "params" / "rlm"
SMALL = {"width": 24, "layers": 3, "heads": 4, "block_size": 64, "vocab_size": 96}


def rlm(connection="residual", **fields):
    return build_model(load_config(PARAMS / "tiny.yaml", {"connection.name": connection, "model": SMALL | fields}))


def inputs(*shape):
    return torch.randint(96, shape, generator=torch.Generator().manual_seed(0))


def count(model):
    return sum(p.numel() for p in model.parameters())


# sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "tied", "residual", "added"),
    [
        ("small", True, 109_529_856, 1_770_120),
        ("small", False, 134_105_856, 1_770_120),
        ("base_1b", False, 1_339_082_752, 9_438_480),
        ("large_7b", False, 6_704_992_256, 25_167_552),
    ],
)
def test_published_sizes(preset, tied, residual, added):
    """mhc with 4 streams adds n²(n + 2)d + n(n + 2) + 3 a site."""
    counts = []
    for connection in ("residual", "mhc"):
        overrides = {"connection.name": connection, "model.tied": tied}
        counts.append(count(build_meta(load_config(PARAMS / f"{preset}.yaml", overrides))))
    assert counts == [residual, residual + added]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("fields", [{}, {"kv_heads": 2}, {"kv_heads": 1, "head_dim": 10, "ffn_dim": 50}], ids=str)
def test_parameter_count_and_flops(fields, tied):
    """A block: q and out h·k·d each, k and v h'·k·d each, three matrices f·d, two norms. FLOPs: 6 a weight that is
    multiplied, and 12 L h k T of attention."""
    d, layers, heads, v, t = 24, 3, 4, 96, 64
    shared, k, f = fields.get("kv_heads", 4), fields.get("head_dim", 6), fields.get("ffn_dim", 64)
    weights = layers * (2 * (heads + shared) * k * d + 3 * f * d + 2 * d) + d + v * d
    model = rlm(tied=tied, **fields)
    assert count(model) == weights + (0 if tied else v * d)
    assert model.flops_per_token() == 6 * weights + 12 * layers * heads * k * t


@pytest.mark.parametrize(("width", "ffn"), [(768, 2048), (2048, 5461), (4096, 10923), (256, 683)])
def test_inner_width_is_eight_thirds(width, ffn):
    assert load_config(PARAMS / "small.yaml", {"model.width": width, "model.heads": 8}).model.sizes.ffn_dim == ffn


def test_initial_values():
    """N(0, 0.02), the two projections into the stream 0.02/√(2L); norms one."""
    for name, value in rlm(width=128, layers=4, vocab_size=512).named_parameters():
        if "norm" in name:
            assert (value == 1).all(), name
        else:
            std = 0.02 / math.sqrt(8) if name.endswith(("out.weight", "down.weight")) else 0.02
            assert value.std().item() == pytest.approx(std, rel=0.03), name
            assert abs(value.mean().item()) < 4 * std / math.sqrt(value.numel()), name


@pytest.mark.parametrize("tied", [False, True])
def test_the_head(tied):
    model = rlm(tied=tied)
    out = model({"inputs": inputs(2, 5)})
    weight = model.wte.weight if tied else model.head.weight
    torch.testing.assert_close(out.logits, out.hidden @ weight.T)
    torch.testing.assert_close(out.hidden.square().mean(-1), torch.ones(2, 5), rtol=0.01, atol=0)
    assert torch.equal(model.wte.weight, rlm(tied=not tied).wte.weight)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"heads": 5}, r"width 24 is not divisible by heads 5; nearest widths: 20 and 25, or give head_dim"),
        ({"kv_heads": 3}, r"heads 4 is not divisible by kv_heads 3; it is by \[1, 2, 4\]"),
        ({"heads": 8}, r"a head is 3 wide; rotary positions turn pairs"),
    ],
)
def test_sizes_that_do_not_fit(fields, said):
    with pytest.raises(ConfigError, match=said):
        rlm(**fields)


@pytest.mark.parametrize(
    ("name", "shape", "tokens"),
    [("small", (12, 768, 12), 2**19), ("base_1b", (24, 2048, 16), 2**19), ("large_7b", (32, 4096, 32), 2**22)],
)
def test_presets(name, shape, tokens):
    config = load_config(PARAMS / f"{name}.yaml")
    model, train = config.model, config.train
    assert (model.layers, model.width, model.heads) == shape
    assert (model.vocab_size, model.tied, model.dropout, model.rope_theta) == (32000, False, 0.0, 10000.0)
    assert train.micro_batch * train.accumulation * model.block_size == tokens
    parameters = count(build_meta(load_config(PARAMS / f"{name}.yaml", {"connection.name": "residual"})))
    assert train.steps * tokens / parameters == pytest.approx(20, rel=0.05)
    assert not train.warnings()


# behaviour -----------------------------------------------------------------------------------------------------------


def test_causality():
    """The logits at t have no gradient with respect to later tokens, and one with respect to every earlier one."""
    model, seen = rlm("mhc", kv_heads=2), []
    model.wte.register_forward_hook(lambda module, args, out: seen.append(out) or out.retain_grad())
    logits = model({"inputs": inputs(1, 8)}).logits
    for t in range(8):
        (grad,) = torch.autograd.grad(logits[0, t].square().sum(), seen[0], retain_graph=True)
        size = grad[0].abs().sum(-1)
        assert (size[: t + 1] > 0).all()
        assert (size[t + 1 :] == 0).all()


def test_recomputing_blocks_takes_a_third_of_the_memory_at_24_layers():
    """The most that one update holds beside weights and moments."""
    peaks = {}
    for how in ("none", "block"):
        overrides = {"connection.name": "residual", "train.recompute": how, "train.accumulation": 1}
        held = memory(load_config(PARAMS / "base_1b.yaml", overrides))
        peaks[how] = held.update - held.weights - held.moments
    assert peaks["none"] > 3 * peaks["block"]


# Llama ---------------------------------------------------------------------------------------------------------------

THEIRS = {
    **{f"attn.branch.{ours}": f"self_attn.{theirs}_proj" for ours, theirs in zip("qkv", "qkv", strict=True)},
    "attn.branch.out": "self_attn.o_proj",
    **{f"mlp.branch.{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
    "attn.pre_norm": "input_layernorm",
    "mlp.pre_norm": "post_attention_layernorm",
    "wte": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
}


def their_name(name):
    """Of one of our parameters."""
    module = name.removesuffix(".weight")
    if module.startswith("main."):
        _, i, rest = module.split(".", 2)
        return f"model.layers.{i}.{THEIRS[rest]}.weight"
    return f"{THEIRS[module]}.weight"


def with_llama(**fields):
    """Our model and theirs with the same weights, so large that what they generate is no loop of a few tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    ours = rlm(**fields)
    c, s = ours.config, ours.config.sizes
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.width,
            intermediate_size=s.ffn_dim,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            num_key_value_heads=s.kv_heads,
            head_dim=s.head_dim,
            max_position_embeddings=c.block_size,
            rms_norm_eps=c.norm_eps,
            rope_theta=c.rope_theta,
            tie_word_embeddings=c.tied,
            eos_token_id=None,
        )
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in theirs.parameters():
            value.copy_((value.ndim == 1) + 0.3 * torch.randn(value.shape, generator=generator))
    state = theirs.state_dict()
    ours.load_state_dict({name: state[their_name(name)] for name in ours.state_dict()})
    return ours, theirs


SHAPES = [{}, {"kv_heads": 2}, {"kv_heads": 1, "head_dim": 10, "ffn_dim": 50}, {"tied": True, "norm_eps": 1e-3}]


@pytest.mark.parametrize("fields", SHAPES, ids=str)
def test_logits_loss_and_gradients_are_those_of_llama(fields):
    ours, theirs = with_llama(block_size=128, **fields)
    tokens = inputs(3, 120)
    logits = ours({"inputs": tokens}).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    out = theirs(tokens, labels=tokens)
    torch.testing.assert_close(logits, out.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss, out.loss, rtol=1e-5, atol=1e-5)
    loss.backward()
    out.loss.backward()
    gradients = {name: value.grad for name, value in theirs.named_parameters()}
    for name, value in ours.named_parameters():
        torch.testing.assert_close(value.grad, gradients[their_name(name)], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("fields", SHAPES[:2], ids=str)
def test_greedy_generation_is_that_of_llama(fields):
    ours, theirs = with_llama(block_size=80, **fields)
    prompts = inputs(3, 16)
    mask = torch.ones_like(prompts)
    expected = theirs.generate(prompts, attention_mask=mask, max_new_tokens=64, do_sample=False, pad_token_id=0)
    assert torch.equal(generate(ours, prompts, 64, temperature=0), expected)
    assert len(expected[:, 16:].unique()) > 20  # no loop of a few
