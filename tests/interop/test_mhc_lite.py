"""The public mhc-lite code and this package compute the same numbers."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from mhcnb import registry
from mhcnb.connections.birkhoff import permutation_matrices
from mhcnb.errors import CheckpointError, ConfigError
from mhcnb.interop import mhc_lite
from mhcnb.interop.mhc_lite import load_connection, load_gpt
from mhcnb.models.gpt import GPT
from mhcnb.objectives.lm import cross_entropy

GOLDEN = Path(__file__).parents[1] / "golden"
CONNECTIONS = ["hc_n4_seed7", "mhc_n4_seed7", "mhc_n2_seed8", "mhc_lite_n4_seed7", "mhc_lite_n3_seed8"]
METHODS = ["residual", "hc", "mhc", "mhc_lite"]
EXACT = dict(rtol=1e-9, atol=1e-9)


def golden(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def part(arrays, prefix):
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def gpt_state(method):
    return part(golden(f"gpt_{method}_seed7"), "param.")


# numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONNECTIONS)
def test_connection_maps_output_and_gradients(name):
    g = golden(name)
    connection = load_connection(part(g, "param."), layer_index=int(g["layer_index"]))
    X = g["X"].requires_grad_()
    maps = connection.maps(X)
    torch.testing.assert_close(maps.pre, g["H_pre"], **EXACT)
    torch.testing.assert_close(maps.post, g["H_post"], **EXACT)
    torch.testing.assert_close(maps.res, g["H_res"], **EXACT)
    out = connection(X, lambda u: u @ g["branch_weight"].T)
    torch.testing.assert_close(out, g["out"], **EXACT)
    (out * g["cotangent"]).sum().backward()
    torch.testing.assert_close(X.grad, g["grad_X"], **EXACT)
    expected = mhc_lite.connection_tensors(part(g, "grad."), connection.config.name)
    ours = {key: parameter.grad for key, parameter in connection.named_parameters()}
    assert ours.keys() == expected.keys()
    for key, grad in ours.items():
        torch.testing.assert_close(grad, expected[key], **EXACT, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("name", CONNECTIONS)
def test_initial_values_are_those_of_our_dialect(name, float64):
    g = golden(name)
    method, index = name.split("_n")[0], int(g["layer_index"])
    n, d = g["X"].shape[-2:]
    cls = registry.load("connections", method)
    ours = cls(cls.Config(name=method, dialect="mhc_lite", streams=n), n, d, index).state_dict()
    expected = mhc_lite.connection_tensors(part(g, "init."), method)
    assert ours.keys() == expected.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], expected[key], **EXACT, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("method", METHODS)
def test_gpt_logits_loss_and_gradients(method):
    g = golden(f"gpt_{method}_seed7")
    model = load_gpt(part(g, "param."), heads=2)
    logits = model({"inputs": g["idx"]}).logits
    torch.testing.assert_close(logits, g["logits"], **EXACT)
    loss, count = cross_entropy(logits, g["targets"])
    torch.testing.assert_close(loss / count, g["loss"], **EXACT)
    (loss / count).backward()
    for theirs, norm in part(g, "gradnorm.").items():
        torch.testing.assert_close(_norm(model, theirs), norm, **EXACT, msg=lambda m, k=theirs: f"{k}: {m}")


def _norm(model: GPT, theirs: str) -> torch.Tensor:
    """The norm of the gradient of one of their parameters: its entries are where ones there arrive here."""
    method = connection_config(model).name
    ones = {key: torch.full_like(value, float(key == theirs)) for key, value in gpt_state(method).items()}
    mask = mhc_lite.gpt_tensors(ones, method)
    return torch.cat([p.grad[mask[name] > 0] for name, p in model.named_parameters()]).norm()


def connection_config(model: GPT):
    return model.get_submodule("main.0.attn").connection.config


def test_read_off_the_state_dict():
    model = load_gpt(gpt_state("mhc"), heads=2)
    config, connection = model.config, connection_config(model)
    assert (config.width, config.layers, config.block_size, config.vocab_size) == (16, 2, 16, 61)
    assert (config.bias, connection.name, connection.streams, connection.dialect) == (False, "mhc", 4, "mhc_lite")


@pytest.mark.parametrize("n", [2, 3, 4])
def test_permutations_are_matched_by_their_matrices(n):
    match, ours = mhc_lite.inverse_permutations(n), permutation_matrices(n)
    for k, p in enumerate(itertools.permutations(range(n))):
        theirs = torch.zeros(n, n)
        for source, destination in enumerate(p):
            theirs[source, destination] = 1
        (place,) = (match == k).nonzero()
        assert torch.equal(ours[int(place)], theirs.T)


# forms of real checkpoints ----


def with_duplicates(state):
    more = {"lm_head.weight": state["transformer.wte.weight"]}
    for key, value in state.items():
        if ".branch_" in key:
            more[key.replace(".branch_attn.", ".hc_attn.branch.").replace(".branch_mlp.", ".hc_mlp.branch.")] = value
    return state | more


FORMS = {
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "ddp": lambda s: {f"module.{k}": v for k, v in s.items()},
    "both": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "compiled by block": lambda s: {k.replace("h.1.", "h.1._orig_mod."): v for k, v in s.items()},
    "duplicates": with_duplicates,
    "duplicates alone": lambda s: {
        k: v for k, v in with_duplicates(s).items() if ".branch_" not in k and k != "transformer.wte.weight"
    },
    "reversed": lambda s: dict(reversed(s.items())),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_forms_of_one_checkpoint_give_one_model(form, method):
    g = golden(f"gpt_{method}_seed7")
    model = load_gpt(FORMS[form](part(g, "param.")), heads=2)
    torch.testing.assert_close(model({"inputs": g["idx"]}).logits, g["logits"], **EXACT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_is_kept_and_nothing_is_shared(dtype):
    state = {key: value.to(dtype) for key, value in gpt_state("mhc_lite").items()}
    model = load_gpt(state, heads=2)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert all(p.requires_grad for p in model.parameters())
    assert model({"inputs": torch.zeros(1, 3, dtype=torch.long)}).logits.dtype == dtype
    addresses = {value.data_ptr() for value in state.values()}
    assert not addresses & {p.data_ptr() for p in model.parameters()}


def test_biases():
    g = golden("gpt_hc_seed7")
    state = part(g, "param.")
    with_bias = [key for key in state if ".branch_" in key or ".ln_f." in key]
    biases = {key.replace("weight", "bias"): state[key].new_zeros(len(state[key])) for key in with_bias}
    model = load_gpt(state | biases, heads=2)
    assert model.config.bias
    torch.testing.assert_close(model({"inputs": g["idx"]}).logits, g["logits"], **EXACT)
    moved = load_gpt(state | biases | {"transformer.h.1.branch_mlp.1.c_fc.bias": torch.ones(64).double()}, heads=2)
    assert torch.equal(moved.get_submodule("main.1.mlp").branch.up.bias, torch.ones(64))


# refusals -------------------------------------------------------------------------------------------------------------


def changed(key, value):
    def change(state):
        return {k: v for k, v in (state | {key: value}).items() if v is not None}

    return change


REFUSED = {
    "missing": (changed("transformer.h.1.hc_mlp.static_beta", None), "transformer.h.1.hc_mlp.static_beta is missing"),
    "missing embedding": (changed("transformer.wte.weight", None), "transformer.wte.weight"),
    "missing in block 0": (changed("transformer.h.0.hc_attn.static_beta", None), "static_beta"),
    "unknown": (changed("transformer.h.0.extra", torch.zeros(1)), "transformer.h.0.extra is unknown"),
    "shape": (
        changed("transformer.h.0.hc_mlp.norm.gamma", torch.zeros(16)),
        r"norm.gamma is \(16,\), expected \(64,\)",
    ),
    "a hole": (changed("transformer.h.3.branch_attn.0.weight", torch.zeros(16)), "transformer.h.2"),
    "another head": (changed("lm_head.weight", torch.zeros(61, 16).double()), "lm_head.weight differs"),
    "another branch": (changed("transformer.h.0.hc_attn.branch.0.weight", torch.zeros(16).double()), "differs"),
    "one bias": (changed("transformer.h.0.branch_attn.1.c_attn.bias", torch.zeros(48)), "c_attn.bias is unknown"),
    "a whole checkpoint": (lambda s: {"model": s}, r"give checkpoint\['model'\]"),
    "integers": (changed("transformer.ln_f.weight", torch.zeros(16, dtype=torch.int64)), "int64"),
    "nothing": (lambda s: {}, "transformer.wte.weight"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_such_a_state_dict_is_refused(case):
    change, text = REFUSED[case]
    with pytest.raises(CheckpointError, match=text):
        load_gpt(change(gpt_state("mhc")), heads=2)


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(ConfigError, match="width 16 is not divisible by heads 3"):
        load_gpt(gpt_state("mhc"), heads=3)


@pytest.mark.parametrize("key", ["dynamic_alpha_fn", "static_beta", "norm.gamma", "residual_scale"])
def test_connection_without_a_tensor(key):
    state = part(golden("mhc_n2_seed8"), "param.")
    del state[key]
    with pytest.raises(CheckpointError, match=key):
        load_connection(state, layer_index=0)


def test_connection_of_a_branch_alone():
    with pytest.raises(CheckpointError, match="residual has no parameters"):
        load_connection({"branch.weight": torch.zeros(2, 2)}, layer_index=0)
