import gc
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mhcnb import build_model, load_config, registry
from mhcnb.analysis.gains import gains, products
from mhcnb.analysis.measure import RANGE, measure
from mhcnb.analysis.quantities import QUANTITIES, REFERENCES, all_quantities
from mhcnb.analysis.record import record
from mhcnb.analysis.streams import state
from mhcnb.errors import ConfigError, DataError
from mhcnb.layers.site import probing, sites
from mhcnb.layers.stack import Stack
from mhcnb.models.base import Model, Output

SIZES = {"model.vocab_size": 64, "model.width": 32, "model.layers": 2, "model.heads": 2, "model.block_size": 8}
SITES = ["main.0.attn", "main.0.mlp", "main.1.attn", "main.1.mlp"]


def make(connection="mhc", strength=0.3, **overrides):
    model = build_model(load_config("params/gpt/tiny.yaml", SIZES | {"connection.name": connection} | overrides))
    generator = torch.Generator().manual_seed(1)
    for site in sites(model).values():  # away from the start, where the maps of all tokens are equal
        for parameter in site.connection.parameters():
            parameter.data += strength * torch.randn(parameter.shape, generator=generator)
    return model


def batches(*rows):
    generator = torch.Generator().manual_seed(2)
    return [{"inputs": torch.randint(0, 64, (count, 8), generator=generator)} for count in rows]


def whole(parts):
    return {"inputs": torch.cat([part["inputs"] for part in parts])}


def the(frame, **key):
    for name, value in key.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1, (key, len(frame))
    return frame.iloc[0]


@pytest.mark.parametrize("connection", sorted(registry.entries("connections")))
def test_maps_are_the_statistics_of_every_product_of_the_records(connection):
    model, parts = make(connection), batches(3, 1, 4)
    found = measure(model, iter(parts))
    assert (found.tokens, found.reduction) == (64, "per_token_then_mean")
    walk = list(products(record(model, whole(parts))))
    assert len(found.maps) == len(walk) * len(QUANTITIES)
    for p in walk:
        for name, values in all_quantities(p.P.flatten(0, 1)).items():
            row = the(found.maps, stack=p.stack, call=p.call, depth=p.depth, site=p.site, scope=p.scope, quantity=name)
            values, away = values.numpy(), np.abs(values.numpy() - REFERENCES[name])
            assert row["index"] == p.index
            assert [row["mean"], row["min"], row["max"]] == pytest.approx(
                [values.mean(), values.min(), values.max()], abs=2e-6
            )
            for share in (50, 99):
                true = np.quantile(values, share / 100, method="inverted_cdf")
                assert abs(row[f"p{share}"] - true) <= 0.01 * abs(true - REFERENCES[name]) + 2e-6
            assert away[int(row["worst"])] == pytest.approx(away.max(), abs=2e-6)


def test_its_gains_are_those_of_gains():
    model, parts = make("hc"), batches(2, 2)
    for reduction in ("per_token_then_mean", "mean_matrix_then_max"):
        maps = measure(model, parts, reduction).maps
        for row in gains(record(model, whole(parts)), reduction).itertuples():
            for side in ("forward", "backward"):
                got = the(maps, site=row.site, scope=row.scope, quantity=f"amax_{side}")
                assert got["mean"] == pytest.approx(getattr(row, side), abs=2e-6)
                assert got["reduction"] == reduction


def test_tokens_are_taken_in_blocks_and_keep_their_numbers(monkeypatch):
    model, parts = make("hc"), batches(3, 2)
    at_once = measure(model, parts).maps
    sizes = []
    module = sys.modules[measure.__module__]  # the package has the function under the module's name
    monkeypatch.setattr(module, "TOKENS", 7)
    monkeypatch.setattr(module, "all_quantities", lambda P: sizes.append(P.shape[1]) or all_quantities(P))
    in_blocks = measure(model, parts).maps
    assert sizes == [7, 7, 7, 3, 7, 7, 2]
    assert in_blocks["worst"].tolist() == at_once["worst"].tolist()
    np.testing.assert_allclose(in_blocks["mean"], at_once["mean"], rtol=1e-12, atol=1e-12)


