import pytest
import torch
from torch import nn

from mhcnb import build_model, load_config
from mhcnb.analysis import record
from mhcnb.layers.site import sites
from mhcnb.layers.stack import Stack
from mhcnb.models.base import Model, Output

SIZES = {"model.vocab_size": 64, "model.width": 32, "model.layers": 2, "model.heads": 2, "model.block_size": 8}
METHODS = ("residual", "hc", "mhc", "mhc_lite")


def make(**overrides):
    model = build_model(load_config("params/gpt/tiny.yaml", SIZES | overrides))
    generator = torch.Generator().manual_seed(1)
    for site in sites(model).values():  # away from the start, where the maps of all tokens are equal
        for parameter in site.connection.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model, {"inputs": torch.randint(0, 64, (3, 8), generator=generator)}


@pytest.mark.parametrize("method", METHODS)
def test_the_records_are_the_maps_of_each_sites_own_input_in_the_order_of_calls(method):
    model, batch = make(**{"connection.name": method})
    model.eval()
    inputs = {}
    for name, site in sites(model).items():
        site.register_forward_pre_hook(lambda _, args, name=name: inputs.setdefault(name, args[0]))
    records = record(model, batch)
    assert [(r.site, r.call) for r in records] == [
        (name, 0) for name in ("main.0.attn", "main.0.mlp", "main.1.attn", "main.1.mlp")
    ]
    for r in records:
        connection = sites(model)[r.site].connection
        n = connection.n
        assert [tuple(m.shape) for m in r.maps] == [(3, 8, n), (3, 8, n), (3, 8, n, n)]
        assert not any(m.requires_grad for m in r.maps)
        for got, expected in zip(r.maps, connection.maps(inputs[r.site]), strict=True):
            torch.testing.assert_close(got, expected.detach())
    if method != "residual":
        assert records[-1].maps.res.flatten(0, 1).std(0).max() > 1e-4  # tokens differ, or this test would be weak


class Twice(Model):
    """A stack that runs twice in one forward pass."""

    def __init__(self, connection, d=16):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.core = Stack(connection, d, [{"mlp": (nn.Linear(d, d), None)} for _ in range(2)], generator)
        self.embed = nn.Embedding(64, d)

    def forward(self, batch, carry=None, *, cache=None, loops=None):
        x = self.embed(batch["inputs"])
        for _ in range(2):
            x = self.core(x, nn.Identity())
        return Output(x, nn.Identity(), {}, None)


def test_a_recurrent_site_appears_once_a_call_and_call_counts():
    config = load_config("params/gpt/tiny.yaml")
    records = record(Twice(config.connection), {"inputs": torch.zeros(1, 3, dtype=torch.long)})
    assert [(r.site, r.call) for r in records] == [
        ("core.0.mlp", 0),
        ("core.1.mlp", 0),
        ("core.0.mlp", 1),
        ("core.1.mlp", 1),
    ]


def test_recording_leaves_no_trace():
    model, batch = make(**{"model.dropout": 0.5})
    model.train()
    model.main.get_submodule("1").eval()  # a frozen part
    mine = sites(model)["main.0.mlp"].connection
    mine.probe = print
    modes = [module.training for module in model.modules()]
    first, second = record(model, batch), record(model, batch)
    assert [module.training for module in model.modules()] == modes
    assert mine.probe is print
    assert sites(model)["main.0.attn"].connection.probe is None
    assert all(p.grad is None for p in model.parameters())
    # dropout was off, although the model trains
    assert all(torch.equal(a.maps.res, b.maps.res) for a, b in zip(first, second, strict=True))


def test_recording_leaves_no_trace_when_the_model_fails():
    model, _ = make()
    model.train()
    with pytest.raises(IndexError):
        record(model, {"inputs": torch.full((1, 8), 10_000)})
    assert all(module.training for module in model.modules())
    assert all(site.connection.probe is None for site in sites(model).values())
