"""The cases at sizes of no interest: who is timed, on what, and from which state."""

import json
import sys
import types

import pytest
import torch
from click.testing import CliRunner

from mhcnb import registry
from mhcnb.bench import compile, connection, sinkhorn, step
from mhcnb.bench.costs import costs, memory
from mhcnb.bench.gpt import Size, gpt
from mhcnb.bench.peers import peers
from mhcnb.bench.place import CPU
from mhcnb.cli import main
from mhcnb.errors import ConfigError

SMALL = Size(width=64, layers=1, heads=1, batch=1, tokens=4, vocabulary=16)
OURS = set(registry.entries("connections"))


@pytest.fixture
def where(checkout, monkeypatch):
    """With an outline of mhc-lite as the only peer."""
    monkeypatch.setattr("mhcnb.bench.peers.importlib.util.find_spec", lambda name: None)
    return CPU._replace(peers=peers([f"mhc-lite={checkout()}"]))


def test_a_step_is_timed_for_every_connection_every_model_of_a_peer_and_the_floor(where):
    timings = step.at(SMALL, where, 2)
    theirs = {f"mhc-lite: {name}" for name in ("residual", "hc", "mhc", "mhc_lite")}
    assert {t.name for t in timings} == OURS | theirs | {"floor: multiplying as much"}
    assert timings[0].name == "residual"
    assert timings[0].ratio == 1
    assert {t.work for t in timings} == {gpt("residual", SMALL).model.flops_per_token() * 4}
    assert [t.case for t in step.at(SMALL, CPU, 2, several=True)] == ["step 64"] * (len(OURS) + 1)


def test_a_layer_is_timed_alone_on_the_same_streams(where):
    """Everybody's meets X [4, 8] a token; those of peers, packed; the residual one has a single stream to move."""
    seen = []
    for name, make in where.peers[0].layers.items():
        make.forward = lambda self, X: seen.append(X.shape) or X * self.layer.weight.sum()
        assert name in OURS
    timings = connection.at(connection.Streams(2, 3, 8), where, 2)
    assert {t.name for t in timings} - {"floor: copying as much"} == OURS | {
        f"mhc-lite: {name}" for name in ("hc", "mhc", "mhc_lite")
    }
    assert set(seen) == {(2 * 4, 3, 8)}
    work = {t.name: t.work for t in timings}
    assert work.pop("residual") == 6 * 8 * 6 * 4
    assert set(work.values()) == {37 * 8 * 6 * 4}


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_layer_alone_mixes_and_writes_back_what_it_reads(name):
    make = registry.load("connections", name)
    config = make.Config(name=name)
    rule = make(config, config.streams, 8, 0, torch.Generator()).double()
    X = torch.randn(2, 3, config.streams, 8, dtype=torch.float64)
    pre, post, res = rule.maps(X)
    u = torch.einsum("btj,btjd->btd", pre, X)
    expected = torch.einsum("btij,btjd->btid", res, X) + torch.einsum("bti,btd->btid", post, u)
    torch.testing.assert_close(connection.Alone(rule)(X), expected)


def test_sinkhorn_is_timed_beside_its_definition_and_theirs(where):
    timings = sinkhorn.at(16, where, 2)
    assert [t.name for t in timings] == ["plain", "sinkhorn", "mhc-lite: sinkhorn", "floor: copying as much"]
    assert {t.work for t in timings} == {5 * 16 * 16 * 4}


def test_every_compilation_begins_with_nothing_compiled(where, monkeypatch):
    """A compiler that only counts finds as much to do for a model in the second round as in the first."""
    graphs = []

    def compiled(loss):
        return torch.compile(loss, backend=lambda graph, inputs: graphs.append(1) or graph)

    seconds = compile._seconds

    def watched(make, where):
        before = len(graphs)
        took = seconds(make, where)
        counts.append(len(graphs) - before)
        return took

    counts = []
    monkeypatch.setattr(compile, "compiled", compiled)
    monkeypatch.setattr(compile, "_seconds", watched)
    monkeypatch.setattr(compile, "METHODS", ("residual", "mhc"))
    monkeypatch.setattr(compile, "SIZE", SMALL)
    timings = compile.compile(where, 2)
    assert [t.name for t in timings] == ["residual", "mhc", "mhc-lite: mhc"]
    warm, residual, mhc, again, mhc_again, _ = counts
    assert warm == residual == again > 0
    assert mhc == mhc_again > 0


def test_costs_vary_one_thing_at_a_time(monkeypatch):
    points = []

    def point(size, streams, methods, where, rounds):
        points.append((size.width, size.heads, size.tokens, size.layers, streams))
        return [{"method": "hc"}]

    monkeypatch.setattr("mhcnb.bench.costs._point", point)
    found = costs(SMALL, {"n": [2], "C": [128, 64], "T": [8], "depth": [3]}, ["hc"], CPU, 2)
    assert points == [(64, 1, 4, 1, 2), (128, 2, 4, 1, 4), (64, 1, 4, 1, 4), (64, 1, 8, 1, 4), (64, 1, 4, 3, 4)]
    assert found[["axis", "value"]].to_numpy().tolist() == [["n", 2], ["C", 128], ["C", 64], ["T", 8], ["depth", 3]]
    with pytest.raises(ConfigError, match="no axis is called 'width'; known: n, C, T, depth"):
        costs(SMALL, {"width": [8]}, ["hc"], CPU, 2)


def test_a_method_that_cannot_have_so_many_streams_is_left_out():
    found = costs(SMALL, {"n": [2, 7]}, ["residual", "hc", "mhc_lite"], CPU, 2)
    assert found[["value", "method"]].to_numpy().tolist() == [[2, "hc"], [2, "mhc_lite"], [7, "hc"]]
    assert (found["low"] <= found["high"]).all()


def test_memory_is_that_of_a_training_process():
    found = memory(SMALL, ["residual", "mhc"]).set_index(["method", "recompute"])
    assert len(found) == 6
    assert (found["activations"] < found["update"]).all()
    kept = found["activations"]
    assert kept["mhc", "block"] < kept["mhc", "connection"] < kept["mhc", "none"]
    assert kept["residual", "none"] < kept["mhc", "none"]


def test_the_command_prints_a_table_and_ratios_and_writes_figures_and_a_picture(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(sinkhorn, "TOKENS", {False: 8})
    monkeypatch.setattr("mhcnb.bench.peers.importlib.util.find_spec", lambda name: None)
    files = {"--json": tmp_path / "bench.json", "--picture": tmp_path / "bench.png"}
    arguments = ["bench", "sinkhorn", "--peer", f"mhc-lite={checkout()}", "--device", "cpu"]
    done = CliRunner().invoke(main, [*arguments, *(str(x) for pair in files.items() for x in pair)])
    assert done.exit_code == 0, done.output
    assert "sinkhorn, times as fast as mhc-lite: sinkhorn " in done.output
    rows = json.loads(files["--json"].read_text())
    assert [row["name"] for row in rows][:2] == ["plain", "sinkhorn"]
    assert files["--picture"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--peer", "mhc-lite=/nowhere"], "ConfigError"),
        (["--device", "abacus"], "ConfigError"),
        (["--json", "/nowhere/bench.json"], "there is no folder /nowhere"),
        (["--picture", "bench.doc"], "expected a name that ends in .png"),
    ],
)
def test_the_command_refuses_before_it_times_anything(option, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "mhcnb.bench.sinkhorn", types.ModuleType("none"))
    done = CliRunner().invoke(main, ["bench", "sinkhorn", *option])
    assert done.exit_code == 2, done.output
    assert said in done.output