def test_averaged_matrices_have_no_tokens():
    model, parts = make("hc", strength=1.0), batches(2, 3)
    averaged, each = (measure(model, parts, r).maps for r in ("mean_matrix_then_max", "per_token_then_mean"))
    keys = ["site", "scope", "quantity"]
    assert averaged[keys].values.tolist() == each[keys].values.tolist()
    assert (averaged["worst"] == -1).all()
    assert (averaged["mean"] == averaged["p99"]).all()
    norms = averaged["quantity"].isin(["sigma_max", "inf_norm", "identity_distance"])  # norms are convex
    assert (averaged["mean"][norms] <= each["mean"][norms] + 1e-9).all()
    assert (averaged["mean"][norms] < each["mean"][norms] - 1e-3).any()


@pytest.mark.parametrize("connection", ["residual", "hc", "mhc"])
def test_streams_are_those_that_enter_a_site_and_leave_the_last(connection):
    model, parts = make(connection), batches(3, 2)
    entering = {}
    for name, site in sites(model).items():
        site.register_forward_hook(
            lambda _, args, out, name=name: entering.update({name: args[0], "main.exit": out})  # the last call stays
        )
    found = measure(model, parts)
    with torch.no_grad():
        model.eval()(whole(parts))
    assert list(entering) == ["main.0.attn", "main.exit", *SITES[1:]]
    for depth, site in enumerate([*SITES, "main.exit"], 1):
        for name, values in state(entering[site]).items():
            row = the(found.streams, site=site, quantity=name)
            assert (row["stack"], row["call"], row["depth"]) == ("main", 0, depth)
            expected = [float(values.mean()), float(values.min()), float(values.max())]
            assert [row["mean"], row["min"], row["max"]] == pytest.approx(expected, abs=1e-5)


def test_inputs_are_the_ranges_of_the_logits_that_sinkhorn_gets():
    model, parts = make("mhc", strength=2.0), batches(3, 2)
    seen = {}
    for name, site in sites(model).items():
        site.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
    found = measure(model, parts)
    with torch.no_grad():
        model.eval()(whole(parts))
    assert found.inputs["site"].tolist() == SITES
    for row in found.inputs.itertuples():
        logits = sites(model)[row.site].connection.logits(seen[row.site]).res.flatten(0, 1).detach().numpy()
        ranges = logits.max(1) - logits.min(1)
        assert (row.mean, row.max) == pytest.approx((ranges.mean(), ranges.max()), rel=1e-4)
        assert row.p50 == pytest.approx(np.quantile(ranges, 0.5, method="inverted_cdf"), rel=0.011)
        assert row.share_above_30 == np.mean(ranges > RANGE)
    assert 0 < found.inputs["share_above_30"].mean() < 1
    assert measure(make("hc"), parts).inputs.empty


@pytest.mark.parametrize("connection", sorted(registry.entries("connections")))
def test_coefficients_are_pre_post_and_the_gates(connection):
    model, parts = make(connection), batches(3, 2)
    found = measure(model, parts).coefficients
    for r in record(model, whole(parts)):
        for kind, values in (("pre", r.maps.pre), ("post", r.maps.post)):
            for i, of in enumerate(values.flatten(0, 1).T):
                row = the(found, site=r.site, call=0, quantity=f"{kind}_{i}")
                assert [row["mean"], row["min"], row["max"]] == pytest.approx(
                    [float(of.mean()), float(of.min()), float(of.max())], abs=1e-5
                )
        rule = sites(model)[r.site].connection
        gate = getattr(rule, "gate", torch.zeros(0)).tolist()
        gates = {row.quantity: row.mean for row in found.itertuples() if row.site == r.site and "gate" in row.quantity}
        if connection == "residual":
            assert gates == {}
            continue
        names = ["gate_pre", "gate_post"] + ["gate_res"] * (rule.res_width > 0)
        assert gates == {name: pytest.approx(gate[i]) for name, i in zip(names, rule.gates, strict=len(names) == 3)}


