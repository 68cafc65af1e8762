"""What every model promises with every connection."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from mhcnb import build_model
from mhcnb.connections.base import Connection
from mhcnb.connections.config import DIALECTS
from mhcnb.layers.site import sites

from .conftest import some_rows


def tokens(model, *shape, seed=0):
    size = model.wte.num_embeddings
    return torch.randint(size, shape, generator=torch.Generator().manual_seed(seed))


def relative(a, b):
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def pair(small, model_name, connection_name):
    """The model with this connection, and with residual, around the same backbone."""
    model = build_model(small(model_name, connection_name))
    residual = build_model(small(model_name, "residual"))
    missing, unexpected = model.load_state_dict(residual.state_dict(), strict=False)
    assert not unexpected
    assert all(".connection." in name for name in missing)
    return model, residual


def logits(model):
    with torch.no_grad():
        return model(some_rows(model, 2)).logits


def test_exact_residual_equals_the_residual_model(small, model_name, connection_name):
    assert relative(*map(logits, pair(small, model_name, connection_name))) < 2e-6


def test_exact_residual_equals_the_residual_model_in_float64(small, model_name, connection_name, float64):
    assert relative(*map(logits, pair(small, model_name, connection_name))) < 1e-12


@pytest.mark.parametrize("dialect", DIALECTS)
def test_backbone_does_not_depend_on_the_connection(small, model_name, connection_name, dialect):
    """One seed, one backbone: runs of two methods are paired."""
    state = build_model(small(model_name, connection_name, dialect=dialect)).state_dict()
    for name, value in build_model(small(model_name, "residual")).state_dict().items():
        assert torch.equal(state[name], value), name


@pytest.mark.parametrize("dialect", DIALECTS)
def test_streams_part_in_training(small, model_name, connection_name, dialect):
    """Spread: distance from the mean over streams, relative to the state, at the input of the inner sites."""
    model = build_model(small(model_name, connection_name, dialect=dialect))
    spread, batch = {}, some_rows(model, 4)

    def watch(name):
        def hook(site, args):
            X = args[0].detach()
            spread[name] = float((X - X.mean(-2, keepdim=True)).norm() / X.norm())

        return hook

    inner = list(sites(model).items())[1:]
    assert inner
    for name, site in inner:
        site.register_forward_pre_hook(watch(name))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        out = model(batch).logits[:, :-1]
        torch.nn.functional.cross_entropy(out.flatten(0, 1), batch["inputs"][:, 1:].flatten()).backward()
        optimizer.step()
    several = any(site.connection.n > 1 for _, site in inner)
    logits(model)
    assert max(spread.values()) > 1e-4 if several else max(spread.values()) == 0


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("lengths", [(4, 6), (1, 1, 8), (10,), (3, 2, 5)], ids=str)
def test_packed_documents_are_each_as_alone(small, perturb, decoder_name, connection_name, dialect, lengths):
    model = perturb(build_model(small(decoder_name, connection_name, dialect=dialect)), 0.05)
    inputs = tokens(model, 1, sum(lengths))
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).unsqueeze(0)
    with torch.no_grad():
        packed = model({"inputs": inputs, "documents": documents}).logits
        alone = [model({"inputs": part}).logits for part in inputs.split(lengths, dim=1)]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_save_and_load(small, perturb, tmp_path, model_name, connection_name, dialect):
    model = perturb(build_model(small(model_name, connection_name, dialect=dialect)), 0.1)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = build_model(small(model_name, connection_name, {"seed": 99}, dialect))
    assert not torch.equal(logits(other), logits(model))
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(logits(other), logits(model))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_autocast_leaves_coefficients_in_float32(small, perturb, model_name, connection_name, dialect):
    model = perturb(build_model(small(model_name, connection_name, dialect=dialect)), 0.1)
    seen = []
    for site in sites(model).values():
        site.connection.probe = seen.append
    with torch.autocast("cpu", torch.bfloat16):
        logits(model)
    assert len(seen) >= len(sites(model)) > 1
    assert {m.dtype for maps in seen for m in maps} == {torch.float32}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_parameter_groups(small, model_name, connection_name, dialect):
    """Every parameter once. Matrices and embeddings decay; norms, gates and static maps never, unless asked for."""
    has_static = "decay_static" in type(small(model_name, connection_name, dialect=dialect).connection).model_fields
    for decay_static in (False, True) if has_static else (False,):
        overrides = {"connection.decay_static": decay_static} if has_static else {}
        model = build_model(small(model_name, connection_name, overrides, dialect))
        groups = model.param_groups()
        assert all(set(group) == {"name", "optimizer", "lr_mult", "decay", "params"} for group in groups)
        tables = [id(p) for group in groups if group["optimizer"] == "sign_sgd" for p in group["params"]]
        assert set(tables) <= {id(buffer) for buffer in model.buffers()}
        decays = [(id(p), g["decay"]) for g in groups for p in g["params"] if g["optimizer"] != "sign_sgd"]
        assert sorted(key for key, _ in decays) == sorted(id(p) for p in model.parameters())
        static = {id(p) for m in model.modules() if isinstance(m, Connection) for p in getattr(m, "bias", {}).values()}
        for name, parameter in model.named_parameters():
            expected = parameter.ndim > 1 or (decay_static and id(parameter) in static) or name in model.decayed
            assert dict(decays)[id(parameter)] == expected, name
            assert not (expected and ("norm" in name or name.endswith((".gate", ".gamma")))), name


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_draw_without_a_seed(small, model_name, connection_name, dialect):
    before = torch.get_rng_state()
    first = build_model(small(model_name, connection_name, dialect=dialect)).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    again = build_model(small(model_name, connection_name, dialect=dialect)).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = build_model(small(model_name, connection_name, {"seed": 2}, dialect)).state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_parameter_learns(small, perturb, model_name, connection_name, dialect):
    model = perturb(build_model(small(model_name, connection_name, dialect=dialect)), 0.1)
    output = model(some_rows(model, 3))
    (output.logits.square().sum() + sum(x.square().sum() for x in output.parts.values())).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
