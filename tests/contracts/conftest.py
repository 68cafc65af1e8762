"""Every entry of the registry, made small. A new connection or model is under contract as soon as its file exists."""

import pytest
import torch

from mhcnb import load_config, registry

SMALL = {
    "gpt": {"model.width": 24, "model.layers": 3, "model.heads": 2, "model.block_size": 12, "model.vocab_size": 64}
}


def pytest_generate_tests(metafunc):
    for axis in ("connection", "model"):
        if f"{axis}_name" in metafunc.fixturenames:
            metafunc.parametrize(f"{axis}_name", registry.entries(f"{axis}s"))


@pytest.fixture
def make():
    """make(name, n, d, index=, **fields): a connection; where the method has no choice of n, that of its config."""

    def make(name, n=3, d=4, index=1, **fields):
        cls = registry.load("connections", name)
        fields |= {"streams": n}
        config = cls.Config(name=name, **{k: v for k, v in fields.items() if k in cls.Config.model_fields})
        return cls(config, config.streams, d, index, torch.Generator().manual_seed(0))

    return make


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
    """small(model, connection, overrides): the configuration `tiny` of a model, cut down."""

    def small(model, connection, overrides=None):
        path = request.config.rootpath / "params" / model / "tiny.yaml"
        return load_config(path, {"connection.name": connection} | SMALL.get(model, {}) | (overrides or {}))

    return small