class Twice(Model):
    """A stack that runs as often as a batch says."""

    def __init__(self, connection, d=16):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.core = Stack(connection, d, [{"mlp": (nn.Linear(d, d), None)} for _ in range(2)], generator)
        self.embed = nn.Embedding(64, d)

    def forward(self, batch, carry=None, *, cache=None, loops=None):
        x = self.embed(batch["inputs"])
        for _ in range(int(batch["loops"])):
            x = self.core(x, nn.Identity())
        return Output(x, nn.Identity(), {}, None)


def test_a_stack_that_recurs_has_rows_for_each_call():
    model = Twice(load_config("params/gpt/tiny.yaml").connection)
    batch = batches(2)[0] | {"loops": torch.tensor(2)}
    found = measure(model, [batch, batch])
    singles = found.maps[(found.maps["scope"] == "prefix") & (found.maps["quantity"] == "lambda2")]
    assert singles[["site", "call", "depth", "index"]].values.tolist() == [
        ["core.0.mlp", 0, 1, 1], ["core.1.mlp", 0, 2, 2], ["core.0.mlp", 1, 1, 3], ["core.1.mlp", 1, 2, 4],
    ]  # fmt: skip
    exits = found.streams[(found.streams["site"] == "core.exit") & (found.streams["quantity"] == "cosine")]
    assert exits[["call", "depth"]].values.tolist() == [[0, 3], [1, 3]]
    with pytest.raises(DataError, match="do not call the same sites"):
        measure(model, [batch, batch | {"loops": torch.tensor(3)}])


def test_memory_does_not_grow_with_the_tokens():
    model, kept = make(), []

    def endless(count):
        for batch in batches(*[4] * count):
            gc.collect()
            alive = {
                t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in gc.get_objects() if is_own(t)
            }
            kept.append(sum(alive.values()))
            yield batch

    def is_own(thing):
        return type(thing) is torch.Tensor and thing.layout == torch.strided

    measure(model, endless(12))
    assert kept[1] - kept[0] > 1e6  # the histograms, made with the first batch
    assert max(kept[2:]) <= kept[2] < kept[1] + 1e5  # then nothing


def test_measuring_leaves_no_trace_and_sees_interventions():
    model, parts = make("hc", **{"model.dropout": 0.5}), batches(2)
    model.train()
    with probing(model, lambda _, maps: maps._replace(res=torch.zeros_like(maps.res))):
        found = measure(model, parts)
    assert (found.maps[found.maps["quantity"] == "sigma_max"]["max"] == 0).all()
    first, second = measure(model, parts), measure(model, parts)
    assert first.streams.equals(second.streams)  # no dropout
    assert all(module.training for module in model.modules())
    assert all(site.connection.probe is None and not site._forward_hooks for site in sites(model).values())


def test_nothing_and_an_unknown_reduction_are_refused():
    with pytest.raises(DataError, match="no batch was given"):
        measure(make(), [])
    with pytest.raises(ConfigError, match="did you mean per_token_then_mean"):
        measure(make(), batches(1), "per_token_mean")


def test_a_model_with_nan_gives_nan_and_not_an_error():
    model = make("hc")
    sites(model)["main.1.attn"].connection.bias["res"].data[0] = torch.nan
    maps = measure(model, batches(2)).maps
    single = maps[(maps["scope"] == "single") & (maps["quantity"] == "lambda2")].set_index("site")["mean"]
    assert single.isna().to_dict() == {
        "main.0.attn": False,
        "main.0.mlp": False,
        "main.1.attn": True,
        "main.1.mlp": True,
    }
