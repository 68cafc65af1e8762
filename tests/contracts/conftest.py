"""Every entry of the registry, made small. A new connection or model is under contract as soon as its file exists."""

from contextlib import contextmanager

import pytest
import torch
from pydantic import ValidationError

from mhcnb import load_config, registry
from mhcnb.connections import mhc, ops
from mhcnb.connections.birkhoff import sinkhorn_plain

SIZES = {"model.width": 24, "model.layers": 3, "model.heads": 2, "model.block_size": 12, "model.vocab_size": 64}
CELLS = {"model.width": 24, "model.heads": 2, "model.expansion": 1.0, "model.seq_len": 12, "model.vocab_size": 64}
LEVELS = {"model.L_cycles": 1, "model.puzzles": 3}
SMALL = {"gpt": SIZES, "rlm": SIZES | {"model.kv_heads": 1}, "hrm": CELLS | LEVELS}
PRESETS = {"hrm": "tiny4x4"}  # others have a `tiny`


def pytest_generate_tests(metafunc):
    for axis in ("connection", "model"):
        if f"{axis}_name" in metafunc.fixturenames:
            metafunc.parametrize(f"{axis}_name", registry.entries(f"{axis}s"))
    if "decoder_name" in metafunc.fixturenames:  # models that read and write texts
        decoders = [name for name in registry.entries("models") if registry.load("models", name).decodes]
        metafunc.parametrize("decoder_name", decoders)


@pytest.fixture
def make():
    """make(name, n, d, index=, **fields): a connection; of the next n that the method takes, where it refuses this one,
    or of the only one."""

    def make(name, n=3, d=4, index=1, **fields):
        cls = registry.load("connections", name)
        fields = {key: value for key, value in fields.items() if key in cls.Config.model_fields}
        config = first_accepted(cls.Config, [n, n + 1, n + 2, n + 3], name=name, **fields)
        return cls(config, config.streams, d, index, torch.Generator().manual_seed(0))

    return make


def some_rows(model, rows, t=None, seed=0):
    """A batch of t tokens or cells a row, as many as the model has room for, drawn by seed."""
    generator, t = torch.Generator().manual_seed(seed), t or model.config.block_size
    batch = {"inputs": torch.randint(model.wte.num_embeddings, (rows, t), generator=generator)}
    if getattr(model, "puzzles", None) is not None:
        batch["puzzle_identifiers"] = torch.arange(rows) % len(model.puzzles.rows)
    return batch


def first_accepted(config, streams, **fields):
    """The configuration with the first number of streams that is not refused."""
    if "streams" not in config.model_fields:
        return config(**fields)
    for n in streams:
        try:
            return config(streams=n, **fields)
        except ValidationError as error:
            refused = error
    raise refused


@pytest.fixture
def perturb():
    """perturb(module, scale): every parameter moved by scale·N(0, 1), so that nothing is at its special start."""

    def perturb(module, scale=0.5, seed=1):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        return module

    return perturb


@pytest.fixture
def small(request):
    """small(model, connection, overrides, dialect): the configuration `tiny` of a model, cut down; in a dialect, where
    the connection has any."""

    def small(model, connection, overrides=None, dialect="paper"):
        path = request.config.rootpath / "params" / model / f"{PRESETS.get(model, 'tiny')}.yaml"
        several = "dialect" in registry.load("connections", connection).Config.model_fields
        spoken = {"connection.dialect": dialect} if several else {}
        return load_config(path, {"connection.name": connection} | spoken | SMALL.get(model, {}) | (overrides or {}))

    return small


@pytest.fixture
def plain_forms(monkeypatch):
    """A context in which connections take the plain form of every operation, and autograd its gradients."""

    def project(X, weight, kind, eps, gating=None):
        x = X if X.shape[-1] == len(weight) else X.flatten(-2)
        raw = ops.norm_project_plain(x.to(weight.dtype), weight, kind, eps)
        if gating is None:
            return raw, None
        gates = [gating.gate[g].expand(width) for g, width in zip(gating.gates, gating.widths, strict=True)]
        return torch.cat(gates) * raw + torch.cat(gating.bias), None

    def read(X, on, pre, post, res):
        return ops.read_plain(pre, X), (res, X, post)

    @contextmanager
    def plain():
        with monkeypatch.context() as patch:
            patch.setattr(ops, "project", project)
            patch.setattr(ops, "read", read)
            patch.setattr(ops, "write", lambda entered, y: ops.write_plain(*entered, y))
            patch.setattr(mhc, "sinkhorn", sinkhorn_plain)
            yield

    return plain
